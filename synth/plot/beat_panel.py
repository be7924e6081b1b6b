"""The second part of a picture: the median beat of each lead, with the points and the values that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecglm.synth.plot.drawing import (
    CURVE_PT,
    FAINT_INK,
    draw_curve,
    draw_cuts,
    draw_grid,
    draw_name,
    draw_pulse,
    keep_within,
    shortened,
    write,
)
from ecglm.synth.plot.layout import GRID_LEFT, GRID_RIGHT, Row, beyond, need_of, stack, want
from ecglm.synth.plot.measured import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEAT_MM_PER_S = 50.0
TOP, BOTTOM = 20.0, 8.0
BEAT_LEFT = 31.0
_GAP, _MARGIN_MS = 5.0, 80.0
_ROOM, _LEAST_BELOW, _MOST = 5.0, 10.0, 65.0  # mm; names stand at the upper edge, letters at the lower
_NAME_HEIGHT = 4.5
_MM_PER_MS = BEAT_MM_PER_S / 1000
_WAVES = (  # letter, points, colour
    ("P", ("p_onset", "p_offset"), "#1f5fa8"),
    ("QRS", ("qrs_onset", "qrs_offset"), "#0d6b45"),
    ("T", ("t_offset",), "#7b3fa0"),
)


@dataclass(frozen=True)
class BeatPanel:
    """Where the median beats go, in mm from the panel's lower edge."""

    height: float
    gain: float
    rows: tuple[Row, ...]
    n_columns: int
    names: tuple[str, ...]
    times_ms: NDArray[np.float64]
    """(n_times,) since the beat's first sample: the part that is shown."""
    curves: NDArray[np.float64]
    """(n_leads, n_times) in mV above the level just before the QRS complex."""
    points_ms: Mapping[str, float]

    def place(self, lead: int, time_ms: float) -> float:
        """How far from the left a moment of a lead's beat lies."""
        column = lead % self.n_columns
        return BEAT_LEFT + column * (_width(self.times_ms) + _GAP) + (time_ms - float(self.times_ms[0])) * _MM_PER_MS

    def row(self, lead: int) -> Row:
        return self.rows[lead // self.n_columns]


def compose_beats(measured: Measured, gain: float) -> BeatPanel:
    """Lays out the panel; one without a beat holds only text."""
    beat = measured.beat
    if beat is None:
        return BeatPanel(TOP + BOTTOM, gain, (), 1, (), np.zeros(0), np.zeros((0, 0)), {})
    marked = {name: beat.fiducials_ms[name] for _, names, _ in _WAVES for name in names if name in beat.fiducials_ms}
    points = list(marked.values())
    times = np.arange(beat.signal.shape[1]) / beat.hz * 1000
    first, last = (min(points) - _MARGIN_MS, max(points) + _MARGIN_MS) if points else (times[0], times[-1])
    shown = (times >= first) & (times <= last)
    times, curves = times[shown], np.asarray(beat.signal, np.float64)[:, shown]
    fit = max(1, int((GRID_RIGHT - BEAT_LEFT) // (_width(times) + _GAP)))
    n_rows = -(-len(curves) // fit)
    n_columns = -(-len(curves) // n_rows)
    least = gain + _ROOM, _LEAST_BELOW
    wanted = [
        want(need_of(curves[first : first + n_columns] * gain), least, _ROOM, _MOST)
        for first in range(0, len(curves), n_columns)
    ]
    height = 5 * float(np.ceil(sum(map(sum, wanted)) / 5))
    rows = stack(wanted, least, BOTTOM, height)
    return BeatPanel(TOP + height + BOTTOM, gain, rows, n_columns, beat.leads, times, curves, marked)


def _width(times_ms: NDArray[np.float64]) -> float:
    return float(times_ms[-1] - times_ms[0]) * _MM_PER_MS if len(times_ms) else 0.0


def draw_beats(axes: Axes, panel: BeatPanel, measured: Measured, bottom: float) -> None:
    """Draws the panel with its lower edge at `bottom`."""
    top = bottom + panel.height
    heading = "measured"
    if panel.names:
        heading = (
            f"median beat ({len(measured.beats_s)} beats found)   ·   {BEAT_MM_PER_S:g} mm/s   {panel.gain:g} mm/mV"
        )
    write(axes, GRID_LEFT, top - 6, heading, 9, fontweight="bold")
    write(axes, GRID_LEFT, top - 12, "   ·   ".join(measured.shown) or "no interval could be measured", 9)
    problems = "   ·   ".join(measured.problems)
    if problems:
        write(axes, GRID_LEFT, top - 17, shortened(problems, 170), 7)
    if not panel.names:
        return
    draw_grid(axes, bottom + BOTTOM, top - TOP)
    for number, row in enumerate(panel.rows):
        draw_pulse(axes, bottom + row.level, panel.gain, f"beat-calibration-{number}", BEAT_MM_PER_S)
    for lead in range(len(panel.names)):
        _draw_beat(axes, panel, lead, bottom)
    explained = "onset and offset of P and QRS, offset of T: over all leads"
    write(axes, GRID_RIGHT, bottom + BOTTOM - 4.5, explained, 7, ha="right", color=FAINT_INK)


def _draw_beat(axes: Axes, panel: BeatPanel, lead: int, bottom: float) -> None:
    row, curve = panel.row(lead), panel.curves[lead]
    low, high = bottom + row.bottom + 1, bottom + row.top - _NAME_HEIGHT
    for letter, names, colour in _WAVES:
        ends = [panel.place(lead, panel.points_ms[name]) for name in names if name in panel.points_ms]
        for end in ends:
            axes.plot([end] * 2, [low, high], color=colour, linewidth=0.8 * CURVE_PT, gid=f"point-{lead}-{letter}")
        if ends:
            middle, side = (sum(ends) / 2, "center") if len(ends) == 2 else (ends[0] - 0.6, "right")
            write(axes, middle, low, letter, 6, color=colour, ha=side)
    x = panel.place(lead, 0.0) + panel.times_ms * _MM_PER_MS
    line = draw_curve(axes, x, bottom + row.level + panel.gain * curve, f"beat-{lead}")
    keep_within(axes, line, bottom + row.bottom, bottom + row.top)
    limits = (row.bottom - row.level) / panel.gain, (row.top - row.level) / panel.gain
    cuts = [
        (panel.place(lead, 1000 * second), above) for second, above in beyond(panel.times_ms / 1000, curve, *limits)
    ]
    draw_cuts(axes, cuts, bottom + row.bottom, bottom + row.top, f"beat-cut-{lead}")
    draw_name(axes, panel.place(lead, float(panel.times_ms[0])) + 0.5, high + 0.8, panel.names[lead])
