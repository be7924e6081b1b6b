"""Small tables in PTB-XL+'s official layout: its column lists, values within its published statistics, its quirks."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PROVIDERS = ("12sl", "unig", "ecgdeli")
ID_COLUMN = 144
"""Where `ecg_id` stands in the official 12SL table, from 0."""

Rows = list[dict[str, str]]


USUAL = {"ms": (80.0, 120.0), "mV": (0.0, 0.5), "bpm": (60.0, 90.0), "RR_Mean_Global": (700.0, 950.0)}
USUAL |= dict.fromkeys(("Q_Amp", "S_Amp"), (-0.5, 0.0))
"""Where no statistics are published."""


@cache
def units(data_dir: Path, provider: str) -> Mapping[str, str]:
    with (data_dir / f"ptbxl_plus/derived/columns_{provider}.csv").open(newline="") as file:
        return {row["column"]: row["unit"] for row in csv.DictReader(file)}


def columns(data_dir: Path, provider: str) -> tuple[str, ...]:
    return tuple(units(data_dir, provider))


@cache
def statistics(data_dir: Path, provider: str) -> Mapping[str, Mapping[str, float]]:
    path = data_dir / f"ptbxl_plus/derived/feature_stats_{provider}.json"
    return {row["feature"]: row for row in json.loads(path.read_text())["features"]}


def features(data_dir: Path, provider: str, ecg_ids: Sequence[int]) -> Rows:
    """A row per ECG, unsorted; each value between the published quartiles."""
    random = np.random.default_rng(len(provider))
    known = statistics(data_dir, provider)
    rows = []
    for ecg_id in random.permutation(np.array(ecg_ids)).tolist():
        row = {"ecg_id": str(ecg_id)}
        for name, unit in units(data_dir, provider).items():
            usual = USUAL.get(name, USUAL.get(name[:5], USUAL.get(unit, (0.0, 1.0))))
            low, high = (known[name]["p25"], known[name]["p75"]) if name in known else usual
            row[name] = f"{random.uniform(low, high):.3f}"
        rows.append(row)
    return rows


def write_table(path: Path, rows: Rows, id_column: int | None = None) -> None:
    names = [name for name in rows[0] if name != "ecg_id"]
    names.insert(0 if id_column is None else id_column, "ecg_id")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_plus(
    root: Path,
    data_dir: Path,
    ecg_ids: Sequence[int],
    providers: Sequence[str] = PROVIDERS,
    changes: Mapping[tuple[str, int, str], str] | None = None,
    labels: bool = True,
) -> Path:
    """The folder of PTB-XL+ for some ECGs; `changes` replaces cells by (provider, ecg_id, column)."""
    (root / "features").mkdir(parents=True)
    official = data_dir / "ptbxl_plus"
    shutil.copyfile(official / "features/feature_description.csv", root / "features/feature_description.csv")
    for provider in providers:
        rows = features(data_dir, provider, ecg_ids)
        for (whose, ecg_id, column), text in (changes or {}).items():
            for row in rows:
                if whose == provider and row["ecg_id"] == str(ecg_id):
                    row[column] = text
        write_table(root / f"features/{provider}_features.csv", rows, ID_COLUMN if provider == "12sl" else None)
    if labels:
        write_labels(root, official, ecg_ids)
    return root


def write_labels(root: Path, official: Path, ecg_ids: Sequence[int]) -> None:
    ptbxl: Rows = []
    twelve: Rows = []
    for ecg_id in reversed(ecg_ids):
        ptbxl.append(
            {
                "ecg_id": str(ecg_id),
                "scp_codes": "[('NORM', 100.0), ('SR', 0.0)]",
                "scp_codes_ext": "[('NORM', 100.0), ('SR', 100.0), ('PRC(S)', 50.0)]",
                "scp_codes_ext_snomed": "[(4008453, 100.0), (4117134, 50.0)]",
            }
        )
        twelve.append(
            {
                "ecg_id": str(ecg_id),
                "statements": "['NSR', 'NML', '(', 'B, or not']",
                "statements_cat": "['NSR', 'NML']",
                "statements_ext": "['NSR', 'NML', 'SR']",
                "statements_ext_snomed": "[4008453, 4117134]",
            }
        )
    write_table(root / "labels/ptbxl_statements.csv", ptbxl)
    write_table(root / "labels/12sl_statements.csv", twelve)
    shutil.copyfile(official / "labels/snomed_description.csv", root / "labels/snomed_description.csv")
    (root / "labels/mapping").mkdir()
    (root / "labels/mapping/ptbxlToSNOMED.csv").write_text(
        "Acronym,Statement,id1,name1,id2,name2\n"
        'NORM,normal ECG,4008453,SNOMED CT Concept,,\n"SR,sinus rhythm,4117134,Electrocardiogram finding"\n'
        "LONE\nX,y,1,z,2,w,3,v\n"
    )


def row_of(rows: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row
