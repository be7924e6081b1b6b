"""What the metrics accept, checked once: labels, scores and probabilities as arrays, patients as whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecglm.synth.errors import ECGLMError

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Whole: TypeAlias = NDArray[np.int64]


class MetricError(ECGLMError):
    """Labels, scores or patients that no metric can be computed from as they are."""


def label_matrix(values: ArrayLike, name: str) -> Bools:
    """A matrix of labels, `(n_records, n_classes)`: booleans, or numbers that are all 0 or 1.

    Raises:
        MetricError: not two-dimensional, empty, or values other than 0 and 1.
    """
    array = np.asarray(values)
    if array.ndim != 2 or not array.size:
        raise MetricError(
            f"{name}: found an array of shape {array.shape}; expected records by classes, at least one of each"
        )
    if array.dtype == np.bool_:
        return array
    if not np.issubdtype(array.dtype, np.number) or not np.isin(array, (0, 1)).all():
        raise MetricError(f"{name}: found values other than 0 and 1; give labels, not scores")
    return array.astype(np.bool_)


def score_matrix(values: ArrayLike, shape: tuple[int, ...], name: str) -> Floats:
    """A matrix of scores of the shape of the labels, finite.

    Raises:
        MetricError: another shape, or NaN or infinite values; the message counts them and names the first.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise MetricError(f"{name}: found shape {array.shape}, expected {shape} like the labels")
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(place) for place in np.argwhere(~finite)[0])
        raise MetricError(
            f"{name}: {int((~finite).sum())} of {array.size} values are NaN or infinite, the first at {first};"
            " every record needs a finite score for every class"
        )
    return array


def probability_matrix(values: ArrayLike, shape: tuple[int, ...], name: str) -> Floats:
    """Scores that lie in [0, 1].

    Raises:
        MetricError: as `score_matrix`, or values outside [0, 1].
    """
    array = score_matrix(values, shape, name)
    outside = (array < 0) | (array > 1)
    if outside.any():
        first = tuple(int(place) for place in np.argwhere(outside)[0])
        raise MetricError(
            f"{name}: {int(outside.sum())} of {array.size} values lie outside [0, 1], the first at {first}"
            f" ({array[first]:g}); calibration needs probabilities: pass logits through a sigmoid"
        )
    return array


def class_names(names: Sequence[str], n_classes: int) -> tuple[str, ...]:
    """The names of the columns, in order, each once.

    Raises:
        MetricError: another number of names than of columns, or a name twice.
    """
    found = tuple(names)
    if len(found) != n_classes:
        raise MetricError(f"classes: found {len(found)} names for {n_classes} columns")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise MetricError(f"classes: {', '.join(twice)} found more than once; every column needs a name of its own")
    return found
