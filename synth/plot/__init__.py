"""`synth plot`: an ECG on millimetre paper, as it is printed, and its median beat with the points that were measured.

Needs matplotlib (`pip install 'ecglm[plot]'`), which is loaded only when something is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecglm.synth.plot.canvas import DPI, SUFFIXES, canvas_style, save_figure
from ecglm.synth.plot.layout import GAINS, USUAL_MM_PER_MV, compose
from ecglm.synth.plot.measured import Measured, measure_page
from ecglm.synth.plot.tracing import Signal, Tracing, as_tracing, read_tracing
from ecglm.synth.signals import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ecglm.synth.plot.layout import Page


def plot_ecg(
    ecg: Record | Signal | Tracing,
    name: str = "",
    *,
    measured: bool = False,
    gain: float = USUAL_MM_PER_MV,
    start_s: float = 0.0,
    seconds: float | None = None,
) -> Figure:
    """Draws an ECG in the usual layout, at 25 mm/s on a grid of millimetres; write it with `save_figure`.

    Args:
        ecg: a record, or ((n_samples, n_leads) in mV with NaN for missing samples, lead names, samples per second).
        name: stands at the top of the page.
        measured: also draw the median beat with its onsets and offsets, mark the beats and print what was measured
            on the seconds that are shown.
        gain: mm per mV; other than 10 is said in red.
        start_s: where in the record the page begins.
        seconds: how much of it to show; None for as much as fits (60 s at most, said on the page if that is not all).

    Raises:
        ECGLMError: matplotlib is not installed; says how to install it.
        SignalError: nothing can be drawn, or the arguments do not fit the record.
    """
    page = compose(as_tracing(ecg), gain=gain, start_s=start_s, seconds=seconds)
    return draw(page, name, measure_page(page) if measured else None)


def draw(page: Page, name: str, measured: Measured | None = None) -> Figure:
    """Draws a composed page, with the panel of median beats below it if anything was measured on it."""
    from ecglm.synth.plot.beat_panel import compose_beats, draw_beats
    from ecglm.synth.plot.drawing import draw_page, new_sheet

    with canvas_style():
        if measured is None:
            figure, axes = new_sheet(page.height)
            draw_page(axes, page, name)
        else:
            panel = compose_beats(measured, page.gain)
            figure, axes = new_sheet(page.height + panel.height)
            draw_page(axes, page, name, panel.height, measured.rate, measured.beats_s)
            draw_beats(axes, panel, measured, 0.0)
    return figure


def plot_record(
    path: Path,
    out: Path,
    *,
    measured: bool = False,
    gain: float = USUAL_MM_PER_MV,
    start_s: float = 0.0,
    seconds: float | None = None,
    dpi: int = DPI,
) -> dict[str, Any]:
    """Draws the WFDB record at `path` (with or without `.hea`) into a PNG or SVG file; options as for `plot_ecg`.

    Returns:
        What the picture shows: record, leads, sampling_hz, seconds (from, to), gain, notes, measured values.

    Raises:
        ECGLMError: matplotlib is not installed, or the file cannot be written.
        SignalError: the record cannot be read or drawn.
    """
    name, tracing = read_tracing(path)
    page = compose(tracing, gain=gain, start_s=start_s, seconds=seconds)
    found = measure_page(page) if measured else None
    save_figure(draw(page, name, found), out, dpi)
    return {
        "out": str(out),
        "record": name,
        "leads": list(tracing.leads),
        "sampling_hz": tracing.sampling_hz,
        "seconds": [page.start_s, page.stop_s],
        "mm_per_mv": gain,
        "notes": list(page.notes),
        "measured": None if found is None else dict(found.values),
        "not_measured": [] if found is None else list(found.problems),
    }


__all__ = [
    "DPI",
    "GAINS",
    "SUFFIXES",
    "Tracing",
    "draw",
    "plot_ecg",
    "plot_record",
    "read_tracing",
    "save_figure",
]
