"""Data tests of a corpus: SQL files that select the bad rows, and the integrity of its files.

A check is a file `<name>.sql` that begins with lines of its own form and goes on with one SELECT:

    -- description: what a bad row is
    -- severity: error | warning
    -- scope: pair | corpus        (each pair judged by itself, part by part; or all pairs at once, the default)
    -- needs: pairs, labels        (what it reads, separated by commas)

Besides the tables of the corpus it may read, made from `pairs`: `messages` and, for scope pair, `texts` (each message
text once); `pair_ecgs`, `pair_evidence` (one row per ECG, per value); for scope corpus `pair_keys` (hashes);
`meanings` (what closed answers claim, from meanings.yaml); and `decided` and `measured`, the keys that the macros
`evidence_key` and `measured_key` give to every finding's evidence and every measurement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.corpus import BUILD_LOG, CARD, MANIFEST, TABLES, Corpus, file_sha256
from ecglm.synth.database import LockedConnection, quote_identifier, quote_text
from ecglm.synth.errors import DefinitionError, QueryError
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.render import content_hash, pair_fingerprint
from ecglm.synth.schema import PAIRS
from ecglm.synth.yaml_files import read_yaml

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Called with the stage, pairs done and pairs in all."""

N_EXAMPLES = 5
PART_ROWS = 65_536
MEANINGS = (
    "labelled",
    "not_labelled",
    "not_all_labelled",
    "previous_labelled",
    "previous_not_labelled",
    "names_labelled",
    "others_not_labelled",
    "met",
    "not_met",
    "some_met",
    "some_not_met",
)

FILE_CHECKS = {
    "file-sha256": "A file whose bytes are not those the manifest lists.",
    "file-rows": "A file or table with other row counts than the manifest lists.",
    "file-unlisted": "A file in the corpus folder that the manifest does not list.",
    "content-hash": "A pair whose content_hash is not that of its messages.",
    "content-fingerprint": "Pairs other than those the manifest's fingerprint was made from.",
}
"""Checks of the files themselves, done without SQL."""

_HEADER_LINE = re.compile(r"-- (description|severity|scope|needs): (.+)")
_SEVERITIES = ("error", "warning")
_SCOPES = ("pair", "corpus")
_BATCH_ROWS = 16_384
_TIMEOUT_S = 600.0
_MEMORY_MB = 512
_BYTES_PER_PAIR = 160
_UNLISTED = (MANIFEST, BUILD_LOG, CARD)

_SETUP = (
    # Arrow tables do not tell their size: joins keep the order they are written in, the smaller table on the right.
    "SET disabled_optimizers = 'join_order,build_side_probe_side'",
    """CREATE VIEW messages AS
       SELECT pair_id, template_id, family, question_type, turn, m.role AS role, m.content AS content
       FROM (SELECT pair_id, template_id, family, question_type, unnest(messages) AS m,
                    generate_subscripts(messages, 1) AS turn FROM pairs)""",
    """CREATE VIEW pair_ecgs AS
       SELECT pair_id, template_id, family, split, unnest(ecg_ids) AS ecg_id, unnest(patient_ids) AS patient_id,
              unnest(strat_folds) AS strat_fold FROM pairs""",
    # sources: the statements whose criteria may stand behind the evidence
    """CREATE VIEW pair_evidence AS
       SELECT pair_id, template_id, family, ecg_ids, answers, unnest(evidence) AS evidence,
              list_distinct(list_concat(guideline_ids, codes)) AS sources FROM pairs WHERE len(evidence) > 0""",
    "CREATE MACRO evidence_key(ecg_id, code, item)"
    ' AS hash(ecg_id, code, item.name, item.value, item.unit, item."limit")',
    "CREATE MACRO measured_key(ecg_id, name, value) AS hash(ecg_id, name, value)",
)
# Hashes that find what occurs twice without holding all pairs; only closed questions are `asked`.
_PAIR_KEYS = """
SELECT hash(pair_id) AS pair, hash(content_hash, ecg_ids) AS said,
       CASE WHEN len(messages) = 2 AND (len(options) > 0 OR len(vocabulary) > 0)
            THEN hash(ecg_ids, messages[1].content) END AS asked, hash(list_sort(answers)) AS answered
FROM pairs LEFT JOIN templates USING (template_id)
"""
_TEXTS = pa.schema(
    {
        "pair_id": pa.string(),
        "template_id": pa.string(),
        "role": pa.string(),
        "content": pa.string(),
        "times": pa.int64(),
    }
)
_NO_PAIR_KEYS = pa.schema([(name, pa.uint64()) for name in ("pair", "said", "asked", "answered")]).empty_table()
_DECIDED = """
CREATE TABLE decided AS SELECT evidence_key(ecg_id, code, item) AS key, met FROM (
    SELECT ecg_id, code, unnest(evidence) AS item,
           CASE verdict WHEN 'met' THEN true WHEN 'not_met' THEN false END AS met
    FROM findings WHERE len(evidence) > 0)
"""
_PAIR_VIEWS = frozenset(("pairs", "texts", "messages", "pair_ecgs", "pair_evidence"))
_SMALL_TABLES = ("ecgs", "labels", "templates", "guidelines")
_DERIVED = ("pair_keys", "texts", "messages", "pair_ecgs", "pair_evidence", "meanings", "decided", "measured")
_KNOWN_NEEDS = frozenset((*TABLES, *_DERIVED))


@dataclass(frozen=True)
class Check:
    """One data test: a SELECT of the rows that are wrong.

    Scope `pair`: every pair is judged by itself, so the SELECT runs on one part of the pairs after another.
    Scope `corpus`: the SELECT sees all pairs at once. A row that stands for several says so in a column `times`.
    """

    name: str
    description: str
    severity: Literal["error", "warning"]
    scope: Literal["pair", "corpus"]
    needs: tuple[str, ...]
    sql: str


@dataclass(frozen=True)
class CheckResult:
    """What one check found: how many bad rows, and a few of them."""

    name: str
    description: str
    severity: Literal["error", "warning"]
    n_bad: int
    examples: list[dict[str, Any]]


class _Problems:
    """A count and the first few."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.n, self.examples = 0, list[dict[str, Any]]()
        for row in rows:
            self.add(**row)

    def add(self, **row: Any) -> None:
        self.n += 1
        if len(self.examples) < N_EXAMPLES:
            self.examples.append(row)


def run_checks(
    corpus: Corpus,
    extra: Path | None = None,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Runs the data tests on a corpus and verifies its files.

    Args:
        corpus: a finished corpus.
        extra: a folder with more checks of the user's own, in the same form.
        only: names of the checks to run; all, if None.
        progress: called with the stage, pairs done and pairs in all.

    Raises:
        DefinitionError: a check file is malformed or its SQL cannot run; names the file.
        QueryError: a check ran out of time or memory.
    """
    checks = load_checks(extra)
    if only is not None:
        unknown = sorted(set(only) - {check.name for check in checks} - set(FILE_CHECKS))
        if unknown:
            raise DefinitionError(f"no check is called {unknown[0]!r}; see the *.sql files of {Path(__file__).parent}")
        checks = [check for check in checks if check.name in only]
    results = verify_files(corpus, progress) if only is None or set(only) & set(FILE_CHECKS) else []
    damaged = any(result.n_bad for result in results)
    results = [result for result in results if only is None or result.name in only]
    try:
        found = _run_sql(corpus, checks, progress) if checks else {}
    except (OSError, pa.ArrowException, QueryError):
        if not damaged:
            raise
        return results  # files that cannot be read: their own checks have said so
    results += [
        CheckResult(check.name, check.description, check.severity, found[check.name].n, found[check.name].examples)
        for check in checks
    ]
    return results


def _run_sql(corpus: Corpus, checks: Sequence[Check], progress: Progress | None) -> dict[str, _Problems]:
    found = {check.name: _Problems() for check in checks}
    by_pair = [check for check in checks if check.scope == "pair"]
    alone = [check for check in by_pair if check.needs and _PAIR_VIEWS.issuperset(check.needs)]
    joined = [check for check in by_pair if check not in alone]
    needed = {name for check in checks for name in check.needs}
    with _connect(corpus, needed) as connection, _connect_alone() as beside, ThreadPoolExecutor(1) as thread:
        totals = _totals(checks, connection)
        keys: list[pa.Table] = []
        for part in pair_parts(corpus, progress) if by_pair or "pair_keys" in needed else ():
            tables = {"pairs": part, "texts": texts_of(part)}
            waiting = thread.submit(_apply_all, alone, beside, tables, totals, found)
            _apply_all(joined, connection, tables, totals, found)
            if "pair_keys" in needed:
                keys.append(connection.select(_PAIR_KEYS))
            waiting.result()
        tables = {"pairs": corpus.table("pairs")} | ({"pair_keys": pa.concat_tables(keys)} if keys else {})
        of_corpus = [check for check in checks if check.scope == "corpus"]
        _apply_all(of_corpus, connection, tables, totals, found)
    return found


def load_checks(extra: Path | None = None) -> list[Check]:
    """The checks that come with ecglm and those of a folder, in order of their names.

    Raises:
        DefinitionError: a file lacks a header line, or says something else than expected there; names the file.
    """
    folders = [Path(__file__).parent, *([extra] if extra is not None else [])]
    if extra is not None and not any(extra.glob("*.sql")):
        raise DefinitionError(f"{extra}: no *.sql file here; give a folder that holds checks")
    checks: dict[str, Check] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.sql")):
            if path.stem in checks:
                raise DefinitionError(
                    f"{path}: a check called {path.stem} comes with ecglm; give the file another name"
                )
            checks[path.stem] = _read_check(path)
    return list(checks.values())


def _read_check(path: Path) -> Check:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path}: cannot be read: {error}") from error
    header: dict[str, str] = {}
    for line in text.splitlines():
        match = _HEADER_LINE.fullmatch(line.rstrip())
        if match is None:
            break
        header[match[1]] = match[2]
    for name in ("description", "severity"):
        if name not in header:
            raise DefinitionError(f"{path}: the file must begin with `-- {name}: …`, before any other line")
    severity, scope = header["severity"], header.get("scope", "corpus")
    if severity not in _SEVERITIES:
        raise DefinitionError(f"{path}: severity is {severity!r}; expected {' or '.join(_SEVERITIES)}")
    if scope not in _SCOPES:
        raise DefinitionError(f"{path}: scope is {scope!r}; expected {' or '.join(_SCOPES)}")
    needs = tuple(name.strip() for name in header.get("needs", "").split(",") if name.strip())
    if scope == "corpus" and "texts" in needs:
        raise DefinitionError(f"{path}: texts are there for `-- scope: pair` only; use messages")
    unknown = sorted(set(needs) - _KNOWN_NEEDS)
    if unknown:
        raise DefinitionError(f"{path}: needs {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN_NEEDS))}")
    sql = text.strip().removesuffix(";")
    return Check(path.stem, header["description"], severity, scope, needs, sql)  # type: ignore[arg-type]


def answer_meanings() -> dict[str, dict[str, list[str]]]:
    """What the answers of the built-in templates claim: template → answer → some of `MEANINGS`."""
    path = Path(__file__).parent / "meanings.yaml"
    meanings: dict[str, dict[str, list[str]]] = read_yaml(path)
    for template_id, answers in meanings.items():
        for claimed in answers.values():
            strange = sorted(set(claimed) - set(MEANINGS))
            if strange:
                raise DefinitionError(f"{path}: {template_id}: {strange[0]!r} is not one of {', '.join(MEANINGS)}")
    return meanings


# ------------------------------------------------------------------------------------------------------ the connection


def _connect(corpus: Corpus, needed: set[str]) -> LockedConnection:
    tables: dict[str, Any] = dict(corpus.tables())
    tables |= {name: tables[name].to_table() for name in _SMALL_TABLES}
    tables |= {"meanings": _meanings_table(), "texts": _TEXTS.empty_table(), "pair_keys": _NO_PAIR_KEYS}
    setup = list(_SETUP)
    if "decided" in needed:
        setup.append(_DECIDED)
    if "measured" in needed:
        setup.append(_measured_sql(corpus, tables["measurements"].schema.names))
    n_pairs = sum(corpus.split_rows.values())
    memory_mb = max(_MEMORY_MB, n_pairs * _BYTES_PER_PAIR >> 20)
    return LockedConnection(tables, setup=setup, memory_limit=f"{memory_mb}MB", timeout_s=_TIMEOUT_S, threads=2)


def _connect_alone() -> LockedConnection:
    """A second connection for checks that need nothing but the pairs: it works beside the first."""
    return LockedConnection(
        {"pairs": PAIRS.empty_table(), "texts": _TEXTS.empty_table()},
        setup=_SETUP,
        memory_limit=f"{_MEMORY_MB // 2}MB",
        timeout_s=_TIMEOUT_S,
    )


def _meanings_table() -> pa.Table:
    rows = [
        {"template_id": template_id, "answer": answer, "meaning": meaning, "named_answers": list(answers)}
        for template_id, answers in answer_meanings().items()
        for answer, claimed in answers.items()
        for meaning in claimed
    ]
    columns = [(name, pa.string()) for name in ("template_id", "answer", "meaning")]
    return pa.Table.from_pylist(rows, schema=pa.schema([*columns, ("named_answers", pa.list_(pa.string()))]))


def _measured_sql(corpus: Corpus, columns: Sequence[str]) -> str:
    """A table of keys of every (ECG, name, value) that evidence may quote."""
    known = measurements()
    parts = [
        f"SELECT measured_key(ecg_id, {quote_text(name)}, {quote_identifier(column)}::DOUBLE) AS key"
        f" FROM measurements WHERE {quote_identifier(column)} IS NOT NULL"
        for name in sorted(_evidence_names(corpus) & set(known))
        for column in (name, *known[name].same_as)
        if column in columns
    ]
    return "CREATE TABLE measured AS " + (" UNION ALL ".join(parts) or "SELECT 0::UBIGINT AS key WHERE false")


def _evidence_names(corpus: Corpus) -> set[str]:
    names: set[str] = set()
    for batch in _pair_batches(corpus, ["evidence"]):
        found = pc.unique(pc.struct_field(pc.list_flatten(batch.column("evidence")), "name")).to_pylist()
        names.update(name.removesuffix(" (first)").removesuffix(" (second)") for name in found if name is not None)
    return names


def _pair_batches(
    corpus: Corpus, columns: Sequence[str], stage: str = "", progress: Progress | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of the pairs in file order. A dataset would read ahead, and with it fill the memory."""
    done, total = 0, sum(corpus.split_rows.values())
    for name in sorted(corpus.manifest["files"]):
        if name.startswith("pairs/"):
            with pq.ParquetFile(corpus.root / name) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
                    yield batch
                    done += batch.num_rows
                    if progress is not None:
                        progress(stage, done, total)


def pair_parts(corpus: Corpus, progress: Progress | None = None) -> Iterator[pa.Table]:
    """All pairs in file order, some `PART_ROWS` at a time."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in _pair_batches(corpus, PAIRS.names, "checking pairs", progress):
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= PART_ROWS:
            yield pa.Table.from_batches(waiting, schema=PAIRS)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting, schema=PAIRS)


def texts_of(pairs: pa.Table) -> pa.Table:
    """Every message text of the pairs once, with a pair that says it and how often it is said.

    Most messages are said many times, so that reading texts is several times quicker than reading messages.
    """
    messages = pairs["messages"].combine_chunks()
    pair, said = pc.list_parent_indices(messages), messages.flatten()
    encoded = pc.struct_field(said, "content").dictionary_encode(null_encoding="encode")
    _, first, times = np.unique(encoded.indices.to_numpy(), return_index=True, return_counts=True)
    place = pc.take(pair, pa.array(first))
    return pa.table(
        {
            "pair_id": pairs["pair_id"].take(place),
            "template_id": pairs["template_id"].take(place),
            "role": pc.struct_field(said, "role").take(pa.array(first)),
            "content": pc.struct_field(said, "content").take(pa.array(first)),
            "times": pa.array(times, pa.int64()),
        },
        schema=_TEXTS,
    )


def _totals(checks: Iterable[Check], connection: LockedConnection) -> dict[str, str]:
    """For each check the expression that counts its bad rows; a check whose SQL cannot run is refused."""
    totals = {}
    for check in checks:
        try:
            columns = connection.columns(check.sql)
        except QueryError as error:
            raise DefinitionError(f"check {check.name}: {error}") from error
        totals[check.name] = "coalesce(sum(times), 0)::BIGINT" if "times" in columns else "count(*)"
    return totals


def _apply_all(
    checks: Iterable[Check],
    connection: LockedConnection,
    tables: Mapping[str, Any],
    totals: Mapping[str, str],
    found: Mapping[str, _Problems],
) -> None:
    for name, table in tables.items():
        connection.register(name, table)
    for check in checks:
        _apply(check, connection, totals[check.name], found[check.name])


def _apply(check: Check, connection: LockedConnection, total: str, found: _Problems) -> None:
    try:
        n_bad = connection.select(f"SELECT {total} AS n FROM (\n{check.sql}\n)")["n"][0].as_py()
        wanted = min(N_EXAMPLES - len(found.examples), n_bad)
        if wanted > 0:
            rows = connection.select(f"SELECT * FROM (\n{check.sql}\n) ORDER BY ALL LIMIT {wanted}")
            found.examples += rows.to_pylist()
    except QueryError as error:
        raise QueryError(f"check {check.name}: {error}") from error
    found.n += n_bad


# ----------------------------------------------------------------------------------------------------------- the files


def verify_files(corpus: Corpus, progress: Progress | None = None) -> list[CheckResult]:
    """Recomputes what the manifest says of a corpus's files: SHA-256, row counts, content hashes and fingerprint."""
    content, hashes = _content_problems(corpus, progress)
    problems = (_changed_files(corpus), _row_problems(corpus), _unlisted_files(corpus), hashes, content)
    return [
        CheckResult(name, description, "error", found.n, found.examples)
        for (name, description), found in zip(FILE_CHECKS.items(), problems, strict=True)
    ]


def _changed_files(corpus: Corpus) -> _Problems:
    problems = _Problems()
    for name, entry in corpus.manifest["files"].items():
        actual = file_sha256(corpus.root / name)
        if actual != entry["sha256"]:
            problems.add(file=name, expected=entry["sha256"], found=actual)
    return problems


def _row_problems(corpus: Corpus) -> _Problems:
    problems = _Problems()
    pairs = 0
    for name, entry in corpus.manifest["files"].items():
        if "rows" not in entry:
            continue
        try:
            actual = pq.read_metadata(corpus.root / name).num_rows
        except (OSError, pa.ArrowException) as error:
            problems.add(file=name, expected=entry["rows"], found=str(error))
            continue
        pairs += actual if name.startswith("pairs/") else 0
        if actual != entry["rows"]:
            problems.add(file=name, expected=entry["rows"], found=actual)
    if pairs != corpus.manifest["counts"]["pairs"]:
        problems.add(file="pairs", expected=corpus.manifest["counts"]["pairs"], found=pairs)
    return problems


def _unlisted_files(corpus: Corpus) -> _Problems:
    listed = set(corpus.manifest["files"]) | set(_UNLISTED)
    present = (path.relative_to(corpus.root).as_posix() for path in sorted(corpus.root.rglob("*")) if path.is_file())
    return _Problems({"file": name} for name in present if name not in listed)


def _content_problems(corpus: Corpus, progress: Progress | None) -> tuple[_Problems, _Problems]:
    content, hashes = _Problems(), _Problems()
    fingerprint = 0
    columns = ["pair_id", "content_hash", "messages"]
    try:
        for batch in _pair_batches(corpus, columns, "verifying files", progress):
            pair_ids, stated = batch.column("pair_id").to_pylist(), batch.column("content_hash").to_pylist()
            messages = batch.column("messages")
            texts = pc.struct_field(messages.flatten(), "content").to_pylist()
            offsets = pc.subtract(messages.offsets, messages.offsets[0]).to_pylist()
            for pair_id, given, start, stop in zip(pair_ids, stated, offsets, offsets[1:], strict=False):
                actual = content_hash([text or "" for text in texts[start:stop]])
                if actual != given:
                    hashes.add(pair_id=pair_id, expected=actual, found=given)
                fingerprint += pair_fingerprint(pair_id or "", actual)
    except (OSError, pa.ArrowException) as error:
        content.add(expected=corpus.manifest["content_fingerprint"], found=f"pairs that cannot be read: {error}")
        return content, hashes
    actual = f"{fingerprint % (1 << 128):032x}"
    if actual != corpus.manifest["content_fingerprint"]:
        content.add(expected=corpus.manifest["content_fingerprint"], found=actual)
    return content, hashes


# -------------------------------------------------------------------------------------------------------------- to read


def print_results(results: Sequence[CheckResult], console: Console | None = None) -> None:
    """Prints one line per check, and the examples of those that found something."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("bad rows", justify="right")
    table.add_column("what it looks for", overflow="fold")
    for result in results:
        mark = (
            "[green]ok[/]"
            if not result.n_bad
            else f"[{'red' if result.severity == 'error' else 'yellow'}]{result.severity}[/]"
        )
        table.add_row(mark, result.name, f"{result.n_bad:,}", escape(result.description))
    console.print(table)
    for result in results:
        for example in result.examples:
            shown = ", ".join(f"{name}={_short(value)}" for name, value in example.items())
            console.print(f"{result.name}: {shown}", markup=False, soft_wrap=True)
    errors = sum(result.n_bad > 0 and result.severity == "error" for result in results)
    warnings = sum(result.n_bad > 0 and result.severity == "warning" for result in results)
    console.print(f"{len(results)} checks, {errors} failed, {warnings} with warnings", markup=False)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:299] + "…"


__all__ = [
    "Check",
    "CheckResult",
    "answer_meanings",
    "load_checks",
    "pair_parts",
    "print_results",
    "run_checks",
    "verify_files",
]
