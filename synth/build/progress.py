"""How a build tells where it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the stage, steps done and steps in all."""


def stepper(progress: Progress, stage: str, of: int) -> Callable[[int], None]:
    """A function to call with each number of further steps done."""
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, of)

    return step
