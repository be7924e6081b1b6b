"""Reading the metadata files of a source: bytes that are fingerprinted, tables as text, bad cells told all at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from ecglm.synth.errors import SourceError

OUTSIDE = r"^[/\\~]|^[A-Za-z]:|\\|://|[\x00-\x1f]|(?:^|/)\.\.(?:/|$)"
"""Matches a path that may lead outside its folder."""


def read_bytes(path: Path, root: Path, fingerprint: dict[str, str]) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        near = sorted(folder.parent.name for folder in root.glob(f"*/{path.name}"))
        hint = (
            f"; did you mean the folder {root / near[0]}?" if near else "; download PTB-XL again, or unpack all of it"
        )
        raise SourceError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; check the file and its permissions") from error
    if not data.strip():
        raise SourceError(f"{path}: the file is empty; download it again")
    fingerprint[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return data


def read_csv(path: Path, root: Path, fingerprint: dict[str, str], columns: tuple[str, ...]) -> pl.DataFrame:
    """A CSV file as stripped text, empty cells null, with the columns asked for and "row", counted from 1."""
    data = read_bytes(path, root, fingerprint)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8, "
            "or download it again"
        ) from error
    if b"\0" in data:
        raise SourceError(f"{path}: holds a NUL byte, so it is no text file; download it again")
    if not data.endswith(b"\n"):
        last = data.rsplit(b"\n", 1)[-1][:60].decode("utf-8", "replace")
        raise SourceError(
            f"{path}: the last line ({last!r} …) has no line end, so the file is probably truncated; download it again "
            "(or add the line end if the line is whole)"
        )
    try:
        table = pl.read_csv(data, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", 1)[0]
        raise SourceError(f"{path}: not a comma-separated table: {reason}; download it again") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise SourceError(
            f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; found {', '.join(table.columns)}; "
            "use the official file unchanged"
        )
    text = pl.all().str.strip_chars()
    table = table.select(pl.when(text != "").then(text)).with_row_index("row", offset=1)
    table = table.filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    if table.is_empty():
        raise SourceError(f"{path}: no rows after the header; download it again")
    return table


class Checks:
    """Collects the bad cells of one table, a line for each kind of problem, and raises them together."""

    shown = 3

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def refuse(self, rows: pl.DataFrame, bad: pl.Expr, column: str, expected: str, remedy: str = "") -> None:
        """Note the rows where `bad` holds: their ECG, what `column` says there, and what was expected."""
        found = rows.filter(bad)
        if found.is_empty():
            return
        place = pl.format("data row {}", "row") if column == "ecg_id" else pl.format("ecg_id {}", "ecg_id")
        cells = [
            f"{clip(value)} ({place})"
            for value, place in found.head(self.shown).select(pl.col(column), place.alias("place")).iter_rows()
        ]
        self.note(column, ", ".join(cells) + more(found.height, self.shown), expected, remedy)

    def note(self, column: str, found: str, expected: str, remedy: str = "") -> None:
        remedy = remedy or "correct it or download the file again"
        self.lines.append(f"{self.path}, column {column}: found {found}; expected {expected}; {remedy}")

    def finish(self) -> None:
        if self.lines:
            raise SourceError("\n".join(self.lines))


def clip(value: str | None) -> str:
    if value is None:
        return "an empty cell"
    return repr(value) if len(value) <= 60 else repr(value[:60]) + " …"


def more(count: int, shown: int) -> str:
    return f" and {count - shown} more" if count > shown else ""


def canonical(table: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    return table.select(list(schema)).cast(schema)


def identity(name: str, column: str) -> pl.Expr:
    return pl.format(f"{name}:{{}}", pl.col(column).cast(pl.Int64))


def flag(column: str) -> pl.Expr:
    return pl.col(column).str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
