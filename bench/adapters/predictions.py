"""Answers made elsewhere, in a table: Parquet, CSV or JSON Lines. Every problem of the file is named before a score is.

What a row is about is said by one of these:

- `question_id`, as in a run's answers.parquet;
- `ecg_id` with one column per class, holding scores (statement tasks);
- `ecg_id` and `code`, with `score`, `answer` or both (statement tasks);
- `sample_id`, with `answer`, `scores` or both (ECG-QA);
- `ecg_id` and `reading`, with `answer` (measurement reading).
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ecglm.bench.protocol import YES_NO, Answer, Item
from ecglm.bench.questions import Questions
from ecglm.bench.task import NumbersTask, StatementsTask
from ecglm.synth.errors import PredictionError

ABOUT_COLUMNS = ("patient_id", "strat_fold", "dataset_version")
_SHOWN = 3


class Predictions:
    """A model that is a table."""

    batch_size = 20_000
    reads_signals = False
    ask = "statement"
    trained_on = None

    def __init__(self, path: Path, options: dict[str, str]) -> None:
        if options:
            raise PredictionError(f"predictions:{path}: takes no options, found {', '.join(sorted(options))}")
        self.path = path
        self.table = read_table(path)
        self.name = path.stem
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self.thresholds = True
        self._answers: dict[str, tuple[str | None, list[float] | None]] = {}

    def prepare(self, questions: Sequence[Questions]) -> None:
        """Finds the answer to every question.

        Raises:
            PredictionError: all that is wrong with the table, a line for each kind of problem.
        """
        problems = _Problems(self.path)
        table, keys = _rows(self.table, questions, problems)
        problems.stop()
        _check_version(self.table, questions, problems)
        _check_values(table, keys, questions, problems)
        given = {tuple(row[: len(keys)]): row[len(keys) :] for row in _plain(table, keys)}
        answered_roles = set()
        missing: dict[str, list[str]] = {"test": [], "threshold": []}
        torn = []
        for each in questions:
            for question_id, role, key, words in _wanted(each, keys):
                if key in given:
                    if self._answers.setdefault(question_id, given[key]) != given[key]:
                        torn.append(words)
                    answered_roles.add(role)
                else:
                    missing[role].append(words)
        if missing["test"]:
            problems.add(f"no row for {len(missing['test'])} test questions", missing["test"], "add them")
        if torn:
            what = f"{len(torn)} rows answer a question about an ECG in another way than a row for the same question"
            problems.add(what, torn, "it is asked once, so give both the same answer")
        if missing["threshold"] and "threshold" in answered_roles:
            what = f"no row for {len(missing['threshold'])} questions of the threshold folds"
            problems.add(what, missing["threshold"], "add them, or leave those folds out altogether")
        self.thresholds = "threshold" in answered_roles
        problems.stop()

    def answer(self, batch: Sequence[Item], /) -> Iterator[Answer]:
        """The rows of these questions."""
        for item in batch:
            text, scores = self._answers[item.id]
            if scores is not None and item.options == YES_NO and len(scores) == 1:
                scores = [scores[0], 1.0 - scores[0]]
            yield Answer(item.id, text, scores)


class _Problems:
    """Collects what is wrong, to be raised together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def add(self, what: str, examples: Sequence[Any], remedy: str) -> None:
        shown = ", ".join(str(example) for example in examples[:_SHOWN])
        self.lines.append(
            f"{self.path}: {what}" + (f" ({shown}{' …' * (len(examples) > _SHOWN)})" * bool(shown)) + f"; {remedy}"
        )

    def stop(self) -> None:
        """Raises what was found."""
        if self.lines:
            raise PredictionError("\n".join(self.lines))


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet, CSV or JSON Lines file.

    Raises:
        PredictionError: not there, of another kind, empty or damaged.
    """
    readers: dict[str, Any] = {
        ".parquet": pl.read_parquet,
        ".csv": lambda file: pl.read_csv(file, infer_schema_length=None),
        ".jsonl": lambda file: pl.read_ndjson(file, infer_schema_length=None),
    }
    if path.suffix not in readers:
        raise PredictionError(f"{path}: expected a file that ends in {', '.join(readers)}")
    if not path.is_file():
        raise PredictionError(f"{path}: no such file; give predictions:FILE")
    try:
        table: pl.DataFrame = readers[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PredictionError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from error
    if table.is_empty():
        raise PredictionError(f"{path}: holds no rows; write one per question")
    return table


def _check_version(table: pl.DataFrame, questions: Sequence[Questions], problems: _Problems) -> None:
    if "dataset_version" not in table.columns:
        return
    found = table["dataset_version"].cast(pl.String).unique().to_list()
    expected = {str(each.about["source"]["version"]) for each in questions}
    if set(found) != expected:
        what = (
            f"dataset_version is {', '.join(map(str, found))}, the data here is version {', '.join(sorted(expected))}"
        )
        problems.add(what, [], "predict on the same version of the dataset")


def _classes(questions: Sequence[Questions]) -> list[str]:
    return [
        str(row["class"])
        for each in questions
        if isinstance(each.loaded.task, StatementsTask)
        for row in each.about["classes"]
    ]


def _rows(
    table: pl.DataFrame, questions: Sequence[Questions], problems: _Problems
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table with one row per question, and the columns that say which question."""
    names = table.columns
    if "question_id" in names:
        keys: tuple[str, ...] = ("question_id",)
    elif "sample_id" in names:
        keys = ("sample_id",)
    elif "ecg_id" in names and "reading" in names:
        keys = ("ecg_id", "reading")
    elif "ecg_id" in names and "code" in names:
        keys = ("ecg_id", "code")
    elif "ecg_id" in names:
        return _long(table, questions, problems), ("ecg_id", "code")
    else:
        problems.add(f"columns are {', '.join(names[:8])}", [], "expected question_id, sample_id or ecg_id among them")
        return table, ()
    if not {"answer", "score", "scores"} & set(names):
        problems.add(f"columns are {', '.join(names[:8])}", [], "expected answer, score or scores among them")
    return table, keys


def _long(table: pl.DataFrame, questions: Sequence[Questions], problems: _Problems) -> pl.DataFrame:
    """A table with one column per class, turned into one row per (ECG, class)."""
    classes = list(dict.fromkeys(_classes(questions)))
    columns = [name for name in table.columns if name != "ecg_id" and name not in ABOUT_COLUMNS]
    unknown = [name for name in columns if name not in classes]
    absent = [name for name in classes if name not in columns]
    if unknown:
        near = [match for name in unknown[:_SHOWN] for match in difflib.get_close_matches(name, absent, 1)]
        hint = f"did you mean {', '.join(near)}?" if near else "name each column by the class whose scores it holds"
        problems.add(f"{len(unknown)} columns are no class of the task", unknown, hint)
    if absent:
        problems.add(f"no column for {len(absent)} of {len(classes)} classes", absent, "add them, named by their class")
    wrong = [name for name in columns if name in classes and not table[name].dtype.is_numeric()]
    if wrong:
        problems.add("scores that are no numbers", wrong, "write numbers from 0 to 1")
    if problems.lines:
        return table
    values = table.with_columns(pl.col(classes).cast(pl.Float64))
    return values.unpivot(on=classes, index="ecg_id", variable_name="code", value_name="score")


def _check_values(
    table: pl.DataFrame, keys: tuple[str, ...], questions: Sequence[Questions], problems: _Problems
) -> None:
    for name in keys:
        if table[name].null_count():
            problems.add(f"{table[name].null_count()} rows without {name}", [], "say what each row is about")
    if "ecg_id" in keys:
        known = questions[0].known_ecgs
        ids = _ecg_ids(table["ecg_id"], questions).unique(maintain_order=True)
        unknown = [ecg_id for ecg_id in ids.to_list() if ecg_id not in known]
        if unknown:
            what = f"{len(unknown)} ECG ids that are not in {questions[0].about['source']['name']} "
            problems.add(what + str(questions[0].about["source"]["version"]), unknown, "use the ids of this version")
    doubled = table.filter(pl.struct(keys).is_duplicated()).select(keys).unique(maintain_order=True)
    if doubled.height:
        examples = [" ".join(map(str, row)) for row in doubled.head(_SHOWN + 1).iter_rows()]
        problems.add(f"{doubled.height} questions have more than one row", examples, "keep one row for each")
    for column in ("score", "scores"):
        if column not in table.columns:
            continue
        flat = table.select(*keys, pl.col(column).alias("value"))
        try:
            flat = flat.explode("value") if isinstance(flat["value"].dtype, pl.List) else flat
            flat = flat.with_columns(pl.col("value").cast(pl.Float64))
        except pl.exceptions.PolarsError:
            problems.add(f"column {column} holds {table[column].dtype}", [], "write numbers from 0 to 1")
            problems.stop()  # no value can be read
        for what, bad in (
            ("NaN or infinite", pl.col("value").is_not_null() & ~pl.col("value").is_finite()),
            ("outside [0, 1]", pl.col("value").is_finite() & ~pl.col("value").is_between(0, 1)),
        ):
            rows = flat.filter(bad)
            examples = [" ".join(map(str, row)) for row in rows.head(_SHOWN + 1).iter_rows()]
            if rows.height:
                remedy = "pass logits through a sigmoid" if "outside" in what else "predict every question"
                problems.add(f"{rows.height} scores are {what}", examples, remedy)
        if column == "score" and table[column].null_count() and "answer" not in table.columns:
            empty = table.filter(pl.col(column).is_null()).select(keys)
            examples = [" ".join(map(str, row)) for row in empty.head(_SHOWN + 1).iter_rows()]
            problems.add(f"{empty.height} scores are empty", examples, "predict every question")


def _ecg_ids(ids: pl.Series, questions: Sequence[Questions]) -> pl.Series:
    """Ids as the tables have them, `source:native_id`, from whole numbers too."""
    texts = ids.cast(pl.String)
    source = questions[0].about["source"]["name"]
    whole = texts.str.contains(":", literal=True)
    return texts.to_frame("id").select(
        pl.when(whole).then("id").otherwise(pl.format(f"{source}:{{}}", "id")).alias(ids.name)
    )[ids.name]


def _plain(table: pl.DataFrame, keys: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Rows of the key columns as text, then the text and the scores of the answer."""
    columns = [pl.col(key).cast(pl.String) for key in keys]
    text = pl.col("answer").cast(pl.String) if "answer" in table.columns else pl.lit(None, pl.String)
    if "scores" in table.columns:
        scores = pl.col("scores").cast(pl.List(pl.Float64))
    elif "score" in table.columns:
        score = pl.col("score").cast(pl.Float64)
        scores = pl.when(score.is_not_null()).then(pl.concat_list(score))
    else:
        scores = pl.lit(None, pl.List(pl.Float64))
    for row in table.select(*columns, text.alias("answer"), scores.alias("all scores")).iter_rows():
        yield (
            *(part.rpartition(":")[2] if key == "ecg_id" else part for key, part in zip(keys, row, strict=False)),
            *row[len(keys) :],
        )


def _wanted(questions: Questions, keys: tuple[str, ...]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Question, role, the key its row has, and words for it."""
    asked = questions.asked
    if keys == ("question_id",):
        for question_id, role in asked.select("question_id", "role").iter_rows():
            yield question_id, role, (question_id,), question_id
    elif keys == ("sample_id",) and "sample_id" in questions.truth.columns:
        for sample_id, question_id in questions.truth.select("sample_id", "question_id").iter_rows():
            yield question_id, "test", (str(sample_id),), f"sample {sample_id}"
    elif keys == ("ecg_id", "reading") and isinstance(questions.loaded.task, NumbersTask):
        readings = dict(questions.truth.select("question_id", "reading").iter_rows())
        for question_id, ecg_ids in asked.select("question_id", "ecg_ids").iter_rows():
            native = ecg_ids[0].rpartition(":")[2]
            yield question_id, "test", (native, readings[question_id]), f"{ecg_ids[0]} {readings[question_id]}"
    elif keys == ("ecg_id", "code") and isinstance(questions.loaded.task, StatementsTask):
        for question_id, role, ecg_ids, codes in asked.select("question_id", "role", "ecg_ids", "codes").iter_rows():
            yield question_id, role, (ecg_ids[0].rpartition(":")[2], codes[0]), f"{ecg_ids[0]} {codes[0]}"
    else:
        raise PredictionError(
            f"predictions keyed by {' and '.join(keys)} cannot answer {questions.id}; see the shapes in docs/bench.md"
        )
