"""The one kind of database connection on which SQL from guidelines, templates, checks and users runs."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from ecglm.synth.errors import QueryError

if TYPE_CHECKING:
    import pyarrow.dataset as ds

MACROS = (
    # The same 64 bits in every version of every library: choices made from it never move.
    "CREATE MACRO stable_hash(text) AS (md5_number(text) >> 64)::UBIGINT",
    # ['a', 'b', 'c'] -> 'a, b and c'
    "CREATE MACRO and_join(items) AS CASE WHEN len(items) = 0 THEN NULL WHEN len(items) = 1 THEN items[1]"
    " ELSE array_to_string(items[:-2], ', ') || ' and ' || items[-1] END",
    # `contradictions` of facts -> 'the measurements disagree on first-degree AV block: PR interval 192 ms (limit …)'
    "CREATE MACRO disagreement(items) AS 'the measurements disagree on '"
    " || and_join(list_transform(items, lambda item: item.name))"
    " || ': ' || array_to_string(list_transform(items, lambda item: item.text), '; ')",
    # 0.350 mV -> '0.35 mV', 212.0 ms -> '212 ms', -47.2 degrees -> '-47°', a count -> '11'
    "CREATE MACRO quantity(value, unit) AS CASE"
    " WHEN unit = 'mV' THEN printf('%.2f mV', CASE WHEN abs(value) < 0.005 THEN 0.0 ELSE value::DOUBLE END)"
    " WHEN unit = '°' THEN printf('%.0f°', round(value) + 0.0)"
    " WHEN unit = '/min' THEN printf('%.0f/min', value::DOUBLE)"
    " WHEN unit = '' THEN printf('%.3g', value::DOUBLE)"
    " ELSE printf('%.0f %s', value::DOUBLE, unit) END",
    # 24.6 ms from 410.4 to 385.0 -> '25 ms', as between the two numbers that `quantity` prints
    "CREATE MACRO printed(value, unit) AS regexp_extract(quantity(value, unit), '-?[0-9.]+')::DOUBLE",
    "CREATE MACRO distance(value, other, unit) AS quantity(abs(printed(value, unit) - printed(other, unit)), unit)",
)
"""Macros that guidelines, templates and checks may use; made before the connection is locked."""

PLAN_FAST = "SET disabled_optimizers = 'statistics_propagation,compressed_materialization'"
"""For many queries over few rows: these take longer to plan than they save; what is selected stays the same."""

_QUIET = (
    "SET temp_directory = ''",  # our own SQL must not leave files in the working directory either
    "SET enable_progress_bar = false",  # it goes to stdout, into what --json prints
)
"""Before anything else runs."""

_LOCK = (
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET preserve_insertion_order = true",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class LockedConnection:
    """An in-memory DuckDB that sees the given Arrow tables and nothing else: no files, no network, no settings.

    Args:
        tables: Arrow tables or datasets by name.
        setup: our own SQL (views, macros), run before the lock.
        memory_limit: DuckDB's limit, e.g. "512MB".
        timeout_s: after so many seconds a query is interrupted.
        threads: worker threads; one makes float sums the same every time.
    """

    def __init__(
        self,
        tables: Mapping[str, pa.Table | ds.Dataset],
        *,
        setup: Sequence[str] = (),
        memory_limit: str = "1GB",
        timeout_s: float = 300.0,
        threads: int = 1,
    ) -> None:
        self.timeout_s = timeout_s
        self._connection = duckdb.connect(":memory:", config={"threads": threads, "memory_limit": memory_limit})
        self._registered: set[str] = set()
        for name, table in tables.items():
            self.register(name, table)
        for statement in (*_QUIET, *MACROS, *setup, *_LOCK):
            self._connection.execute(statement)
        self._planned: dict[str, str] = {}

    def __enter__(self) -> LockedConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes it; for one that is not kept in a `with`."""
        self._connection.close()

    def register(self, name: str, table: pa.Table | ds.Dataset) -> None:
        """Adds or replaces a table of ours; SQL cannot do this itself."""
        self._connection.register(name, table)
        self._registered.add(name)

    def columns(self, sql: str) -> dict[str, str]:
        """Column names and DuckDB types a SELECT would return, without running it."""
        self.check(sql)
        with self._guarded():
            relation = self._connection.sql(sql)
            return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def select(self, sql: str, *, again: bool = False) -> pa.Table:
        """The whole answer of one SELECT.

        Args:
            sql: the SELECT.
            again: the same will be asked again, so it is planned once. It may only name tables that SQL of ours made:
                a plan goes on reading the table that was lent when it was made.

        Raises:
            QueryError: not exactly one SELECT, refused, failed, out of memory, or over the time limit.
        """
        self.check(sql)
        with self._guarded():
            return self._connection.sql(self._execute(sql) if again else sql).to_arrow_table()

    def batches(self, sql: str, rows: int) -> Generator[pa.Table, None, None]:
        """The answer of one SELECT in parts of so many rows, made one after the other; one without rows if it is empty.

        Raises:
            QueryError: as `select`, also where a later part fails.
        """
        self.check(sql)
        left_s = self.timeout_s
        reader: pa.RecordBatchReader | None = None
        n_parts = 0
        while True:
            started = time.perf_counter()
            with self._guarded(left_s):  # what is done with a part meanwhile takes nothing of the query's time
                try:
                    reader = reader or self._connection.sql(sql).to_arrow_reader(rows)
                    batch = next(reader, None)
                except OSError as error:  # so Arrow hands on what fails after the first part
                    kind = duckdb.InterruptException if "INTERRUPT" in str(error) else duckdb.Error
                    raise kind(str(error)) from error
            left_s -= time.perf_counter() - started
            if batch is None and n_parts:
                return
            yield pa.Table.from_batches([batch] if batch is not None else [], reader.schema)
            n_parts += 1

    def create(self, name: str, select: str) -> None:
        """Makes a table of a SELECT of ours."""
        with self._guarded():
            self._connection.execute(f"CREATE TABLE {name} AS {select}")

    def insert(self, name: str, select: str, *, again: bool = False) -> None:
        """Adds what a SELECT of ours gives to a table, by the names of its columns; `again` as for `select`."""
        sql = f"INSERT INTO {name} BY NAME {select}"
        with self._guarded():
            self._connection.execute(self._execute(sql) if again else sql)

    @contextlib.contextmanager
    def lent(self, tables: Mapping[str, pa.Table]) -> Iterator[None]:
        """Tables that are seen meanwhile."""
        for name, table in tables.items():
            self.register(name, table)
        try:
            yield
        finally:
            for name in tables:
                self._connection.unregister(name)
            self._registered -= tables.keys()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[None]:
        """What is inserted meanwhile is gone at the end, and its memory free."""
        self._connection.begin()
        try:
            yield
        finally:
            self._connection.rollback()

    def _execute(self, sql: str) -> str:
        """A statement that runs what is planned the first time it is asked for."""
        if sql not in self._planned:
            if lent := self._registered & set(re.findall(r"\w+", sql)):
                raise QueryError(f"what is planned once cannot name {sorted(lent)}, which changes; name another table")
            name = f"planned_{len(self._planned)}"
            self._connection.execute(f"PREPARE {name} AS {sql}")
            self._planned[sql] = name
        return f"EXECUTE {self._planned[sql]}"

    def check(self, sql: str) -> None:
        """Refuses anything but exactly one SELECT, without running it."""
        _check(sql)

    @contextlib.contextmanager
    def _guarded(self, limit_s: float | None = None) -> Iterator[None]:
        """Errors as told to users, and an end after so many seconds, or after those of the connection."""
        timer = threading.Timer(self.timeout_s if limit_s is None else limit_s, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        except duckdb.InterruptException as error:
            raise QueryError(
                f"the query ran longer than {self.timeout_s:g} s and was stopped; make it smaller"
            ) from error
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            raise QueryError(f"the query needs more memory than allowed: {_first_lines(error)}") from error
        except duckdb.PermissionException as error:
            raise QueryError(
                f"files, network and settings cannot be reached from SQL: {_first_lines(error)}"
            ) from error
        except (duckdb.Error, pa.ArrowException) as error:
            raise QueryError(_first_lines(error)) from error
        finally:
            timer.cancel()


@lru_cache(maxsize=1024)  # a build asks the same of every block
def _check(sql: str) -> None:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(f"SQL cannot be parsed: {_first_lines(error)}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        found = ", ".join(str(s.type).removeprefix("StatementType.") for s in statements) or "nothing"
        raise QueryError(f"exactly one SELECT is allowed, found {found}; write a single SELECT (or WITH … SELECT)")


def _first_lines(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])


def quote_identifier(name: str) -> str:
    """A column name as DuckDB wants it in SQL text of ours."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A string literal for SQL text of ours (never for text of a user)."""
    return "'" + text.replace("'", "''") + "'"
