"""Where everything on an ECG page goes, in millimetres from its lower left corner; nothing is drawn here.

The page is A4 landscape with the layout that is usual on paper (Kligfield et al. 2007,
doi:10.1161/CIRCULATIONAHA.106.180200): four columns of three leads, one after the other in time, above a rhythm strip,
at 25 mm/s and 10 mm/mV. Other lead sets and lengths use the same millimetres; only a page with many rows is higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecglm.synth.errors import SignalError
from ecglm.synth.plot.tracing import FLAT_MV, Tracing
from ecglm.synth.schema import LEADS

MM_PER_S = 25.0
USUAL_MM_PER_MV = 10.0
GAINS = (2.5, 5.0, 10.0, 20.0, 40.0)
"""Millimetres per mV that electrocardiographs offer."""

PAGE_WIDTH, PAGE_HEIGHT = 297.0, 210.0
HEADER, FOOTER = 22.0, 18.0
GRID_LEFT, GRID_RIGHT = 11.0, 286.0
TRACE_LEFT = 26.0
"""Where every row's first sample lies; the calibration pulse stands before it."""
LINE_S = 10.0
"""Seconds in a full row."""
MOST_SECONDS = 60.0
MOST_ROWS = 12
STRIPS = 6
"""Up to so many leads get a row each."""
SHORTEST_COLUMN_S, COLUMN_S = 2.0, 2.5

_LEFT_OVER_S = 1.0  # a last row would be shorter: it is left away, and the page says how far it goes
_ROOM, _ROOMY = 2.0, 8.0  # mm around a curve; beyond the least height of a row where the page is not A4
_LEAST_BELOW, _MOST = 7.0, 45.0  # mm below a level at least, above or below one at most
_RHYTHM_LEADS = ("II", "V1", "V5", "I", "V2")


@dataclass(frozen=True)
class Cell:
    """A stretch of one lead in one row."""

    lead: int
    start_s: float
    stop_s: float
    left: float
    row: int
    level: float = 0.0
    """mV that lie on the row's level: the median of the stretch."""


@dataclass(frozen=True)
class Row:
    """A band of the page that no other row's curves enter."""

    top: float
    level: float
    bottom: float


@dataclass(frozen=True)
class Page:
    """A page as it will be drawn."""

    tracing: Tracing
    height: float
    gain: float
    start_s: float
    stop_s: float
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    rhythm: tuple[int, ...]
    """Which cells run through all of the time that is shown: there beats are marked."""
    notes: tuple[str, ...] = ()
    """What a reader must know: parts not shown, gaps, flat leads, curves cut at the edge of their row."""

    def values(self, cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds since the cell's start, and mV above its level; NaN where nothing was recorded."""
        hz = self.tracing.sampling_hz
        first, last = round(cell.start_s * hz), round(cell.stop_s * hz)
        signal = self.tracing.signal[first : last + 1, cell.lead]  # one sample more: the curve reaches the edge
        return (np.arange(first, first + len(signal)) / hz - cell.start_s), signal - cell.level

    def limits(self, cell: Cell) -> tuple[float, float]:
        """The lowest and highest mV above the cell's level that its row has room for."""
        row = self.rows[cell.row]
        return (row.bottom - row.level) / self.gain, (row.top - row.level) / self.gain


def compose(
    tracing: Tracing, *, gain: float = USUAL_MM_PER_MV, start_s: float = 0.0, seconds: float | None = None
) -> Page:
    """Lays out a page.

    Args:
        tracing: what to draw.
        gain: mm per mV.
        start_s: where in the record the page begins.
        seconds: how much of it to show; None for as much as fits, 60 s at most.

    Raises:
        SignalError: `start_s` is not within the record, or `gain` or `seconds` is not above 0.
    """
    if not 0 <= start_s < tracing.seconds - 1 / tracing.sampling_hz:
        raise SignalError(
            "outside_record", f"start is {start_s:g} s; expected 0 to less than {tracing.seconds:g} s, the record's end"
        )
    for name, value in (("gain", gain), ("seconds", seconds)):
        if value is not None and not 0 < value < np.inf:
            raise SignalError("outside_record", f"{name} is {value:g}; expected a number above 0")
    shown = min(tracing.seconds - start_s, MOST_SECONDS if seconds is None else min(seconds, MOST_SECONDS))
    cells, rhythm, shown = _arrange(tracing, start_s, shown)
    cells = [_levelled(tracing, cell) for cell in cells]
    rows, height = _stack(tracing, cells, gain)
    page = Page(tracing, height, gain, start_s, start_s + shown, tuple(cells), rows, tuple(rhythm))
    return replace(page, notes=tuple(_notes(page)))


# -------------------------------------------------------------------------------------------- which lead in which place


def _arrange(tracing: Tracing, start_s: float, shown: float) -> tuple[list[Cell], range, float]:
    """The cells, which of them are the rhythm strip, and how many seconds they show in all."""
    n_leads = len(tracing.leads)
    grid = [] if n_leads <= STRIPS else _columns(tracing.leads)
    n_rows = max(map(len, grid), default=0)
    in_turn = range(n_leads) if not grid else [_rhythm_lead(tracing, start_s, start_s + shown)]
    lines = min(_lines(shown), max(1, (MOST_ROWS - n_rows) // len(in_turn)))
    shown = min(shown, lines * LINE_S)
    cells = _grid(grid, start_s, shown) if grid else []
    n_before = len(cells)
    for line in range(lines):
        start = start_s + line * LINE_S
        stop = min(start + LINE_S, start_s + shown)
        for number, lead in enumerate(in_turn):
            cells.append(Cell(lead, start, stop, TRACE_LEFT, n_rows + line * len(in_turn) + number))
    return cells, range(n_before + len(in_turn) - 1, len(cells), len(in_turn)), shown


def _grid(grid: Sequence[Sequence[int]], start_s: float, shown: float) -> list[Cell]:
    """Columns one after the other in time, or all at the same time if too little was recorded for that."""
    width_s = min(shown, LINE_S) / len(grid)
    step_s = width_s
    if width_s < SHORTEST_COLUMN_S:
        width_s, step_s = min(shown, COLUMN_S), 0.0
    cells = []
    for column, leads in enumerate(grid):
        start, left = start_s + column * step_s, TRACE_LEFT + column * width_s * MM_PER_S
        cells += [Cell(lead, start, start + width_s, left, row) for row, lead in enumerate(leads)]
    return cells


def _lines(seconds: float) -> int:
    return max(1, int((seconds + LINE_S - _LEFT_OVER_S) // LINE_S))


def _columns(leads: Sequence[str]) -> list[list[int]]:
    """Columns of leads, top to bottom: limb, augmented and chest leads of a standard ECG, further leads below them."""
    if leads[: len(LEADS)] == LEADS:
        columns = [list(range(first, first + 3)) for first in range(0, len(LEADS), 3)]
        for number, lead in enumerate(range(len(LEADS), len(leads))):
            columns[number % len(columns)].append(lead)
        return columns
    height = -(-len(leads) // 4)
    return [list(range(first, min(first + height, len(leads)))) for first in range(0, len(leads), height)]


def _rhythm_lead(tracing: Tracing, start_s: float, stop_s: float) -> int:
    """II where it shows anything, else the next best lead that does."""
    signal = tracing.between(start_s, stop_s)
    alive = [
        lead for lead in range(len(tracing.leads)) if not _flat(signal[:, lead]) and _missing(signal[:, lead]) < 0.5
    ]
    for name in _RHYTHM_LEADS:
        if name in tracing.leads and tracing.leads.index(name) in alive:
            return tracing.leads.index(name)
    return alive[0] if alive else 0


def _flat(values: NDArray[np.float64]) -> bool:
    there = values[~np.isnan(values)]
    return bool(len(there)) and float(np.ptp(there)) < FLAT_MV


def _missing(values: NDArray[np.float64]) -> float:
    return float(np.isnan(values).mean()) if len(values) else 1.0


# ------------------------------------------------------------------------------------------------ how high each row is


def _levelled(tracing: Tracing, cell: Cell) -> Cell:
    values = tracing.between(cell.start_s, cell.stop_s)[:, cell.lead]
    there = values[~np.isnan(values)]
    level = float(np.median(there)) if len(there) else 0.0
    return replace(cell, level=level)


def _stack(tracing: Tracing, cells: Sequence[Cell], gain: float) -> tuple[tuple[Row, ...], float]:
    """Rows from top to bottom, and the height of the page they need."""
    needs = [NO_NEED] * (max(cell.row for cell in cells) + 1)
    for cell in cells:
        values = tracing.between(cell.start_s, cell.stop_s)[:, cell.lead] - cell.level
        needs[cell.row] = need_of(values * gain, needs[cell.row])
    least = gain + 2 * _ROOM, _LEAST_BELOW  # the calibration pulse must fit
    height = PAGE_HEIGHT - HEADER - FOOTER
    if len(needs) * (sum(least) + _ROOM) > height:  # more rows than A4 has room for
        height = 5 * float(np.ceil(len(needs) * (sum(least) + _ROOMY) / 5))
    wanted = [want(need, least, _ROOM, _MOST) for need in needs]
    return stack(wanted, least, FOOTER, height), FOOTER + height + HEADER


Need = tuple[float, float]
"""Millimetres above and below a row's level."""
NO_NEED: Need = (0.0, 0.0)


def need_of(curve: NDArray[np.float64], at_least: Need = NO_NEED) -> Need:
    """What a curve, in mm from its level, needs."""
    there = curve[~np.isnan(curve)]
    if not len(there):
        return at_least
    return max(at_least[0], float(there.max())), max(at_least[1], -float(there.min()))


def want(need: Need, least: Need, room: float, most: float) -> Need:
    """A need with some room around it, within limits."""
    above, below = (min(max(mm + room, low), max(most, low)) for mm, low in zip(need, least, strict=True))
    return above, below


def stack(wanted: Sequence[Need], least: Need, bottom: float, height: float) -> tuple[Row, ...]:
    """Rows from top to bottom that fill the height above `bottom`.

    Every row gets what it wants as long as that fits; otherwise what it wants beyond `least` is cut in proportion.
    What is left over goes to all alike. Levels lie on whole millimetres.
    """
    asked, fixed = sum(map(sum, wanted)), len(wanted) * sum(least)
    factor = min(1.0, (height - fixed) / (asked - fixed)) if asked > fixed else 1.0
    extra = max(0.0, height - asked) / len(wanted) / 2
    rows, top = [], bottom + height
    for row in wanted:
        above, below = (low + factor * (mm - low) + extra for mm, low in zip(row, least, strict=True))
        rows.append(Row(top, round(top - above), top - above - below))
        top -= above + below
    return tuple(rows)


# --------------------------------------------------------------------------------------------------------------- notes


def _notes(page: Page) -> list[str]:
    tracing = page.tracing
    notes = []
    if sum(cell.start_s == page.start_s and cell.row == 0 for cell in page.cells) > 1:
        notes.append("every column shows the same seconds")
    elif len(page.rhythm) > 1 and len(tracing.leads) > STRIPS:
        notes.append(f"the columns show seconds {page.start_s:g} to {page.start_s + LINE_S:g}")
    if tracing.left_out:
        notes.append(f"left out: {', '.join(tracing.left_out)}")
    signal = tracing.between(page.start_s, page.stop_s)
    shares = {name: _missing(signal[:, lead]) for lead, name in enumerate(tracing.leads)}
    absent = [name for name, share in shares.items() if share == 1]
    gaps = [f"{name} {percent(share)}" for name, share in shares.items() if 0 < share < 1]
    flat = dict.fromkeys(tracing.leads[cell.lead] for cell in page.cells if _flat(page.values(cell)[1]))
    if absent:
        notes.append(f"not recorded: {', '.join(absent)}")
    if gaps:
        notes.append(f"samples missing: {', '.join(gaps)}")
    if flat:
        notes.append(f"flat where shown: {', '.join(flat)}")
    cut = dict.fromkeys(tracing.leads[cell.lead] for cell in page.cells if excursions(page, cell))
    if cut:
        notes.append(f"cut at the edge of the row (▲▼): {', '.join(cut)}; a smaller gain shows more")
    return notes


def percent(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def excursions(page: Page, cell: Cell) -> list[tuple[float, bool]]:
    """Where a curve leaves its row: seconds since the cell's start, and whether upwards."""
    return beyond(*page.values(cell), *page.limits(cell))


def beyond(
    seconds: NDArray[np.float64], values: NDArray[np.float64], low: float, high: float, apart_s: float = 0.12
) -> list[tuple[float, bool]]:
    """When values are above `high` (True) or below `low` (False); of times near to each other only the first."""
    found: list[tuple[float, bool]] = []
    for upwards, outside in ((True, values > high), (False, values < low)):
        last = -np.inf
        for second in seconds[outside]:
            if second - last > apart_s:
                found.append((float(second), upwards))
            last = second
    return found
