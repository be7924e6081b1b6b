"""SQL of users, templates and guidelines reaches the given tables and nothing else."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import QueryError

TABLE = pa.table({"ecg_id": ["a:1", "a:2"], "value": [1.0, 2.0]})


@pytest.fixture
def connection() -> LockedConnection:
    return LockedConnection({"facts": TABLE}, timeout_s=2.0, memory_limit="256MB")


def test_a_select_over_the_given_tables_is_answered(connection: LockedConnection) -> None:
    assert connection.select("SELECT sum(value) AS total FROM facts").to_pylist() == [{"total": 3.0}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('/tmp/x.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM TABLE_OF_THE_TEST",
        "COPY facts TO '/tmp/stolen.parquet'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "CREATE TABLE mine AS SELECT 1",
        "DROP VIEW facts",
        "INSERT INTO facts VALUES ('x', 1)",
        "UPDATE facts SET value = 0",
        "DELETE FROM facts",
        "CALL pragma_version()",
        "EXPORT DATABASE '/tmp/stolen'",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW facts",
        "EXPLAIN ANALYZE SELECT 1",
        "",
        "-- only a comment",
        "this is no SQL",
        "SELECT missing_column FROM facts",
    ],
)
def test_everything_but_one_select_is_refused(connection: LockedConnection, sql: str) -> None:
    table_of_the_test = TABLE  # a Python variable SQL must not see
    assert table_of_the_test.num_rows == 2
    with pytest.raises(QueryError):
        connection.select(sql)


def test_what_is_asked_again_is_refused_in_the_same_way(connection: LockedConnection) -> None:
    for sql in (
        "SELECT 1; DROP VIEW facts",
        "DELETE FROM facts",
        "SELECT 1) TO '/tmp/stolen.csv'",
        "SELECT missing FROM facts",
    ):
        with pytest.raises(QueryError):
            connection.select(sql, again=True)


def test_a_plan_is_used_again_for_what_is_in_its_tables_then() -> None:
    with LockedConnection({}) as connection:
        with connection.lent({"given": TABLE[:0]}):
            connection.create("kept", "FROM given")
            connection.create("doubled", "SELECT ecg_id, 2 * value AS value FROM kept")
        for rows in (TABLE, TABLE[1:], TABLE[:0]):
            with connection.lent({"given": rows}), connection.scratch():
                connection.insert("kept", "SELECT value, ecg_id FROM given")
                connection.insert("doubled", "SELECT ecg_id, 2 * value AS value FROM kept", again=True)
                found = connection.select("SELECT value FROM doubled ORDER BY ecg_id", again=True)
            assert found["value"].to_pylist() == [2 * value for value in rows["value"].to_pylist()]
            assert not connection.select("FROM kept", again=True).num_rows, "nothing is left behind"
        with pytest.raises(QueryError, match="given"):
            connection.select("FROM given")
        with connection.lent({"given": TABLE}), pytest.raises(QueryError, match=r"cannot name \['given'\]"):
            connection.select("FROM given", again=True)


def test_nothing_was_written_outside(connection: LockedConnection, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with pytest.raises(QueryError):
        connection.select(f"COPY facts TO '{target}'")
    assert not target.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(100000000000) a, range(1000) b",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    ],
)
def test_a_query_that_never_ends_is_stopped(connection: LockedConnection, sql: str) -> None:
    started = time.perf_counter()
    with pytest.raises(QueryError, match="longer than 2 s"):
        connection.select(sql)
    assert time.perf_counter() - started < 30


def test_a_query_over_its_memory_is_stopped(connection: LockedConnection) -> None:
    with pytest.raises(QueryError, match=r"(?i)memory"):
        connection.select("SELECT a.range, list(b.range) FROM range(3000) a, range(300000) b GROUP BY 1 ORDER BY 2")


def test_stable_hash_never_changes(connection: LockedConnection) -> None:
    low_half_of_md5 = int.from_bytes(hashlib.md5(b"ptbxl:1").digest()[8:], "little")
    assert connection.select("SELECT stable_hash('ptbxl:1') AS h").to_pylist() == [{"h": low_half_of_md5}]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.349, "mV", "0.35 mV"),
        (212.4, "ms", "212 ms"),
        (-47.0, "°", "-47°"),
        (-0.2, "°", "0°"),
        (72, "/min", "72/min"),
    ],
)
def test_quantities_read_as_clinicians_write_them(
    connection: LockedConnection, value: float, unit: str, text: str
) -> None:
    assert connection.select(f"SELECT quantity({value}, '{unit}') AS t").to_pylist() == [{"t": text}]


@pytest.mark.parametrize(
    ("value", "other", "unit", "text"),
    [
        (410.5, 385.0, "ms", "25 ms"),  # 410 ms and 385 ms
        (0.125, -0.1, "mV", "0.22 mV"),  # 0.12 mV and -0.10 mV
        (-44.6, 45.0, "°", "90°"),
        (99.6, 60.4, "/min", "40/min"),
    ],
)
def test_a_distance_is_that_of_the_numbers_printed(
    connection: LockedConnection, value: float, other: float, unit: str, text: str
) -> None:
    assert connection.select(f"SELECT distance({value}, {other}, '{unit}') AS t").to_pylist() == [{"t": text}]


def test_and_join_reads_as_english(connection: LockedConnection) -> None:
    row = connection.select("SELECT and_join(['a']) a, and_join(['a','b']) b, and_join(['a','b','c']) c").to_pylist()
    assert row == [{"a": "a", "b": "a and b", "c": "a, b and c"}]


def test_a_disagreement_names_what_it_is_about(connection: LockedConnection) -> None:
    two = "[{'name': 'long PR', 'text': 'PR 190 ms'}, {'name': 'wide QRS', 'text': 'QRS 100 ms'}]"
    row = connection.select(f"SELECT disagreement({two}) two, disagreement(list_filter({two}, lambda x: false)) none")
    assert row.to_pylist() == [
        {"two": "the measurements disagree on long PR and wide QRS: PR 190 ms; QRS 100 ms", "none": None}
    ]


def test_our_own_setup_leaves_nothing_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    setup = ["CREATE TABLE big AS SELECT r, hash(r)::VARCHAR AS text FROM range(3000000) t(r) ORDER BY hash(r)"]
    with pytest.raises(duckdb.OutOfMemoryException):
        LockedConnection({}, setup=setup, memory_limit="40MB")
    assert list(tmp_path.iterdir()) == []


def test_no_progress_bar_is_drawn_on_stdout(connection: LockedConnection) -> None:
    answer = connection.select("SELECT current_setting('enable_progress_bar') AS drawn")
    assert answer.to_pylist() == [{"drawn": False}]


def test_an_answer_comes_in_parts(connection: LockedConnection) -> None:
    sql = "SELECT number, number % 7 AS rest FROM range(10000) AS numbers(number)"
    parts = list(connection.batches(sql, 2048))
    assert len(parts) == 5
    assert pa.concat_tables(parts).combine_chunks() == connection.select(sql).combine_chunks()
    (empty,) = connection.batches(f"{sql} WHERE number < 0", 2048)
    assert (empty.num_rows, empty.column_names) == (0, ["number", "rest"])


def test_what_is_done_with_a_part_takes_nothing_of_the_querys_time() -> None:
    with LockedConnection({}, timeout_s=0.5) as connection:
        sizes = []
        for part in connection.batches("SELECT number FROM range(10000) AS numbers(number)", 2048):
            time.sleep(0.2)
            sizes.append(part.num_rows)
    assert sum(sizes) == 10_000
    assert len(sizes) * 0.2 > 0.5


LATE = "SELECT CASE WHEN number > 9000 THEN {} ELSE 0 END AS found FROM range(1000000000) AS numbers(number)"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1; SELECT 2", "exactly one SELECT"),
        ("SELECT missing FROM facts", "missing"),
        (LATE.format("error('too late')"), "too late"),
        ("SELECT number FROM range(100000000000) AS numbers(number) WHERE number < 9000", "ran longer than"),
    ],
)
def test_what_fails_after_the_first_part_is_told_like_any_other(
    connection: LockedConnection, sql: str, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        for _ in connection.batches(sql, 2048):
            pass
