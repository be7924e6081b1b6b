"""Drawing a composed page: millimetre grid, curves, calibration pulses, names and notes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecglm.synth.plot.canvas import new_figure
from ecglm.synth.plot.layout import (
    FOOTER,
    GRID_LEFT,
    GRID_RIGHT,
    HEADER,
    MM_PER_S,
    PAGE_WIDTH,
    TRACE_LEFT,
    USUAL_MM_PER_MV,
    Cell,
    Page,
    excursions,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT_INK, WARNING = "#141414", "#6a6a6a", "#b00020"
FINE_LINE, COARSE_LINE = "#f7d4d1", "#eea9a3"
PT_PER_MM = 72 / 25.4
CURVE_PT = 0.3 * PT_PER_MM

_BELOW_CURVES, _BELOW_NAMES = 1.8, 1.0  # order of drawing
_NAME_ABOVE, _NAME_WIDTH = 7.0, 10.0  # mm
_MOST_MARKS = 12  # of a cut curve in one cell
_NOTE_LETTERS, _NOTE_LINES = 170, 3


def new_sheet(height: float) -> tuple[Figure, Axes]:
    """A page of this height, and axes that cover it and count in millimetres from its lower left corner."""
    figure = new_figure(PAGE_WIDTH, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, PAGE_WIDTH)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def draw_page(
    axes: Axes, page: Page, name: str, bottom: float = 0.0, rate: str = "", beats_s: Iterable[float] = ()
) -> None:
    """Draws the page with its lower edge at `bottom`; beats, in seconds of the record, are marked below the rhythm."""
    top = bottom + page.height
    draw_grid(axes, bottom + FOOTER, top - HEADER)
    _draw_header(axes, page, name, rate, top)
    for number, row in enumerate(page.rows):
        draw_pulse(axes, bottom + row.level, page.gain, f"calibration-{number}")
    for number, cell in enumerate(page.cells):
        _draw_cell(axes, page, cell, number, bottom)
    _draw_marks(axes, page, bottom, beats_s)
    _draw_footer(axes, page, bottom)


# ------------------------------------------------------------------------------------------------- parts of any drawing


def draw_grid(axes: Axes, bottom: float, top: float) -> None:
    """Lines every millimetre, stronger ones every fifth."""
    for step, colour, width_mm in ((1, FINE_LINE, 0.1), (5, COARSE_LINE, 0.16)):
        xs, ys = np.arange(GRID_LEFT, GRID_RIGHT + step / 2, step), np.arange(bottom, top + step / 2, step)
        gap = np.nan
        x = [*np.column_stack([xs, xs, xs * gap]).ravel(), *np.tile([GRID_LEFT, GRID_RIGHT, gap], len(ys))]
        y = [*np.tile([bottom, top, gap], len(xs)), *np.column_stack([ys, ys, ys * gap]).ravel()]
        looks: dict[str, Any] = {"color": colour, "linewidth": width_mm * PT_PER_MM, "solid_capstyle": "butt"}
        axes.plot(x, y, zorder=_BELOW_NAMES, gid=f"grid-{step}mm", **looks)


def draw_pulse(axes: Axes, level: float, gain: float, gid: str, mm_per_s: float = MM_PER_S) -> None:
    """The calibration pulse before a row: 1 mV for 200 ms."""
    left, width = GRID_LEFT + 5, 0.2 * mm_per_s
    x = np.array([left - 2, left, left, left + width, left + width, left + width + 2])
    draw_curve(axes, x, level + gain * np.array([0.0, 0, 1, 1, 0, 0]), gid)


def draw_curve(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], gid: str) -> Any:
    """A curve in the ink and width of all curves."""
    looks: dict[str, Any] = {"solid_joinstyle": "round", "solid_capstyle": "round", "gid": gid}
    return axes.plot(x, y, color=INK, linewidth=CURVE_PT, **looks)[0]


def keep_within(axes: Axes, curve: Any, bottom: float, top: float) -> None:
    """Hides what of a curve lies outside its band."""
    from matplotlib.patches import Rectangle

    band = Rectangle((GRID_LEFT, bottom), GRID_RIGHT - GRID_LEFT, top - bottom)
    curve.set_clip_path(band.get_path(), band.get_transform() + axes.transData)


def draw_cuts(axes: Axes, cuts: Sequence[tuple[float, bool]], bottom: float, top: float, gid: str) -> None:
    """Arrow heads where a curve leaves its band: how far from the left, and whether over the upper edge."""
    for upwards, y, marker in ((True, top - 0.9, "^"), (False, bottom + 0.9, "v")):
        x = [place for place, above in cuts if above == upwards]
        if x:
            looks: dict[str, Any] = {"markersize": 1.8 * PT_PER_MM, "markeredgewidth": 0, "gid": gid}
            axes.plot(x, [y] * len(x), marker, color=WARNING, **looks)


def draw_name(axes: Axes, x: float, y: float, text: str) -> None:
    """A lead's name on a light ground, so that the grid does not disturb it; curves go over it."""
    ground: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    write(axes, x, y, text, 9, fontweight="bold", bbox=ground, zorder=_BELOW_CURVES)


def write(axes: Axes, x: float, y: float, text: str, size: float, **looks: Any) -> None:
    """Plain text; nothing in it is read as markup."""
    looks.setdefault("color", INK)
    axes.text(x, y, text, fontsize=size, va="baseline", parse_math=False, **looks)


def shortened(text: str, most: int) -> str:
    """Text without letters that cannot be printed, cut after `most`."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


# --------------------------------------------------------------------------------------------------- parts of the page


def _draw_cell(axes: Axes, page: Page, cell: Cell, number: int, bottom: float) -> None:
    row = page.rows[cell.row]
    level = bottom + row.level
    seconds, values = page.values(cell)
    curve = draw_curve(axes, cell.left + MM_PER_S * seconds, level + page.gain * values, f"trace-{number}")
    keep_within(axes, curve, bottom + row.bottom, bottom + row.top)
    cuts = [(cell.left + MM_PER_S * second, above) for second, above in excursions(page, cell)]
    draw_cuts(axes, cuts[:_MOST_MARKS], bottom + row.bottom, bottom + row.top, f"cut-{number}")
    if cell.left > TRACE_LEFT:  # where one lead ends and the next begins
        draw_curve(axes, np.full(2, cell.left), level + np.array([-3.0, 3.0]), f"border-{number}")
    near = page.gain * values[seconds * MM_PER_S < _NAME_WIDTH]
    highest = float(np.nanmax(near)) if np.isfinite(near).any() else 0.0
    name_y = bottom + min(row.level + max(_NAME_ABOVE, highest + 1.5), row.top - 4)
    draw_name(axes, cell.left + 1, name_y, page.tracing.leads[cell.lead])


def _draw_marks(axes: Axes, page: Page, bottom: float, beats_s: Iterable[float]) -> None:
    cells = [page.cells[number] for number in page.rhythm]
    points = [
        (cell.left + (second - cell.start_s) * MM_PER_S, bottom + page.rows[cell.row].bottom + 1.2)
        for second in beats_s
        for cell in cells
        if cell.start_s <= second < cell.stop_s
    ]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "|", markersize=1.8 * PT_PER_MM, color=FAINT_INK, gid="beats")


def _draw_header(axes: Axes, page: Page, name: str, rate: str, top: float) -> None:
    tracing = page.tracing
    write(axes, GRID_LEFT, top - 10, shortened(name, 90), 13, fontweight="bold")
    leads = f"{len(tracing.leads)} lead{'s' * (len(tracing.leads) != 1)}"
    told = [leads, f"{tracing.sampling_hz:g} Hz", _stretch(page), *([rate] if rate else [])]
    write(axes, GRID_LEFT, top - 17, "   ·   ".join(told), 9)
    write(axes, GRID_RIGHT, top - 10, "not for diagnosis", 9, ha="right", color=FAINT_INK)


def _stretch(page: Page) -> str:
    whole = f"{round(page.tracing.seconds, 2):g} s"
    if page.start_s == 0 and page.stop_s >= page.tracing.seconds - 0.5 / page.tracing.sampling_hz:
        return whole
    return f"seconds {round(page.start_s, 2):g} to {round(page.stop_s, 2):g} of {whole}"


def _draw_footer(axes: Axes, page: Page, bottom: float) -> None:
    scale, looks = f"{MM_PER_S:g} mm/s   {page.gain:g} mm/mV", {"color": INK, "fontweight": "normal"}
    if page.gain != USUAL_MM_PER_MV:
        scale += f"  (not the usual {USUAL_MM_PER_MV:g} mm/mV)"
        looks = {"color": WARNING, "fontweight": "bold"}
    y = bottom + FOOTER - 5
    write(axes, GRID_LEFT, y, scale, 9, **looks)
    write(axes, GRID_RIGHT, y, "no filter; each curve on its median level", 7, ha="right", color=FAINT_INK)
    lines = textwrap.wrap("   ·   ".join(page.notes), _NOTE_LETTERS, max_lines=_NOTE_LINES, placeholder=" …")
    for number, line in enumerate(lines, start=1):
        write(axes, GRID_LEFT, y - 1 - 3.4 * number, line, 7)
