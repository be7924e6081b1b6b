"""Asking a model: in batches, each answer checked and written down before the next, failures named and kept apart."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ecglm.bench.adapters import AnswerFailure, Asker, Given
from ecglm.bench.journal import Journal
from ecglm.bench.protocol import Item
from ecglm.synth.errors import ModelError


@dataclass
class Limits:
    """How much may go wrong before a run stops."""

    max_failures: int = 0
    failures: int = 0


def ask_all(
    asker: Asker,
    batches: Iterable[list[Item]],
    keys: Mapping[str, str],
    journal: Journal,
    limits: Limits,
    step: Callable[[int], object],
) -> None:
    """Asks every item once and writes the answers to the journal.

    A batch that fails keeps the answers it gave; the rest of it is asked again item by item, so that only the culprit
    fails.

    Raises:
        ModelError: more failures than the limits allow; everything answered before is in the journal.
    """
    for batch in batches:
        open_items = {item.id: item for item in batch}
        failure = _ask(asker, batch, open_items, keys, journal)
        if failure is not None and len(batch) == 1:
            _record(batch[0], failure, keys, journal, limits)
        elif failure is not None:
            for item in list(open_items.values()):
                again = _ask(asker, [item], {item.id: item}, keys, journal)
                if again is not None:
                    _record(item, again, keys, journal, limits)
        step(len(batch))


def _ask(
    asker: Asker, batch: Sequence[Item], open_items: dict[str, Item], keys: Mapping[str, str], journal: Journal
) -> AnswerFailure | None:
    """Asks a batch; takes what is answered out of `open_items`, and gives what went wrong, if anything did."""
    last = time.perf_counter()
    try:
        for group in asker.ask(batch):
            now = time.perf_counter()
            good, problem = _checked(group, open_items)
            if good:
                journal.add([keys[answer.id] for answer in good], good, (now - last) / len(group))
            if problem:
                raise AnswerFailure("error", problem)
            last = now
    except AnswerFailure as failure:
        return failure
    if open_items:
        missing = ", ".join(list(open_items)[:3])
        return AnswerFailure("error", f"gave no answer to {len(open_items)} of {len(batch)} items ({missing} …)")
    return None


def _checked(group: Sequence[Given], open_items: dict[str, Item]) -> tuple[list[Given], str | None]:
    """The answers that keep to the protocol, and the first problem with one that does not."""
    good: list[Given] = []
    for answer in group:
        item = open_items.get(answer.id)
        problem = "its id is not among those of the batch, or it was answered before" if item is None else None
        problem = problem or _problem(answer, open_items[answer.id])
        if problem:
            return good, f"answer to item {answer.id[:80]}: {problem}"
        good.append(answer)
        del open_items[answer.id]
    return good, None


def _problem(answer: Given, item: Item) -> str | None:
    if answer.text is None and answer.scores is None:
        return "neither text nor scores; give at least one"
    if answer.scores is None:
        return None
    if not item.options:
        return f"{len(answer.scores)} scores, but a number was asked for; answer with a text"
    if len(answer.scores) != len(item.options):
        return f"{len(answer.scores)} scores for {len(item.options)} options; give one per option, in their order"
    for option, score in zip(item.options, answer.scores, strict=True):
        if not math.isfinite(score) or not 0 <= score <= 1:
            return f"the score of {option!r} is {score:g}; expected a probability from 0 to 1"
    if item.options == ("yes", "no") and not sum(answer.scores):
        return "both scores are 0; at least one must be above"
    return None


def _record(item: Item, failure: AnswerFailure, keys: Mapping[str, str], journal: Journal, limits: Limits) -> None:
    journal.add_failure(keys[item.id], failure.status, failure.detail, 0.0)
    limits.failures += 1
    if limits.failures > limits.max_failures:
        ecgs = " and ".join(recording.ecg_id for recording in item.recordings)
        raise ModelError(
            f"{ecgs}, question {item.question!r} (item {item.id}): {failure.detail}. Everything answered before is"
            " kept: mend what failed and run the same command to go on (a model whose file changes is another model,"
            " unless it declares a fingerprint), or allow some questions to fail, counted as wrong, with"
            f" --max-failures {max(10, 2 * limits.max_failures)}"
        )


def batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Batches of at most `size` items; neighbours about one ECG stay together unless they are more than that."""
    batch: list[Item] = []
    for _, group in itertools.groupby(items, key=lambda item: item.ecg_id):
        about_one = list(group)
        if batch and len(batch) + len(about_one) > size >= len(about_one):
            yield batch
            batch = []
        for item in about_one:
            if len(batch) == size:
                yield batch
                batch = []
            batch.append(item)
    if batch:
        yield batch
