"""What was measured on the part of a record that a page shows, in the words of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import MedianBeat, describe_beat, measure_record
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.plot.layout import Page

RATE = "HR__Global"
_SHORT = {
    "PR_Int_Global": "PR",
    "P_Dur_Global": "P",
    "QRS_Dur_Global": "QRS",
    "QT_Int_Global": "QT",
    "QT_IntBazett_Global": "QTc (Bazett)",
    "QT_IntFridericia_Global": "QTc (Fridericia)",
    "P_AxisFront_Global": "P axis",
    "QRS_AxisFront_Global": "QRS axis",
    "T_AxisFront_Global": "T axis",
}
"""Values on the page, in order, and what they are called there."""


@dataclass(frozen=True)
class Measured:
    """A median beat and the values that belong to it."""

    beat: MedianBeat | None
    """None if no beat could be cut out of the signal."""
    beats_s: tuple[float, ...] = ()
    """Times of all beats in the record."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Measurement → value: of those the page prints, what could be measured."""
    problems: tuple[str, ...] = ()
    """What could not be measured, and why."""

    @property
    def rate(self) -> str:
        """The ventricular rate for the header; empty if there is none."""
        return f"{self.values[RATE]:.0f}/min" if RATE in self.values else ""

    @property
    def shown(self) -> list[str]:
        """The values as the page prints them."""
        return [
            f"{words} {round(self.values[name]) + 0}{unit if unit == '°' else f' {unit}'}"
            for name, words in _SHORT.items()
            if name in self.values
            for unit in [measurements()[name].unit]
        ]


def measure_page(page: Page) -> Measured:
    """Measures what a page shows of its record; what cannot be measured is told, never raised."""
    tracing = page.tracing
    leads, hz = tracing.leads, int(tracing.sampling_hz)
    if hz != tracing.sampling_hz:
        return Measured(None, problems=(f"{tracing.sampling_hz:g} Hz is no whole number: resample the signal first",))
    signal = tracing.between(page.start_s, page.stop_s).astype(np.float32)
    try:
        found, problems = measure_record(signal, leads, hz)
        beat = describe_beat(signal, leads, hz)
    except SignalError as error:
        return Measured(None, problems=(str(error),))
    return Measured(
        beat=beat if np.isfinite(beat.signal).any() else None,
        beats_s=tuple(page.start_s + float(second) for second in beat.beats_s),
        values={name: found[name] for name in (RATE, *_SHORT) if not np.isnan(found[name])},
        problems=tuple(f"{reason.replace('_', ' ')} ({detail})" for reason, detail in problems),
    )
