"""Array types shared by the measuring modules."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def milliseconds(duration: float, hz: int) -> int:
    """Samples, at least one, that last `duration` ms at `hz` samples per second."""
    return max(1, round(duration * hz / 1000))
