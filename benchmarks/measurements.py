"""How good the measurements are: PTB-XL's labels, PTB-XL+'s published medians, 500 against 100 Hz, simulated truth.

    python benchmarks/measurements.py --ptbxl DIR --measured measured --folds 9 10
    python benchmarks/measurements.py --ptbxl DIR --folds 1 2 3 4 5 6 7 8       # measures by itself

`--measured` is a folder that `synth measure` wrote (features/measured_features.parquet); without it every ECG is
measured here. A missing value counts at the least favourable end. Folds 9 and 10 judge: nothing was chosen on them.
Exit code 0 although a bar is missed: the table says so.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import json
import resource
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import ECGLM_VERSIONS, machine, print_json, show, show_environment, versions
from scipy.stats import rankdata

from ecglm.synth.measure import MEASURED_COLUMNS, MEASURED_VERSION, measure_block
from ecglm.synth.schema import LEADS, LIMB_LEADS
from ecglm.synth.signals import read_block
from ecglm.synth.sources.simulator.beats import TWELVE
from ecglm.synth.sources.simulator.folder import simulated_ecgs
from ecglm.synth.sources.simulator.signals import clean_signal

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CORNELL_MV = {"0": 2.8, "1": 2.0}
"""Limit of R in aVL plus S in V3, by PTB-XL's code of the sex."""

PUBLISHED_MEDIANS = {  # PTB-XL+ v1.0.1: 12SL, Uni-G, and how far beyond is allowed
    "HR__Global": (71.0, 71.0, 3.0),
    "PR_Int_Global": (162.0, 160.0, 5.0),
    "P_Dur_Global": (114.0, 112.0, 5.0),
    "QRS_Dur_Global": (94.0, 96.0, 5.0),
    "QT_Int_Global": (394.0, 396.0, 5.0),
    "QT_IntBazett_Global": (430.0, 431.0, 5.0),
    "R_Amp_V5": (1.303, 1.313, 0.05),
    "T_Amp_V2": (0.366, 0.375, 0.05),
    "ST_Amp_V2": (0.019, 0.061, 0.05),
}
SUBSETS = (
    ("II",), ("V2",), ("I", "II"), ("II", "V5"), ("I", "II", "V2"), ("V1", "V3", "V5"), LIMB_LEADS,
    ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
)  # fmt: skip
"""One, two, three, six and eight of the twelve leads."""
N_SUBSET_ECGS, N_SIMULATED, SIMULATED_SEED = 400, 400, 2026  # 11 was used to develop on
COVERED = (
    "HR__Global",
    "P_Evidence_Global",
    "PR_Int_Global",
    "QRS_Dur_Global",
    "QT_Int_Global",
    "QRS_AxisFront_Global",
)


@dataclass
class Row:
    """One line of the table."""

    measurement: str
    judged_by: str
    figure: str
    value: float
    bar: str
    reached: bool | None
    n: str
    coverage: float | None = None
    by_fold: dict[int, float] = field(default_factory=dict)


class Labelled:
    """PTB-XL's table of ECGs, and the measured columns in its order."""

    def __init__(self, root: Path) -> None:
        table = (root / "ptbxl_database.csv").read_bytes()
        self.fingerprint = hashlib.sha256(table).hexdigest()
        self.rows = list(csv.DictReader(table.decode().splitlines()))
        self.ids = np.array([int(float(row["ecg_id"])) for row in self.rows])
        self.fold = np.array([int(float(row["strat_fold"])) for row in self.rows])
        self.sex = np.array([row["sex"].split(".")[0] for row in self.rows])
        self.heart_axis = np.array([row["heart_axis"] for row in self.rows])
        self._codes = [frozenset(ast.literal_eval(row["scp_codes"])) for row in self.rows]
        self.columns: dict[str, Doubles] = {}

    def has(self, *codes: str) -> Bools:
        return np.array([not found.isdisjoint(codes) for found in self._codes])

    def take(self, ids: Sequence[int], columns: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Measured columns of these ECGs; the others stay missing."""
        place = {int(ecg_id): row for row, ecg_id in enumerate(ids)}
        order = np.array([place.get(int(ecg_id), -1) for ecg_id in self.ids])
        for name in MEASURED_COLUMNS:
            values = np.append(np.asarray(columns[name], dtype=np.float64), np.nan)
            self.columns[name] = values[order]


def read_measured(folder: Path) -> tuple[list[int], dict[str, Doubles], str]:
    """Ids, columns and SHA-256 of the file `synth measure` wrote."""
    import pyarrow.parquet as pq

    path = folder / "features" / "measured_features.parquet"
    table = pq.read_table(path)
    ids = [int(str(ecg_id).rpartition(":")[2]) for ecg_id in table["ecg_id"].to_pylist()]
    columns = {
        name: table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        if name in table.column_names
        else np.full(len(ids), np.nan)
        for name in MEASURED_COLUMNS
    }
    return ids, columns, hashlib.sha256(path.read_bytes()).hexdigest()


def waveforms(root: Path, rows: Sequence[Mapping[str, str]], column: str = "filename_lr") -> npt.NDArray[np.float32]:
    """(n_ecgs, n_samples, 12) in mV of these lines of ptbxl_database.csv."""
    records, problems = read_block(root, [row[column] for row in rows])
    if problems:
        raise SystemExit(f"{problems[0][2]}; every waveform is needed")
    return np.stack([record.millivolts() for record in records if record is not None])


def measure_all(root: Path, labelled: Labelled) -> tuple[dict[str, Doubles], dict[str, float]]:
    """Every ECG measured on one core, and what it took."""
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in MEASURED_COLUMNS}
    reading = measuring = 0.0
    for start in range(0, len(labelled.rows), 256):
        began = time.process_time()
        signal = waveforms(root, labelled.rows[start : start + 256])
        read = time.process_time()
        columns, _ = measure_block(signal, LEADS, 100)
        reading, measuring = reading + read - began, measuring + time.process_time() - read
        for name, values in columns.items():
            parts[name].append(values)
    n = len(labelled.rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    taken = {"reading_ms": 1000 * reading / n, "measuring_ms": 1000 * measuring / n, "peak_gib": peak}
    return {name: np.concatenate(values).astype(np.float64) for name, values in parts.items()}, taken


# ------------------------------------------------------------------------------------------------------------- labels


def auc(values: Doubles, positive: Bools, negative: Bools) -> float:
    """Area under the ROC curve of `values` (higher: positive) between two groups of rows; missing values are wrong."""
    groups = np.concatenate([values[positive], values[negative]])
    is_positive = np.r_[np.ones(positive.sum(), bool), np.zeros(negative.sum(), bool)]
    if is_positive.all() or not is_positive.any():
        return float("nan")
    ranks = rankdata(np.where(np.isnan(groups), np.where(is_positive, -np.inf, np.inf), groups))
    n = is_positive.sum()
    return float((ranks[is_positive].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n)))


def balanced_accuracy(axis: Doubles, classes: Mapping[str, Bools], left: float, right: float) -> float:
    """Mean share of left, middle and right axes that the borders put in their class; a missing axis is wrong.

    An axis beyond -90 degrees is reached by turning right.
    """
    turned = np.where(axis < -90, axis + 360, axis)
    named = np.select([np.isnan(turned), turned < left, turned <= right], ["none", "left", "middle"], "right")
    shares = [(named[rows] == name).mean() for name, rows in classes.items() if rows.any()]
    return float(np.mean(shares)) if len(shares) == len(classes) else float("nan")


def judge_labels(labelled: Labelled, folds: Sequence[int]) -> list[Row]:
    """The measurements against PTB-XL's labels on these folds."""
    column, has = labelled.columns, labelled.has
    chosen = np.isin(labelled.fold, folds)
    limb = np.fmax.reduce([column[f"QRS_AmpPP_{lead}"] for lead in LIMB_LEADS])
    sokolow = (np.abs(column["S_Amp_V1"]) + np.fmax(column["R_Amp_V5"], column["R_Amp_V6"])) / 3.5
    cornell_limit = np.array([CORNELL_MV.get(sex, np.nan) for sex in labelled.sex])
    cornell = (column["R_Amp_aVL"] + np.abs(column["S_Amp_V3"])) / cornell_limit
    irregular = column["RR_StdDev_Global"] / column["RR_Mean_Global"]
    rows = []
    for name, judged_by, values, positive, negative, bar in (
        ("heart rate", "STACH against SR", column["HR__Global"], ("STACH",), "SR", 0.99),
        ("heart rate", "SBRAD against SR", -column["HR__Global"], ("SBRAD",), "SR", 0.96),
        ("RR irregularity", "AFIB against SR", irregular, ("AFIB",), "SR", 0.97),
        ("P-wave evidence", "AFIB against SR", -column["P_Evidence_Global"], ("AFIB",), "SR", 0.93),
        ("QRS duration", "CLBBB, CRBBB against NORM", column["QRS_Dur_Global"], ("CLBBB", "CRBBB"), "NORM", 0.985),
        ("PR interval", "1AVB against NORM", column["PR_Int_Global"], ("1AVB",), "NORM", 0.96),
        ("QTc (Bazett)", "LNGQT against NORM", column["QT_IntBazett_Global"], ("LNGQT",), "NORM", 0.85),
        ("largest limb-lead QRS", "LVOLT against NORM", -limb, ("LVOLT",), "NORM", 0.95),
        ("Sokolow-Lyon or Cornell", "VCLVH against NORM", np.fmax(sokolow, cornell), ("VCLVH",), "NORM", 0.92),
    ):
        with_it = has(*positive)
        yes, no = with_it & chosen, has(negative) & ~with_it & chosen
        value = auc(values, yes, no)
        by_fold = {fold: auc(values, yes & (labelled.fold == fold), no & (labelled.fold == fold)) for fold in folds}
        covered = float(np.isfinite(values[yes | no]).mean())
        n = f"{yes.sum():,} / {no.sum():,}"
        rows.append(Row(name, judged_by, "AUC", value, f">= {bar}", value >= bar, n, covered, by_fold))
    axis = column["QRS_AxisFront_Global"]
    names = {"left": ("LAD", "ALAD"), "middle": ("MID",), "right": ("RAD", "ARAD")}
    for left in (0, -30):
        classes = {name: np.isin(labelled.heart_axis, codes) & chosen for name, codes in names.items()}
        value = balanced_accuracy(axis, classes, left, 90)
        by_fold = {
            fold: balanced_accuracy(axis, {k: v & (labelled.fold == fold) for k, v in classes.items()}, left, 90)
            for fold in folds
        }
        of_any = np.logical_or.reduce(list(classes.values()))
        covered = float(np.isfinite(axis[of_any]).mean())
        n = " / ".join(f"{rows_of.sum():,}" for rows_of in classes.values())
        bar, reached = (">= 0.88", value >= 0.88) if left == 0 else ("shown only", None)
        rows.append(
            Row(
                "QRS axis",
                f"left, middle, right; {left}°, 90°",
                "balanced accuracy",
                value,
                bar,
                reached,
                n,
                covered,
                by_fold,
            )
        )
    ordinary = chosen & ~has("AFIB", "AFLT", "PACE")
    for name in COVERED:
        value = float(np.isfinite(column[name][ordinary]).mean())
        judged_by = "ECGs without AFIB, AFLT, PACE"
        rows.append(Row(name, judged_by, "coverage", value, ">= 0.95", value >= 0.95, f"{ordinary.sum():,}", value))
    return rows


def judge_medians(labelled: Labelled, published: Mapping[str, tuple[float, float, float]]) -> list[Row]:
    """Medians over all ECGs between those of 12SL and Uni-G, with a margin."""
    rows = []
    for name, (first, second, margin) in published.items():
        known = labelled.columns[name][np.isfinite(labelled.columns[name])]
        value = float(np.median(known)) if len(known) else float("nan")
        low, high = min(first, second) - margin, max(first, second) + margin
        n, covered = f"{len(known):,}", len(known) / len(labelled.ids)
        rows.append(
            Row(
                name,
                "medians of 12SL and Uni-G",
                "median",
                value,
                f"{low:g} to {high:g}",
                low <= value <= high,
                n,
                covered,
            )
        )
    return rows


def published_medians(folder: Path | None) -> dict[str, tuple[float, float, float]]:
    """The medians to lie between: from a folder with feature_stats_12sl.json and _unig.json, else as noted above."""
    if folder is None:
        return dict(PUBLISHED_MEDIANS)
    both = []
    for provider in ("12sl", "unig"):
        features = json.loads((folder / f"feature_stats_{provider}.json").read_text())["features"]
        both.append({entry["feature"]: entry["p50"] for entry in features})
    return {name: (both[0][name], both[1][name], margin) for name, (_, _, margin) in PUBLISHED_MEDIANS.items()}


# ---------------------------------------------------------------------------------- the same ECG at 500 and at 100 Hz


def judge_rates(root: Path, labelled: Labelled, records500: Path | None, most: int = 400) -> list[Row]:
    """The same ECGs at both sampling rates; none where there are no records at 500 Hz."""
    with TemporaryDirectory() as scratch:
        folder = records500 or root
        if folder.suffix == ".zip":
            with zipfile.ZipFile(folder) as archive:
                archive.extractall(scratch)
            found = next(Path(scratch).rglob("records500"), Path(scratch))
            folder = found.parent
        there = [index for index, row in enumerate(labelled.rows) if (folder / f"{row['filename_hr']}.hea").is_file()]
        rows = [labelled.rows[index] for index in there[:most]]
        if not rows:
            return []
        fine, _ = measure_block(waveforms(folder, rows, "filename_hr"), LEADS, 500)
        coarse, _ = measure_block(waveforms(root, rows), LEADS, 100)
    table = []
    for name, bar in (("QRS_Dur_Global", 6.0), ("PR_Int_Global", 8.0), ("QT_Int_Global", 10.0)):
        difference = np.abs(fine[name] - coarse[name])
        known = np.isfinite(difference)
        value = float(difference[known].mean())
        table.append(
            Row(name, "500 against 100 Hz", "mean difference", value, f"<= {bar:g} ms", value <= bar, f"{known.sum()}",
                float(known.mean()))
        )  # fmt: skip
    return table


# ------------------------------------------------------------------------------------------------------ simulated truth


def judge_simulated() -> list[Row]:
    """Simulated ECGs, paced ones left out (their stimulus is no spike): noise-free, and white noise at 20 dB."""
    ecgs = [ecg for ecg in simulated_ecgs(N_SIMULATED, SIMULATED_SEED) if ecg.visit.plan.rhythm != "paced"]
    truth = {
        name: np.array([np.nan if ecg.truth[name] is None else ecg.truth[name] for ecg in ecgs], dtype=np.float64)
        for name in ecgs[0].truth
    }
    random = np.random.default_rng(SIMULATED_SEED)
    rows = []
    for hz in (500, 100):
        clean = np.stack([
            (TWELVE @ clean_signal(ecg.visit.plan, ecg.traits, ecg.strip, ecg.beat, hz)).T for ecg in ecgs
        ]).astype(np.float32)  # fmt: skip
        level = np.sqrt((clean**2).mean(axis=1, keepdims=True)) / 10  # 20 dB below the signal of each lead
        noisy = clean + (random.standard_normal(clean.shape) * level).astype(np.float32)
        for kind, signal in (("noise-free", clean), ("20 dB", noisy)):
            measured, _ = measure_block(signal, LEADS, hz)
            rows += _against_truth(measured, truth, f"simulated, {hz} Hz, {kind}")
    return rows


def _against_truth(
    measured: Mapping[str, npt.NDArray[np.float32]], truth: Mapping[str, Doubles], what: str
) -> list[Row]:
    rows = []
    for name in ("RR_Mean_Global", "PR_Int_Global", "P_Dur_Global", "QRS_Dur_Global", "QT_Int_Global"):
        asked = np.isfinite(truth[name])
        good = np.abs(measured[name] - truth[name])[asked] <= 10
        rows.append(_share(name, what, "within 10 ms", good, np.isfinite(measured[name][asked])))
    for name in ("QRS_AxisFront_Global", "P_AxisFront_Global", "T_AxisFront_Global"):
        asked = np.isfinite(truth[name])
        turn = (measured[name] - truth[name] + 180) % 360 - 180
        rows.append(_share(name, what, "within 5°", np.abs(turn)[asked] <= 5, np.isfinite(measured[name][asked])))
    for wave in ("P_Amp", "R_Amp", "S_Amp", "QRS_AmpPP", "T_Amp"):
        found, true = (np.stack([table[f"{wave}_{lead}"] for lead in LEADS]) for table in (measured, truth))
        asked = np.isfinite(true)
        good = (np.abs(found - true) <= np.maximum(0.05 * np.abs(true), 0.025))[asked]
        rows.append(_share(f"{wave}, all leads", what, "within 5 % or 25 µV", good, np.isfinite(found[asked])))
    return rows


def _share(name: str, what: str, figure: str, good: Bools, there: Bools) -> Row:
    value = float(good.mean())
    return Row(name, what, figure, value, "all", bool(good.all()), f"{len(good):,}", float(there.mean()))


# --------------------------------------------------------------------------------------------------------- lead subsets


def judge_subsets(root: Path, labelled: Labelled, folds: Sequence[int]) -> list[Row]:
    """What any lead subset still allows must be measured as often as from all leads, the rest must be missing."""
    chosen = np.flatnonzero(np.isin(labelled.fold, folds))[:N_SUBSET_ECGS]
    signal = waveforms(root, [labelled.rows[index] for index in chosen])
    whole, _ = measure_block(signal, LEADS, 100)
    rows = []
    for leads in SUBSETS:
        measured, _ = measure_block(signal[:, :, [LEADS.index(lead) for lead in leads]], leads, 100)
        limb = len(set(leads) & set(LIMB_LEADS)) >= 2
        allowed, forbidden = [], 0
        for name, values in measured.items():
            lead = name.rpartition("_")[2]
            possible = limb if "_AxisFront_" in name else lead == "Global" or lead in leads
            if possible:
                asked = np.isfinite(whole[name])
                allowed.append(np.isfinite(values[asked]))
            else:
                forbidden += int(np.isfinite(values).sum())
        share = float(np.concatenate(allowed).mean())
        reached = share >= 0.95 and forbidden == 0
        rows.append(
            Row("everything allowed", " ".join(leads), "share measured", share, ">= 0.95, rest missing", reached,
                f"{len(chosen)}", None)
        )  # fmt: skip
    return rows


# ----------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ptbxl", type=Path, required=True, metavar="DIR", help="PTB-XL with records100")
    parser.add_argument("--measured", type=Path, metavar="FOLDER", help="what `synth measure` wrote; else measure here")
    parser.add_argument("--folds", type=int, nargs="+", default=[9, 10], metavar="N")
    parser.add_argument("--records500", type=Path, metavar="PATH", help="folder or zip with records at 500 Hz")
    parser.add_argument(
        "--statistics", type=Path, metavar="DIR", help="folder with feature_stats_12sl.json and _unig.json"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    labelled = Labelled(options.ptbxl)
    environment = {"machine": machine(), "versions": {"ecglm": versions(*ECGLM_VERSIONS)}}
    data = {"ptbxl_database.csv": labelled.fingerprint, "measured_version": MEASURED_VERSION}
    taken: dict[str, float] = {}
    if options.measured:
        ids, columns, data["measured_features.parquet"] = read_measured(options.measured)
    else:
        ids = labelled.ids.tolist()
        columns, taken = measure_all(options.ptbxl, labelled)
    labelled.take(ids, columns)
    sections = {
        "labels": judge_labels(labelled, options.folds),
        "medians over all ECGs": judge_medians(labelled, published_medians(options.statistics)),
        "500 and 100 Hz": judge_rates(options.ptbxl, labelled, options.records500),
        "simulated": judge_simulated(),
        "lead subsets": judge_subsets(options.ptbxl, labelled, options.folds),
    }
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "folds": options.folds,
        "data": data,
        "cost": taken,
        **environment,
        "sections": {name: [asdict(row) for row in rows] for name, rows in sections.items()},
    }
    if options.json:
        print_json(content)
        return
    show_environment(environment)
    print(f"{content['date']}, folds {options.folds}")
    for name, value in data.items():
        print(f"{name}: {value}")
    for name, cost in taken.items():
        print(f"{name}: {cost:.2f}")
    for name, rows in sections.items():
        show(name if rows else f"{name}: nothing to judge by (see --records500)", [_shown(row) for row in rows])


def _shown(row: Row) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "measurement": row.measurement,
        "judged by": row.judged_by,
        "figure": row.figure,
        "value": f"{row.value:.4g}",
        "bar": row.bar,
        "": "" if row.reached is None else "reached" if row.reached else "MISSED",
        "n": row.n,
        "coverage": "" if row.coverage is None else f"{row.coverage:.2%}",
    }
    if row.by_fold:
        shown["by fold"] = ", ".join(f"{fold}: {value:.3f}" for fold, value in row.by_fold.items())
    else:
        shown["by fold"] = ""
    return shown


if __name__ == "__main__":
    main()
