"""Pictures of the page, as SVG text: rates with their intervals, and distributions of a value with its limits."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ecglm.synth.findings import Doubles

SENSITIVITY, SPECIFICITY, LIMIT = "#1f5f8b", "#c0792a", "#a3262a"
"""Colours; the style sheet of the page has the same."""
_FOREST_WIDTH, _FOREST_HEIGHT, _MARGIN = 190, 24, 6
_VALUE_WIDTH, _VALUE_HEIGHT = 300, 118
_N_BINS = 44
_MOST_STEPS = 600
FEWEST = 10
"""Labelled ECGs below which no distribution is drawn."""


Interval = tuple[float | None, float | None, float | None]
"""A rate from 0 to 1, and the ends of its interval."""


def forest(sensitivity: Interval, specificity: Interval) -> str:
    """Two rates on a line from 0 to 100 %; empty where neither is known."""
    if sensitivity[0] is None and specificity[0] is None:
        return ""
    parts = [
        _line(_at(x), 1, _at(x), _FOREST_HEIGHT - 1, f'class="grid{" end" * (x != 0.5)}"')
        for x in (0, 0.25, 0.5, 0.75, 1)
    ]
    for rate, y, colour, round_ in ((sensitivity, 8, SENSITIVITY, True), (specificity, 16, SPECIFICITY, False)):
        value, low, high = rate
        if value is None:
            continue
        if low is not None and high is not None:
            parts.append(_line(_at(low), y, _at(high), y, f'stroke="{colour}" stroke-width="1.6"'))
        x = _at(value)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y}" r="3.1" fill="{colour}"/>'
            if round_
            else f'<rect x="{x - 2.8:.1f}" y="{y - 2.8:.1f}" width="5.6" height="5.6" fill="{colour}"/>'
        )
    return _svg(
        _FOREST_WIDTH, _FOREST_HEIGHT, parts, "sensitivity and specificity on a scale from 0 to 100 %", "forest"
    )


def _line(x1: float, y1: float, x2: float, y2: float, looks: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {looks}/>'


def _at(rate: float) -> float:
    return _MARGIN + rate * (_FOREST_WIDTH - 2 * _MARGIN)


def distributions(
    labelled: Doubles, others: Doubles, limits: Sequence[tuple[float, str]], title: str, unit: str
) -> str:
    """Densities of a value in ECGs with and without the label, and the limits as lines; empty if there are too few.

    Args:
        labelled, others: known values.
        limits: each with its text.
        title: what is measured, in words.
        unit: of the values.
    """
    together = np.concatenate([labelled, others])
    if len(labelled) < FEWEST or len(others) < FEWEST or len(np.unique(together)) < 3:
        return ""
    low, high = np.quantile(others, (0.005, 0.995))
    low, high = min(low, np.quantile(labelled, 0.01)), max(high, np.quantile(labelled, 0.99))
    low, high = min([low, *(limit for limit, _ in limits)]), max([high, *(limit for limit, _ in limits)])
    edges = _edges(together, low, high)
    left, right, top, bottom = 4.0, _VALUE_WIDTH - 4.0, 34.0, _VALUE_HEIGHT - 18.0
    heights = [np.histogram(values, edges)[0] / len(values) for values in (others, labelled)]
    tallest = max(height.max() for height in heights)

    def x(value: float) -> float:
        return float(left + (value - edges[0]) / (edges[-1] - edges[0]) * (right - left))

    def outline(height: Doubles) -> str:
        ys = bottom - height / tallest * (bottom - top)
        points = [(x(edges[0]), bottom)]
        for number, y in enumerate(ys):
            points += [(x(edges[number]), y), (x(edges[number + 1]), y)]
        points.append((x(edges[-1]), bottom))
        return " ".join(f"{px:.1f},{py:.1f}" for px, py in points)

    parts = [
        f'<text x="4" y="11" class="title">{escape(_shortened(title, 56))}</text>',
        f'<polygon points="{outline(heights[0])}" class="others"/>',
        f'<polygon points="{outline(heights[1])}" class="labelled"/>',
        _line(left, bottom, right, bottom, 'class="axis"'),
    ]
    for number, (limit, text) in enumerate(sorted(limits)):
        place = x(limit)
        anchor = "start" if place < _VALUE_WIDTH * 0.6 else "end"
        parts += [
            _line(place, top - 8, place, bottom, 'class="limit"'),
            f'<text x="{place + (3 if anchor == "start" else -3):.1f}" y="{top - 10 + 10 * number:.0f}"'
            f' text-anchor="{anchor}" class="limit">{escape(text)}</text>',
        ]
    for value, anchor in ((edges[0], "start"), ((edges[0] + edges[-1]) / 2, "middle"), (edges[-1], "end")):
        parts.append(
            f'<text x="{x(value):.1f}" y="{_VALUE_HEIGHT - 6}" text-anchor="{anchor}" class="tick">'
            f"{_number(value, edges[-1] - edges[0])}{' ' + escape(unit) if anchor == 'end' and unit else ''}</text>"
        )
    return _svg(_VALUE_WIDTH, _VALUE_HEIGHT, parts, f"distribution of {title} with and without the label", "values")


def _edges(values: Doubles, low: float, high: float) -> Doubles:
    """Ends of the bins from a little below `low` to a little above `high`; whole steps where values come in steps."""
    width = (high - low) * 1.08 / _N_BINS
    known = np.unique(values)
    step = np.diff(known).min() if len(known) <= _MOST_STEPS else 0.0
    if step * 2 > width / 4:
        width = np.ceil(width / step) * step
        first = np.floor((low - width) / step) * step - step / 2
    else:
        first = low - (high - low) * 0.04
    return np.asarray(first + width * np.arange(np.ceil((high - first) / width) + 2))


def _number(value: float, width: float) -> str:
    digits = 0 if width > 20 else 1 if width > 2 else 2
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(width: int, height: int, parts: Sequence[str], label: str, kind: str) -> str:
    return (
        f'<svg class="{kind}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
