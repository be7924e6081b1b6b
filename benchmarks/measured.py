"""How well the `measured` values of a PTB-XL corpus tell its labels apart.

    synth build --ptbxl DIR --out corpus
    python benchmarks/measured.py corpus --folds 9 10

A missing value counts at the least favourable end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from ecglm.synth.corpus import Corpus
from ecglm.synth.schema import LIMB_LEADS

CORNELL_MV = {"male": 2.8, "female": 2.0}


def auc(values: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of `values` (higher: positive) between two groups of rows."""
    groups = np.concatenate([values[positive], values[negative]])
    is_positive = np.r_[np.ones(positive.sum(), bool), np.zeros(negative.sum(), bool)]
    worst = np.where(is_positive, -np.inf, np.inf)
    ranks = rankdata(np.where(np.isnan(groups), worst, groups))
    n = is_positive.sum()
    return float((ranks[is_positive].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n)))


def balanced_accuracy(axis: np.ndarray, classes: dict[str, np.ndarray], left: float, right: float) -> float:
    """Mean share of left, middle and right axes that the borders put in their class; a missing axis is wrong.

    An axis beyond -90 degrees is reached by turning right.
    """
    axis = np.where(axis < -90, axis + 360, axis)
    named = np.select([np.isnan(axis), axis < left, axis <= right], ["none", "left", "middle"], "right")
    return float(np.mean([(named[rows] == name).mean() for name, rows in classes.items()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[9, 10])
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus)
    ecgs = corpus.table("ecgs").to_table(columns=["ecg_id", "strat_fold", "sex", "heart_axis"]).to_pandas()
    measured = corpus.table("measurements").to_table().to_pandas().query("provider == 'measured'")
    rows = ecgs.merge(measured, on="ecg_id", how="left").query("strat_fold in @options.folds").reset_index(drop=True)
    labels = corpus.table("labels").to_table(columns=["ecg_id", "code"]).to_pandas()
    of_code = {code: rows["ecg_id"].isin(group["ecg_id"]).to_numpy() for code, group in labels.groupby("code")}
    column = {name: rows[name].to_numpy(dtype=float) for name in rows if name.endswith("_Global") or "_Amp" in name}
    limb = np.nanmax(np.stack([column[f"QRS_AmpPP_{lead}"] for lead in LIMB_LEADS]), axis=0)
    sokolow = (np.abs(column["S_Amp_V1"]) + np.fmax(column["R_Amp_V5"], column["R_Amp_V6"])) / 3.5
    cornell = (column["R_Amp_aVL"] + np.abs(column["S_Amp_V3"])) / rows["sex"].map(CORNELL_MV).to_numpy(dtype=float)
    irregular = column["RR_StdDev_Global"] / column["RR_Mean_Global"]
    axis, heart_axis = column["QRS_AxisFront_Global"], rows["heart_axis"]
    classes = {
        "left": heart_axis.isin(["LAD", "ALAD"]).to_numpy(),
        "middle": (heart_axis == "MID").to_numpy(),
        "right": heart_axis.isin(["RAD", "ARAD"]).to_numpy(),
    }
    only_sr = of_code["SR"]
    print(f"{len(rows)} ECGs of folds {options.folds}, content fingerprint {corpus.manifest['content_fingerprint']}")
    for name, values, positive, negative in (
        ("heart rate, STACH against SR", column["HR__Global"], "STACH", only_sr),
        ("heart rate, SBRAD against SR", -column["HR__Global"], "SBRAD", only_sr),
        ("RR irregularity, AFIB against SR", irregular, "AFIB", only_sr),
        ("largest limb-lead QRS, LVOLT against NORM", -limb, "LVOLT", of_code["NORM"]),
        ("Sokolow-Lyon or Cornell, VCLVH against NORM", np.fmax(sokolow, cornell), "VCLVH", of_code["NORM"]),
    ):
        print(f"AUC {auc(values, of_code[positive], negative & ~of_code[positive]):.4f}  {name}")
    for left in (0, -30):
        print(f"balanced accuracy {balanced_accuracy(axis, classes, left, 90):.4f}  axis, borders {left}° and 90°")


if __name__ == "__main__":
    main()
