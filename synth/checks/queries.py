"""Running checks: the SELECTs over a corpus, those that judge single pairs part by part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.checks.definitions import Check, answer_meanings
from ecglm.synth.checks.pairs import TEXTS, Progress, pair_batches, pair_parts, texts_of
from ecglm.synth.checks.results import N_EXAMPLES, Problems
from ecglm.synth.corpus import Corpus
from ecglm.synth.database import LockedConnection, quote_identifier, quote_text
from ecglm.synth.errors import DefinitionError, QueryError
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import OPTIONAL_TABLES, PAIRS

_TIMEOUT_S = 600.0
_MEMORY_MB = 512
_BYTES_PER_PAIR = 160

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
_NO_PAIR_KEYS = pa.schema([(name, pa.uint64()) for name in ("pair", "said", "asked", "answered")]).empty_table()
_DECIDED = """
CREATE TABLE decided AS SELECT evidence_key(ecg_id, code, item) AS key, met FROM (
    SELECT ecg_id, code, unnest(evidence) AS item,
           CASE verdict WHEN 'met' THEN true WHEN 'not_met' THEN false END AS met
    FROM findings WHERE len(evidence) > 0)
"""
# What evidence may quote of a record beside its measurements: what was annotated, and what its row in ecgs says.
_NOTED = """
CREATE TABLE noted AS
WITH disturbed AS (
    SELECT ecg_id, unnest([{'kind': 'baseline drift', 'leads': baseline_drift},
                           {'kind': 'static noise', 'leads': static_noise},
                           {'kind': 'burst noise', 'leads': burst_noise},
                           {'kind': 'electrode problems', 'leads': electrode_problems}], recursive := true) FROM ecgs
)
SELECT measured_key(ecg_id, name, value) AS key FROM (
    SELECT ecg_id, 'annotated ' || code AS name,
           CASE WHEN certainty NOT IN ('stated', 'unknown') THEN likelihood::DOUBLE END AS value FROM labels
    UNION ALL
    SELECT ecg_id, 'annotated axis ' || heart_axis, NULL::DOUBLE FROM ecgs WHERE heart_axis IS NOT NULL
    UNION ALL
    SELECT ecg_id, kind || ' noted', coalesce(len(leads), 0)::DOUBLE FROM disturbed
    UNION ALL
    SELECT ecg_id, 'kinds of disturbance noted', count(leads)::DOUBLE FROM disturbed GROUP BY ecg_id
    UNION ALL
    SELECT ecg_id, 'disturbance noted', (count(leads) > 0)::INTEGER::DOUBLE FROM disturbed GROUP BY ecg_id
    UNION ALL
    SELECT ecg_id, 'leads with a disturbance noted', len(list_distinct(flatten(list(coalesce(leads, [])))))::DOUBLE
    FROM disturbed GROUP BY ecg_id
    UNION ALL
    SELECT ecg_id, 'leads recorded', coalesce(len(leads), 12)::DOUBLE FROM ecgs
    UNION ALL
    SELECT ecg_id, 'length of the recording', round(n_samples / sampling_hz, 1)::DOUBLE FROM ecgs
    UNION ALL
    SELECT ecg_id, 'sampling rate', sampling_hz::DOUBLE FROM ecgs
    UNION ALL
    SELECT ecg_id, 'days between the recordings', days_since_previous::DOUBLE FROM ecgs
    UNION ALL
    SELECT ecg_id, 'earlier recordings of the patient', 0::DOUBLE FROM ecgs WHERE previous_ecg_id IS NULL)
"""
_PAIR_VIEWS = frozenset(("pairs", "texts", "messages", "pair_ecgs", "pair_evidence"))
_SMALL_TABLES = ("ecgs", "labels", "templates", "guidelines")


def run_sql(corpus: Corpus, checks: Sequence[Check], progress: Progress | None) -> dict[str, Problems]:
    """What each check found, by its name.

    Raises:
        DefinitionError: the SQL of a check cannot run; names the check.
        QueryError: a check ran out of time or memory.
    """
    found = {check.name: Problems() for check in checks}
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


def _connect(corpus: Corpus, needed: set[str]) -> LockedConnection:
    tables: dict[str, Any] = {name: schema.empty_table() for name, schema in OPTIONAL_TABLES.items()}
    tables |= corpus.tables()
    tables |= {name: tables[name].to_table() for name in _SMALL_TABLES}
    tables |= {"meanings": _meanings_table(), "texts": TEXTS.empty_table(), "pair_keys": _NO_PAIR_KEYS}
    setup = list(_SETUP)
    if "decided" in needed:
        setup.append(_DECIDED)
    if "noted" in needed:
        setup.append(_NOTED)
    if "measured" in needed:
        setup.append(_measured_sql(corpus, tables["measurements"].schema.names))
    n_pairs = sum(corpus.split_rows.values())
    memory_mb = max(_MEMORY_MB, n_pairs * _BYTES_PER_PAIR >> 20)
    return LockedConnection(tables, setup=setup, memory_limit=f"{memory_mb}MB", timeout_s=_TIMEOUT_S, threads=2)


def _connect_alone() -> LockedConnection:
    """A second connection for checks that need nothing but the pairs: it works beside the first."""
    return LockedConnection(
        {"pairs": PAIRS.empty_table(), "texts": TEXTS.empty_table()},
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
    for batch in pair_batches(corpus, ["evidence"]):
        found = pc.unique(pc.struct_field(pc.list_flatten(batch.column("evidence")), "name")).to_pylist()
        names.update(name.removesuffix(" (first)").removesuffix(" (second)") for name in found if name is not None)
    return names


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
    found: Mapping[str, Problems],
) -> None:
    for name, table in tables.items():
        connection.register(name, table)
    for check in checks:
        _apply(check, connection, totals[check.name], found[check.name])


def _apply(check: Check, connection: LockedConnection, total: str, found: Problems) -> None:
    try:
        n_bad = connection.select(f"SELECT {total} AS n FROM (\n{check.sql}\n)")["n"][0].as_py()
        wanted = min(N_EXAMPLES - len(found.examples), n_bad)
        if wanted > 0:
            rows = connection.select(f"SELECT * FROM (\n{check.sql}\n) ORDER BY ALL LIMIT {wanted}")
            found.examples += rows.to_pylist()
    except QueryError as error:
        raise QueryError(f"check {check.name}: {error}") from error
    found.n += n_bad
