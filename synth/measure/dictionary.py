"""What every measurement is called, its unit, and the words for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ecglm.synth.schema import LEADS
from ecglm.synth.yaml_files import read_yaml


@dataclass(frozen=True)
class Measurement:
    """One measurement: PTB-XL+ column name, unit, words for evidence, other providers' names of the same quantity.

    `none_found` are the words for zero if the measurement is a yes or no, else None.
    """

    name: str
    unit: str
    words: str
    same_as: tuple[str, ...] = ()
    none_found: str | None = None


AMPLITUDES_ONLY = ("ecgdeli",)
"""Providers whose intervals are not used: ECGdeli's are the longest of any lead, far beyond what limits are made for
(median QRS duration over PTB-XL 160 ms, against 95 ms by 12SL and Uni-G)."""


def columns_of(provider: str, measurement: Measurement, columns: Collection[str]) -> list[str]:
    """The columns of a provider that give a measurement, the preferred one first; none if it may not be used for it."""
    if provider in AMPLITUDES_ONLY and measurement.unit != "mV":
        return []
    return [name for name in (measurement.name, *measurement.same_as) if name in columns]


@cache
def measurements() -> dict[str, Measurement]:
    """All measurements that criteria and templates may name, with `{lead}` patterns expanded, in file order."""
    entries = read_yaml(Path(__file__).parent / "dictionary.yaml")
    known: dict[str, Measurement] = {}
    for pattern, entry in entries.items():
        for lead in LEADS if "{lead}" in pattern else ("",):
            name = pattern.replace("{lead}", lead)
            same_as = tuple(other.replace("{lead}", lead) for other in entry.get("same_as", ()))
            words = entry["words"].replace("{lead}", lead)
            known[name] = Measurement(name, entry["unit"], words, same_as, entry.get("none_found"))
    return known
