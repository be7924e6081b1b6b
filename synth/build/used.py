"""Which provider's value is used for which measurement of an ECG: what `merge_measurements` takes, written down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.findings import narrow
from ecglm.synth.measure.dictionary import columns_of, measurements

USED = "used"
"""Column of the table `measurements`: names of the measurements whose value is taken from the row."""


def used_values(ecgs: pa.Table, providers: Sequence[tuple[str, pa.Table]]) -> dict[str, pa.ListArray]:
    """Provider → for each of its rows the measurements for which `merge_measurements` takes its value."""
    names = list(measurements())
    taken = np.zeros((ecgs.num_rows, len(names)), dtype=bool)
    used: dict[str, pa.ListArray] = {}
    for provider, table in providers:
        place = pc.index_in(table["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks()).to_numpy()
        gives, known = np.zeros((table.num_rows, len(names)), dtype=bool), set(table.column_names)
        for number, measurement in enumerate(measurements().values()):
            for column in columns_of(provider, measurement, known):
                gives[:, number] |= table[column].is_valid().to_numpy()
        gives &= ~taken[place]
        taken[place] |= gives
        offsets = np.concatenate([[0], np.cumsum(gives.sum(axis=1))]).astype(np.int32)
        places = pa.array(np.nonzero(gives)[1], narrow(len(names)))
        used[provider] = pa.ListArray.from_arrays(
            pa.array(offsets), pa.DictionaryArray.from_arrays(places, pa.array(names))
        )
    return used
