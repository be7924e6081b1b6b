"""The `simulated` source: 12-lead ECGs whose every interval, axis, amplitude and statement is known exactly."""

from __future__ import annotations

from ecglm.synth.sources.simulator.folder import SIMULATOR_VERSION, simulate

__all__ = ["SIMULATOR_VERSION", "simulate"]
