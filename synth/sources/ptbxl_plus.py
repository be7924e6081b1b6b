"""PTB-XL+ (Strodthoff et al. 2023): what three commercial and open programs measured and stated on PTB-XL's ECGs.

The three feature tables are joined by `ecg_id` whatever their order. Names and units come from the data set's own
`feature_description.csv`; the statement tables become one long table, each code as it is given and as SNOMED CT.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from ecglm.synth.errors import SourceError
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import LEADS, REJECTED, SNOMED, SNOMED_MAPPING, STATEMENTS
from ecglm.synth.sources import polars_schema
from ecglm.synth.sources.files import Checks, clip, read_bytes, read_csv

DESCRIPTION = "features/feature_description.csv"
PROVIDERS = ("12sl", "unig", "ecgdeli")
SNOMED_FILE = "labels/snomed_description.csv"
MAPPING_FOLDER = "labels/mapping"
PTBXL = "ptbxl"
"""Name of the only source whose ECGs PTB-XL+ is about."""

_NOT_PUBLISHED = {
    "12sl": {f"QRS_Dur_{lead}" for lead in LEADS},
    "unig": {f"Spp_{what}_{lead}" for what in ("Amp", "Dur") for lead in ("II", "V2")},
    "ecgdeli": set(),
}
"""Columns that the description promises and version 1.0.1 does not have."""
_ECGDELI_SUFFIXES = ("", "_iqr", "_count")
_STATEMENT_FILES = {
    "ptbxl": {"scp_codes": "given", "scp_codes_ext": "extended", "scp_codes_ext_snomed": "snomed"},
    "12sl": {
        "statements": "given",
        "statements_cat": "category",
        "statements_ext": "extended",
        "statements_ext_snomed": "snomed",
    },
}
"""Who stated → column of labels/<who>_statements.csv → what it lists."""
_SNOMED_COLUMNS = ("snomed_id", "description", "ancestors", "in_ptbxl", "in_12sl", "informative")

_UNITS = {"bpm": "/min", "degrees": "°", "mV": "mV", "ms": "ms", "mV*ms": "mV·ms", "integer": ""}
"""Unit as PTB-XL+ writes it → as measurements have it."""
_PLAUSIBLE = {"mV": (-50, 50), "ms": (-5_000, 20_000), "°": (-360, 360), "/min": (0, 1_000), "beats": (0, 1_000)}
"""Beyond these a value is in another unit than its column says. Published extremes of 1.0.1 lie well inside."""
_FINITE = (-sys.float_info.max, sys.float_info.max)
_LEAST_LONG_MS = 10
"""Intervals that are all shorter than this are not in ms."""
_LONG = re.compile(r"(PR|QT)_Int\w*_Global|QRS_Dur_Global|RR_Mean_Global")

_ATTRIBUTION = {
    "name": "PTB-XL+",
    "version": "1.0.1",
    "licence": "CC BY 4.0",
    "citation": "Strodthoff N, Mehari T, Nagel C, Aston PJ, Sundar A, Graff C, Kanters JK, Haverkamp W, Dössel O,"
    " Loewe A, Bär M, Schaeffter T. PTB-XL+, a comprehensive electrocardiographic feature dataset. Scientific Data"
    " 2023;10:279. doi:10.1038/s41597-023-02153-8",
    "doi": "10.1038/s41597-023-02153-8",
}

_LONGEST_CELL = 20_000
_TEXT = r"""'[^'"\\]*'|"[^"\\]*\""""
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_ONE = rf"(?:{_TEXT}|{_NUMBER}|nan|None)"
_ITEM = rf"(?:\(\s*{_ONE}\s*,\s*{_ONE}\s*,?\s*\)|{_ONE}\s*:\s*{_ONE}|{_ONE})"
_WHOLE_LIST = re.compile(rf"\s*[\[{{(]\s*(?:{_ITEM}(?:\s*,\s*{_ITEM})*\s*,?\s*)?[\]}})]\s*")
_PAIR = re.compile(rf"\(\s*(?P<code>{_ONE})\s*,\s*(?P<likelihood>{_ONE})\s*,?\s*\)")
_KEYED = re.compile(rf"(?P<code>{_ONE})\s*:\s*(?P<likelihood>{_ONE})")
_SINGLE = re.compile(rf"(?P<code>{_ONE})")


@dataclass(frozen=True)
class PtbxlPlus:
    """What a folder of PTB-XL+ brings for the ECGs of a source."""

    providers: Mapping[str, pl.LazyFrame]
    """12sl, unig, ecgdeli, those that are there → canonical `ecg_id` and float columns; NULL where not measured."""
    tables: Mapping[str, pl.DataFrame]
    """statements, snomed and snomed_mapping of schema.OPTIONAL_TABLES, those that are there."""
    rejected: pl.DataFrame
    """Rows of schema.REJECTED: mapping rows that cannot be read."""
    fingerprint: Mapping[str, str]
    """File, relative to the folder → SHA-256."""
    attribution: Mapping[str, str]


def is_ptbxl_plus(root: Path) -> bool:
    """Whether a folder holds feature or statement tables under their official names."""
    names = [*(_features(provider) for provider in PROVIDERS), *(_statements(who) for who in _STATEMENT_FILES)]
    return any((root / name).is_file() for name in (DESCRIPTION, *names))


def open_ptbxl_plus(root: Path, source: str, ecg_ids: pl.Series) -> PtbxlPlus:
    """Reads a folder of PTB-XL+, whole or with some of its tables.

    Args:
        root: the folder that holds features/ and labels/.
        source: name of the source whose ECGs it is set beside.
        ecg_ids: canonical ids of those ECGs; rows about others are passed over.

    Raises:
        SourceError: another source than PTB-XL, no table at all, no ECG in common, or a file that is damaged: names
            file, column, row, what was found and what to do.
    """
    if source != PTBXL:
        raise SourceError(f"{root}: PTB-XL+ is about the ECGs of PTB-XL, not of the source {source!r}; leave it out")
    fingerprint: dict[str, str] = {}
    present = [provider for provider in PROVIDERS if (root / _features(provider)).is_file()]
    stated = [who for who in _STATEMENT_FILES if (root / _statements(who)).is_file()]
    if not present and not stated:
        wanted = ", ".join(_features(provider) for provider in PROVIDERS)
        raise SourceError(
            f"{root}: none of {wanted} is here; download PTB-XL+ again, or give the folder above features/"
        )
    providers = {}
    if present:
        description = _read_description(root, fingerprint)
        for provider in present:
            table = _read_features(root, provider, description, fingerprint)
            providers[provider] = _of_these(root / _features(provider), table, ecg_ids).lazy()
    tables: dict[str, pl.DataFrame] = {}
    read = [_read_statements(root, who, fingerprint, ecg_ids) for who in stated]
    if read:
        tables["statements"] = pl.concat(statements for statements, _ in read)
    if (root / SNOMED_FILE).is_file():
        tables["snomed"] = _read_snomed(root, fingerprint)
    mapping, rejected = _read_mapping(root, fingerprint)
    if mapping.height:
        tables["snomed_mapping"] = mapping
    unread = pl.concat([*(unreadable for _, unreadable in read), rejected])
    return PtbxlPlus(providers, tables, unread, fingerprint, _ATTRIBUTION)


def _features(provider: str) -> str:
    return f"features/{provider}_features.csv"


def _statements(who: str) -> str:
    return f"labels/{who}_statements.csv"


# --- features ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Feature:
    id: str
    unit: str
    in_microvolts: bool
    """Given in µV by 12SL, though the description says mV: it has no factor for these."""


def _read_description(root: Path, fingerprint: dict[str, str]) -> dict[str, dict[str, _Feature]]:
    """Provider → column → what the description says of it."""
    path = root / DESCRIPTION
    wanted = ("id", "unit", *(f"{provider}_feature" for provider in PROVIDERS), "consistent_units_12sl")
    table = read_csv(path, root, fingerprint, wanted)
    columns: dict[str, dict[str, _Feature]] = {provider: {} for provider in PROVIDERS}
    for row in table.filter(pl.col("id").is_not_null()).iter_rows(named=True):
        name = str(row["id"])
        names = [f"{name[:-1]}{lead}" for lead in LEADS] if name.endswith("_X") else [name]
        for provider in PROVIDERS:
            if row[f"{provider}_feature"] is None:
                continue
            micro = provider == "12sl" and row["unit"] == "mV" and row["consistent_units_12sl"] == "1"
            feature = _Feature(name, str(row["unit"] or ""), micro)
            for suffix in _ECGDELI_SUFFIXES if provider == "ecgdeli" else ("",):
                columns[provider] |= {f"{each}{suffix}": feature for each in names}
    _check_units(path, columns)
    return columns


def _check_units(path: Path, columns: Mapping[str, Mapping[str, _Feature]]) -> None:
    checks = Checks(path)
    told: set[str] = set()
    for features in columns.values():
        for name, feature in features.items():
            known = _known(name)
            expected = "" if known == "beats" else known
            if expected is None or feature.id in told or _UNITS.get(feature.unit) == expected:
                continue
            told.add(feature.id)
            wanted = next((theirs for theirs, ours in _UNITS.items() if ours == expected), expected)
            checks.note("unit", f"{feature.unit!r} (row {feature.id})", repr(wanted))
    checks.finish()


def _known(column: str) -> str | None:
    """The unit that measurements of this name have; None if it is none that criteria or templates may name."""
    return _known_units().get(column)


@cache
def _known_units() -> dict[str, str]:
    return {name: each.unit for own, each in measurements().items() for name in (own, *each.same_as)}


def _read_features(
    root: Path, provider: str, description: Mapping[str, Mapping[str, _Feature]], fingerprint: dict[str, str]
) -> pl.DataFrame:
    """Columns ecg_id (whole numbers) and every feature as a number, in the units of the description."""
    path = root / _features(provider)
    text = read_csv(path, root, fingerprint, ("ecg_id",))
    features = description[provider]
    found = set(text.columns) - {"row", "ecg_id"}
    missing = [name for name in features if name not in found and name not in _NOT_PUBLISHED[provider]]
    extra = sorted(found - features.keys())
    if missing or extra:
        told = [f"missing column {_some(missing)}"] * bool(missing) + [f"unknown column {_some(extra)}"] * bool(extra)
        raise SourceError(f"{path}: {', '.join(told)}; {DESCRIPTION} names others; use the official file unchanged")
    checks = Checks(path)
    names = [name for name in text.columns if name in features]
    numbers = text.with_columns(pl.col("ecg_id", *names).cast(pl.Float64, strict=False).name.suffix("_value"))
    ecg_id = pl.col("ecg_id_value")
    whole = ((ecg_id > 0) & (ecg_id == ecg_id.floor())).fill_null(False)
    checks.refuse(numbers, ~whole, "ecg_id", "a whole number above 0")
    checks.refuse(numbers, whole & ecg_id.is_duplicated(), "ecg_id", "each ECG once", "keep one of the rows")
    for name in _suspects(numbers, names):
        expression, expected = _odd(name)
        checks.refuse(numbers.select("row", "ecg_id", name, f"{name}_value"), expression, name, expected)
    _check_intervals(checks, numbers)
    checks.finish()
    columns = []
    for name in names:
        value = pl.col(f"{name}_value").fill_nan(None)
        if features[name].in_microvolts:
            value = pl.when(value.abs().max() > _PLAUSIBLE["mV"][1]).then(value / 1000).otherwise(value)
        columns.append(value.alias(name))
    return numbers.select(ecg_id.cast(pl.Int64).alias("ecg_id"), *columns)


def _suspects(numbers: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Features with a cell that became no number, or with numbers beyond what their unit allows."""
    found = []
    for name in names:
        value = numbers[f"{name}_value"]
        low, high = _PLAUSIBLE.get(_known(name) or "", _FINITE)
        least, most = value.min(), value.max()  # NaN passed over
        beyond = isinstance(least, float) and isinstance(most, float) and (least < low or most > high)
        if beyond or value.null_count() > numbers[name].null_count():
            found.append(name)
    return found


def _odd(name: str) -> tuple[pl.Expr, str]:
    """Which cells of a feature cannot be right, and what would be: no number, or one far outside its unit."""
    value, text = pl.col(f"{name}_value"), pl.col(name).str.to_lowercase()
    no_number = value.is_null() & text.is_not_null() & ~text.is_in(["nan", "na", "none", "null"])
    odd = no_number | value.is_infinite().fill_null(False)
    unit = _known(name)
    if unit not in _PLAUSIBLE:
        return odd, "a number or nothing"
    low, high = _PLAUSIBLE[unit]
    beyond = value.is_not_nan() & ~value.is_between(low, high)
    return odd | beyond.fill_null(False), f"a number from {low} to {high} ({unit}), or nothing"


def _check_intervals(checks: Checks, numbers: pl.DataFrame) -> None:
    for name in numbers.columns:
        if _LONG.fullmatch(name):
            longest = numbers[f"{name}_value"].fill_nan(None).max()
            if isinstance(longest, float) and longest < _LEAST_LONG_MS:
                checks.note(name, f"values up to {longest:g}", "ms", "give it in ms, not in s")


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"


def _of_these(path: Path, table: pl.DataFrame, ecg_ids: pl.Series) -> pl.DataFrame:
    canonical = table.with_columns(pl.format(f"{PTBXL}:{{}}", "ecg_id").alias("ecg_id"))
    chosen = ecg_ids.alias("ecg_id").to_frame().join(canonical, on="ecg_id", how="inner", maintain_order="left")
    if chosen.is_empty():
        raise SourceError(
            f"{path}: no row about any of the {len(ecg_ids)} ECGs at hand; is it the table of this PTB-XL?"
        )
    return chosen


# --- statements -------------------------------------------------------------------------------------------------------


def _read_statements(
    root: Path, who: str, fingerprint: dict[str, str], ecg_ids: pl.Series
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every code listed, and the cells that are no list."""
    path = root / _statements(who)
    parts = _STATEMENT_FILES[who]
    table = read_csv(path, root, fingerprint, ("ecg_id", *parts))
    checks = Checks(path)
    number = pl.col("ecg_id").str.extract(r"^(\d+)(?:\.0*)?$").cast(pl.Int64)
    table = table.with_columns(pl.format(f"{PTBXL}:{{}}", number).alias("canonical"))
    checks.refuse(table, pl.col("canonical").is_null(), "ecg_id", "a whole number above 0")
    checks.finish()
    order = ecg_ids.alias("canonical").to_frame()
    chosen = order.join(table, on="canonical", how="inner", maintain_order="left")
    rows: list[tuple[str, str, str, int, str, float | None]] = []
    unread: list[tuple[str, str, str]] = []
    for ecg_id, *cells in chosen.select("canonical", *parts).iter_rows():
        for (column, part), cell in zip(parts.items(), cells, strict=True):
            if cell is not None and (len(cell) > _LONGEST_CELL or _WHOLE_LIST.fullmatch(cell) is None):
                detail = f"{_statements(who)}, column {column}: found {clip(cell)}, expected a list; correct the cell"
                unread.append((ecg_id, "unreadable_statements", detail))
                continue
            listed = enumerate(_listed(cell or ""))
            rows += [(ecg_id, who, part, place, code, likelihood) for place, (code, likelihood) in listed]
    statements = pl.DataFrame(rows, schema=polars_schema(STATEMENTS), orient="row")
    return statements, _rejected([([ecg_id], reason, detail) for ecg_id, reason, detail in unread])


def _rejected(rows: Sequence[tuple[list[str], str, str]]) -> pl.DataFrame:
    whole = [("source", ecg_ids, None, None, reason, detail) for ecg_ids, reason, detail in rows]
    return pl.DataFrame(whole, schema=polars_schema(REJECTED), orient="row")


def _listed(text: str) -> Iterator[tuple[str, float | None]]:
    """The codes of one cell with their likelihoods: pairs, `code: likelihood`, or codes alone."""
    inside = text.strip()[1:-1]
    bare = re.sub(_TEXT, "", inside)  # 12SL has statements named "(" and ","
    kind = _PAIR if "(" in bare else _KEYED if ":" in bare else _SINGLE
    for found in kind.finditer(inside):
        parts = found.groupdict()
        likelihood = parts.get("likelihood")
        number = re.fullmatch(_NUMBER, likelihood) if likelihood else None
        yield parts["code"].strip("'\""), float(number[0]) if number else None


def _read_snomed(root: Path, fingerprint: dict[str, str]) -> pl.DataFrame:
    path = root / SNOMED_FILE
    table = read_csv(path, root, fingerprint, _SNOMED_COLUMNS)
    checks = Checks(path)
    whole = pl.col("snomed_id").str.contains(r"^\d{1,18}$")
    odd = table.filter(~whole.fill_null(False))["snomed_id"].to_list()
    if odd:
        checks.note("snomed_id", _some([str(cell) for cell in odd]), "whole numbers")
    checks.finish()
    flags = {"true": True, "false": False}
    return table.select(
        pl.col("snomed_id"),
        pl.col("description"),
        pl.col("ancestors").str.extract_all(r"\d+").alias("ancestors"),
        *(
            pl.col(name).str.to_lowercase().replace_strict(flags, default=None, return_dtype=pl.Boolean)
            for name in ("in_ptbxl", "in_12sl", "informative")
        ),
    ).cast(polars_schema(SNOMED))


def _read_mapping(root: Path, fingerprint: dict[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every cell of the mapping tables, and the rows that do not fit their header.

    Some of the published rows are quoted as a whole, so that they look like one cell: these are read again.
    """
    cells: list[tuple[str, int, str, str]] = []
    rejected: list[tuple[list[str], str, str]] = []
    for path in sorted((root / MAPPING_FOLDER).glob("*.csv")):
        text = read_bytes(path, root, fingerprint).decode("utf-8-sig", "replace")
        rows = csv.reader(io.StringIO(text, newline=""))
        header: list[str] = []
        for quoted in rows:
            row = next(csv.reader(quoted)) if len(quoted) == 1 and "," in quoted[0] else quoted
            line = rows.line_num
            if not header:
                header = [name.strip() or f"column {number}" for number, name in enumerate(row, start=1)]
                continue
            while row and not row[-1].strip():
                row.pop()
            if len(row) > len(header) or len(row) == 1:
                place = f"{MAPPING_FOLDER}/{path.name}, line {line}"
                detail = f"{place}: {len(row)} cells, expected {len(header)}; correct the row"
                rejected.append(([], "malformed_mapping_row", detail))
                continue
            named = zip(header, row, strict=False)  # what is left out at the end of a row is empty
            cells += [(path.name, line, name, cell.strip()) for name, cell in named if cell.strip()]
    return pl.DataFrame(cells, schema=polars_schema(SNOMED_MAPPING), orient="row"), _rejected(rejected)
