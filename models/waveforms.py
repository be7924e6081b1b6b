"""Waveforms of many ECGs as batches for the encoder, from a signal store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecglm.models.encoder import Encoder, padded
from ecglm.models.measured import measure_batch
from ecglm.models.preprocessing import Preprocessing, centred, lead_names, prepare, with_limb_leads
from ecglm.synth.errors import ModelError
from ecglm.synth.signals import INVALID_16

if TYPE_CHECKING:
    from ecglm.synth.signal_store import Group, SignalStore
    from ecglm.synth.sources import Source

_MEASURED_AT_ONCE = 256


def open_store(source: Source) -> SignalStore:
    """The signal store of a source, made in the cache folder if it is not there."""
    from ecglm.synth.build.storing import store_source

    return store_source(source)


def open_waveform_source(folder: Path) -> Source:
    """A folder as PTB-XL lays it out (PTB-XL, simulated ECGs), or else of any WFDB records."""
    from ecglm.synth.build.inputs import known_statements
    from ecglm.synth.sources.ptbxl import open_ptbxl
    from ecglm.synth.sources.wfdb_folder import open_wfdb

    if (folder / "ptbxl_database.csv").is_file():
        return open_ptbxl(folder)
    return open_wfdb(folder, known_statements())


class Waveforms:
    """Batches of prepared recordings, by ECG."""

    def __init__(self, store: SignalStore, wanted: Preprocessing) -> None:
        self.wanted = wanted
        self._groups = list(store.groups())
        self._places = {
            ecg_id: (number, place)
            for number, group in enumerate(self._groups)
            for place, ecg_id in enumerate(group.ecg_ids)
        }
        self._measured: dict[str, Tensor] = {}

    def __contains__(self, ecg_id: str) -> bool:
        return ecg_id in self._places

    def batch(self, ecg_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Values in mV and mask, both (batch, n_leads, longest).

        Raises:
            ModelError: no such ECG, or one that cannot be used; names it.
        """
        found: list[tuple[Tensor, Tensor] | None] = [None] * len(ecg_ids)
        for number, members in self._by_group(ecg_ids).items():
            values, mask = self._of_group(self._groups[number], [place for _, place in members])
            for (row, _), each, known in zip(members, values, mask, strict=True):
                found[row] = (each, known)
        return padded([each for each in found if each is not None])

    def inputs(self, encoder: Encoder, ecg_ids: Sequence[str]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What this encoder takes: values, mask, and measurements if it looks at them; on its device."""
        device = encoder.queries.device
        values, mask = self.batch(ecg_ids)
        measured = None if encoder.measured is None else self.measured(ecg_ids).to(device)
        return values.to(device), mask.to(device), measured

    def measured(self, ecg_ids: Sequence[str]) -> Tensor:
        """Measurements (n_ecgs, n_columns) of recordings as `batch` gives them, NaN where there is none; kept."""
        new = [ecg_id for ecg_id in dict.fromkeys(ecg_ids) if ecg_id not in self._measured]
        for start in range(0, len(new), _MEASURED_AT_ONCE):
            some = new[start : start + _MEASURED_AT_ONCE]
            rows = measure_batch(*self.batch(some), self.wanted.leads, self.wanted.sampling_hz)
            self._measured |= dict(zip(some, rows, strict=True))
        return torch.stack([self._measured[ecg_id] for ecg_id in ecg_ids])

    def _by_group(self, ecg_ids: Sequence[str]) -> dict[int, list[tuple[int, int]]]:
        """Group → (place in `ecg_ids`, place in the group) of its ECGs."""
        by_group: dict[int, list[tuple[int, int]]] = {}
        for row, ecg_id in enumerate(ecg_ids):
            if ecg_id not in self._places:
                raise ModelError(f"{ecg_id}: no waveform; is the folder of ECGs the one the corpus was built from?")
            number, place = self._places[ecg_id]
            by_group.setdefault(number, []).append((row, place))
        return by_group

    def _of_group(self, group: Group, places: list[int]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        stored = group.signal[group.rows[places]]  # (batch, n_samples, n_leads) int16
        names = lead_names(group.leads)
        gains, baselines = group.gains[places], group.baselines[places]
        if group.sampling_hz != self.wanted.sampling_hz or len(set(names) & set(self.wanted.leads)) < len(names):
            return self._one_by_one(group, stored, gains, baselines, places)
        there = torch.from_numpy(stored != INVALID_16).transpose(1, 2)
        known = torch.from_numpy(((stored - baselines[:, None]) / gains[:, None]).astype(np.float32)).transpose(1, 2)
        values = torch.zeros(len(places), len(self.wanted.leads), stored.shape[1])
        mask = torch.zeros(values.shape, dtype=torch.bool)
        rows = [self.wanted.leads.index(name) for name in names]
        values[:, rows], mask[:, rows] = known, there
        values, mask = centred(values, mask)
        for number in torch.nonzero(~mask.any(-1).all(-1)).flatten().tolist():
            values[number], mask[number], _ = with_limb_leads(values[number], mask[number], self.wanted.leads)
        return list(values), list(mask)

    def _one_by_one(
        self,
        group: Group,
        stored: NDArray[np.int16],
        gains: NDArray[np.float64],
        baselines: NDArray[np.int32],
        places: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        values, masks = [], []
        for signal, gain, baseline, place in zip(stored, gains, baselines, places, strict=True):
            millivolts = ((signal - baseline) / gain).astype(np.float32)
            millivolts[signal == INVALID_16] = np.nan
            try:
                prepared = prepare(millivolts, group.leads, group.sampling_hz, self.wanted)
            except ModelError as error:
                raise ModelError(f"{group.ecg_ids[place]}: {error}") from error
            values.append(torch.from_numpy(prepared.values))
            masks.append(torch.from_numpy(prepared.mask))
        return values, masks
