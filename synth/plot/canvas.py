"""The one place where matplotlib is loaded: figures that look the same for everyone, and their files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecglm.synth.errors import ECGLMError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MM_PER_INCH = 25.4
DPI = 254
"""Ten pixels per millimetre."""
SUFFIXES = (".png", ".svg")

_MISSING_MATPLOTLIB = "the picture needs matplotlib, which is not installed: pip install 'ecglm[plot]'"
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "path.simplify": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ecglm",  # ids in the file are the same every time
}


@contextmanager
def canvas_style() -> Iterator[None]:
    """Within it, figures are made with settings of ours instead of the user's.

    Raises:
        ECGLMError: matplotlib is not installed; says how to install it.
    """
    try:
        import matplotlib as mpl
        import matplotlib.style
    except ImportError as error:
        raise ECGLMError(_MISSING_MATPLOTLIB) from error
    with mpl.style.context("default"), mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a lead's name in a script that the font lacks
        yield


def new_figure(width_mm: float, height_mm: float) -> Figure:
    """An empty figure of this size that belongs to no window; made and filled within `canvas_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH))
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: float = DPI) -> None:
    """Writes a figure as PNG or SVG, as the suffix says; the same figure gives the same bytes.

    Raises:
        ECGLMError: matplotlib is not installed, another suffix, or the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ECGLMError(f"{path}: a picture ends in {' or '.join(SUFFIXES)}; choose another file name")
    undated: dict[str, str | None] = {"Software": None} if kind == ".png" else {"Date": None, "Creator": None}
    with canvas_style():
        try:
            figure.savefig(path, format=kind[1:], dpi=dpi, metadata=undated)
        except OSError as error:
            raise ECGLMError(f"{path}: cannot be written: {error}; choose another file") from error
