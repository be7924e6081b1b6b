"""Measurements: what they are called (`dictionary`), and how they are taken from a waveform (`measure_block`)."""

from ecglm.synth.measure.block import MEASURED_COLUMNS, MEASURED_VERSION, measure_block
from ecglm.synth.measure.record import MedianBeat, describe_beat, measure_record

__all__ = [
    "MEASURED_COLUMNS",
    "MEASURED_VERSION",
    "MedianBeat",
    "describe_beat",
    "measure_block",
    "measure_record",
]
