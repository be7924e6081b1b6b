"""What the encoder is trained to tell of an ECG, from the tables of a corpus: statements, findings, measured values."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.models.encoder import Target
from ecglm.models.measured import ANGLES
from ecglm.synth.schema import LEAD_UNKNOWN, LEADS, NOISE_COLUMNS

GLOBAL_VALUES = (
    "HR__Global",
    "RR_Mean_Global",
    "RR_StdDev_Global",
    "P_Evidence_Global",
    "P_Dur_Global",
    "PR_Int_Global",
    "QRS_Dur_Global",
    "QT_Int_Global",
    "QT_IntBazett_Global",
)
LEAD_VALUES = ("P_Amp", "Q_Amp", "R_Amp", "S_Amp", "ST_Amp", "T_Amp")
EXTRA_BEATS = {
    "ventricular": re.compile(r"(?<!S)VES"),
    "supraventricular": re.compile(r"SVES"),
    "any": re.compile(r"ES"),
}
CLASSES = ("superclass", "subclass")
AXES = ("MID", "LAD", "ALAD", "RAD", "ARAD", "AXL", "AXR", "SAG")
STAGES = ("I", "I-II", "II", "II-III", "III", "unknown")


@dataclass(frozen=True)
class TargetTable:
    """Targets of a number of ECGs."""

    targets: tuple[Target, ...]
    values: NDArray[np.float32]
    """(n_ecgs, n_targets): 0 or 1 of statements and findings, standardised values; NaN where nothing is known."""

    @property
    def n_statements(self) -> int:
        """Statements come first."""
        return sum(target.kind == "statement" for target in self.targets)


def is_class(target: Target) -> bool:
    """Whether it is a diagnostic class of several statements."""
    return target.name.partition(":")[0] in CLASSES


def of_statements(targets: Sequence[Target]) -> list[int]:
    """Which targets are statements or their classes."""
    return [number for number, target in enumerate(targets) if target.kind == "statement" or is_class(target)]


def read_targets(
    ecgs: pl.DataFrame,
    labels: pl.DataFrame,
    measurements: pl.DataFrame,
    ecg_ids: Sequence[str],
    withheld: Collection[str] = (),
    known: Sequence[Target] | None = None,
) -> TargetTable:
    """Targets of these ECGs.

    Args:
        ecgs, labels, measurements: tables of a corpus.
        ecg_ids: the ECGs, in the order wanted.
        withheld: statements that must not be learned; they, and what says the same as they do, are left out.
        known: targets of a model; left out, those that these ECGs have, with mean and scale over them.
    """
    order = pl.DataFrame({"ecg_id": list(ecg_ids)})
    table = order.join(ecgs, on="ecg_id", how="left", maintain_order="left")
    columns: dict[str, NDArray[np.float32]] = {}
    targets: list[Target] = []

    def add(name: str, token: str, kind: str, column: NDArray[np.float32]) -> None:
        targets.append(Target.model_validate({"name": name, "token": token, "kind": kind}))
        columns[name] = column

    codes = sorted(set(labels["code"]) - set(withheld))
    place = {ecg_id: number for number, ecg_id in enumerate(ecg_ids)}
    stated = {code: np.zeros(len(ecg_ids), np.float32) for code in codes}
    for ecg_id, code in labels.select("ecg_id", "code").iter_rows():
        if ecg_id in place and code in stated:
            stated[code][place[ecg_id]] = 1
    for code in codes:
        add(code, code, "statement", stated[code])
    if not withheld:  # these columns repeat statements that may be withheld
        _add_classes(labels, place, add)
        _add_findings(table, add)
    _add_values(order, measurements, add)
    values = np.stack([columns[target.name] for target in targets], 1)
    if known is not None:
        return _as_known(targets, values, known)
    seen = [n for n, t in enumerate(targets) if np.isfinite(values[:, n]).any() and np.nanstd(values[:, n]) > 0]
    scaled = [_scaled(targets[number], values[:, number]) for number in seen]
    return TargetTable(tuple(t for t, _ in scaled), np.stack([column for _, column in scaled], 1).astype(np.float32))


def _add_classes(labels: pl.DataFrame, place: Mapping[str, int], add: object) -> None:
    """Diagnostic super- and subclasses of several statements; one of a single statement is that statement."""
    assert callable(add)  # noqa: S101 - the inner function above
    for kind in CLASSES:
        known = labels.filter(pl.col("kinds").list.contains("diagnostic")).drop_nulls(kind)
        for name in sorted(known.group_by(kind).agg(pl.col("code").n_unique()).filter(pl.col("code") > 1)[kind]):
            column = np.zeros(len(place), np.float32)
            column[[place[e] for e in known.filter(pl.col(kind) == name)["ecg_id"] if e in place]] = 1
            add(f"{kind}:{name}", f"{kind}:{name}", "finding", column)


def _add_findings(table: pl.DataFrame, add: object) -> None:
    assert callable(add)  # noqa: S101 - the inner function above
    for kind in NOISE_COLUMNS:
        named = [set(leads or ()) for leads in table[kind].to_list()]
        nowhere = np.array([leads == {LEAD_UNKNOWN} for leads in named])
        add(f"noise:{kind}", f"noise:{kind}", "finding", np.array([bool(leads) for leads in named], np.float32))
        for lead in LEADS:
            column = np.array([lead in leads for leads in named], np.float32)
            add(f"{kind}:{lead}", f"lead:{lead}", "finding", np.where(nowhere, np.nan, column).astype(np.float32))
    notes = [note or "" for note in table["extra_beats"].to_list()]
    for name, pattern in EXTRA_BEATS.items():
        column = np.array([pattern.search(note.upper()) is not None for note in notes], np.float32)
        add(f"extra_beats:{name}", "extra_beats", "finding", column)
    stages = [set(stage or ()) for stage in table["infarction_stages"].to_list()]
    for stage in STAGES:
        add(
            f"infarction_stage:{stage}",
            "infarction_stage",
            "finding",
            np.array([stage in s for s in stages], np.float32),
        )
    axes = table["heart_axis"].to_list()
    for axis in AXES:
        column = np.array([math.nan if found is None else found == axis for found in axes], np.float32)
        add(f"heart_axis:{axis}", "heart_axis", "finding", column)


def _add_values(order: pl.DataFrame, measurements: pl.DataFrame, add: object) -> None:
    assert callable(add)  # noqa: S101 - the inner function above
    rows = order.join(measurements.unique("ecg_id", keep="first"), on="ecg_id", how="left", maintain_order="left")

    def column(name: str) -> NDArray[np.float32] | None:
        return rows[name].cast(pl.Float32).fill_null(math.nan).to_numpy().copy() if name in rows.columns else None

    for name in GLOBAL_VALUES:
        if (found := column(name)) is not None:
            add(name, name, "value", found)
    for name in ANGLES:
        if (found := column(name)) is not None:
            add(f"{name}:cos", name, "value", np.cos(np.radians(found)))
            add(f"{name}:sin", name, "value", np.sin(np.radians(found)))
    for lead in LEADS:
        for name in LEAD_VALUES:
            if (found := column(f"{name}_{lead}")) is not None:
                add(f"{name}_{lead}", f"lead:{lead}", "value", found)


def _scaled(target: Target, column: NDArray[np.float32]) -> tuple[Target, NDArray[np.float32]]:
    if target.kind != "value":
        return target, column
    low, high = np.nanpercentile(column, [1, 99])
    kept = np.clip(column, low, high)
    mean, scale = float(np.nanmean(kept)), float(np.nanstd(kept)) or 1.0
    return target.model_copy(update={"mean": mean, "scale": scale}), _standard(column, mean, scale)


def _standard(column: NDArray[np.float32], mean: float, scale: float) -> NDArray[np.float32]:
    return np.asarray(np.clip((column - mean) / scale, -5, 5), np.float32)


def _as_known(targets: Sequence[Target], values: NDArray[np.float32], known: Sequence[Target]) -> TargetTable:
    place = {target.name: number for number, target in enumerate(targets)}
    columns = []
    for target in known:
        if target.name not in place:
            empty = 0.0 if target.kind == "statement" else math.nan
            columns.append(np.full(len(values), empty, np.float32))
        else:
            column = values[:, place[target.name]]
            columns.append(_standard(column, target.mean, target.scale) if target.kind == "value" else column)
    return TargetTable(tuple(known), np.stack(columns, 1))
