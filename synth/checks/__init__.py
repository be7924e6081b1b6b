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

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from ecglm.synth.checks.definitions import MEANINGS, Check, answer_meanings, load_checks
from ecglm.synth.checks.files import FILE_CHECKS, verify_files
from ecglm.synth.checks.pairs import Progress, pair_parts
from ecglm.synth.checks.queries import run_sql
from ecglm.synth.checks.results import CheckResult, print_results
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import DefinitionError, QueryError


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
        found = run_sql(corpus, checks, progress) if checks else {}
    except (OSError, pa.ArrowException, QueryError):
        if not damaged:
            raise
        return results  # files that cannot be read: their own checks have said so
    results += [
        CheckResult(check.name, check.description, check.severity, found[check.name].n, found[check.name].examples)
        for check in checks
    ]
    return results


__all__ = [
    "FILE_CHECKS",
    "MEANINGS",
    "Check",
    "CheckResult",
    "answer_meanings",
    "load_checks",
    "pair_parts",
    "print_results",
    "run_checks",
    "verify_files",
]
