"""Measurements: what they are called (`dictionary`), and how they are taken from a waveform (`measure_block`)."""

from ecglm.synth.measure.block import MEASURED_COLUMNS, MEASURED_VERSION, measure_block

__all__ = ["MEASURED_COLUMNS", "MEASURED_VERSION", "measure_block"]
