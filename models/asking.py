"""`ecglm ask`, `classify`, `chat`: answers of a model about one record, with the measured evidence beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ecglm.models.ecglm import ECGLM, YES_NO, Answered, Asked
from ecglm.models.evidence import Measured, judge, measure, named_statements, plain
from ecglm.models.recording import Recording
from ecglm.models.wording import statement_questions
from ecglm.synth.errors import ModelError
from ecglm.synth.guidelines import load_guidelines

if TYPE_CHECKING:
    import torch

NOT_CLINICAL = "Not for clinical use."
_YES_OR_NO = re.compile(
    r"^\W*(?:(?:so|and|but|well|now|then|here)\W+)?(?:does|do|did|is|are|was|were|can|could|has|have|should|would|will|any)"
    r"\b(?!.*\bor\b)",
    re.IGNORECASE | re.DOTALL,
)
NOT_SURE = "not sure"
LEAST_SURE = 0.6
"""Of an answer in sentences: the geometric mean over its tokens."""
_QUANTITY = re.compile(r"\d\s*(?:ms|mV|s|%|°|/min|bpm|beats)(?!\w)")
_TURNS_KEPT = 4
_VERDICTS = {"met": "met", "not_met": "not met", "not_assessable": "cannot be assessed"}


def asks_yes_or_no(question: str) -> bool:
    """Whether a question can be answered by yes or no, as far as its first word says; "is it A or B?" cannot."""
    return _YES_OR_NO.match(question.strip()) is not None


def ask(model: ECGLM, recording: Recording, question: str, options: Sequence[str] | None = None) -> dict[str, Any]:
    """Answer, probability and evidence, as plain data.

    Raises:
        ModelError: a recording or question that cannot be used; says why.
    """
    prepared = model.prepare(recording.signal, recording.leads, recording.sampling_hz)
    tokens = model.encode([prepared])
    chosen = tuple(options) if options else YES_NO if asks_yes_or_no(question) else ()
    answered = model.answer_all(tokens, [Asked((0,), question, chosen)])[0] if chosen else None
    answer, doubt = (answered, None) if answered is not None else in_words(model, tokens, question)
    measured = measure(recording)
    asked = named_statements(question)
    told = [code for code in named_statements(" ".join([answer.text, *(options or ())])) if code not in asked]
    return {
        "record": recording.name,
        "question": question,
        "answer": answer.text,
        "probability": round(answer.probability, 4),
        "options": [
            {"option": option, "probability": round(score, 4)}
            for option, score in zip(chosen, (answered.scores if answered else None) or (), strict=True)
        ],
        "measured": _measured(recording, measured),
        "statements": [plain(each) for each in judge(measured, [*asked, *told], recording.patient)],
        "patient": asdict(recording.patient),
        "notes": [*recording.notes, *prepared.notes, *([doubt] if doubt else []), *_unknown(recording, measured)],
        "model": _model(model),
        "warning": NOT_CLINICAL,
    }


def in_words(
    model: ECGLM, tokens: torch.Tensor, question: str, before: Sequence[tuple[str, str]] = ()
) -> tuple[Answered, str | None]:
    """An answer in sentences; and why it is not to be relied on, if it is not: then its text is "not sure"."""
    said = model.say(tokens, question, before)
    if _QUANTITY.search(said.text):
        return Answered(NOT_SURE, said.probability), f"left out, since values are measured and not guessed: {said.text}"
    if said.probability < LEAST_SURE:
        return Answered(NOT_SURE, said.probability), f"left out, since the model is not sure of it: {said.text}"
    return said, None


def classify(model: ECGLM, recording: Recording) -> dict[str, Any]:
    """The probability of every statement the model knows, by asking, the likeliest first."""
    prepared = model.prepare(recording.signal, recording.leads, recording.sampling_hz)
    found = model.classify(
        recording.signal, recording.leads, recording.sampling_hz, statement_questions(model.statements)
    )
    names = {code: guideline.name for code, guideline in load_guidelines(check_sql=False).by_code.items()}
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {
        "record": recording.name,
        "statements": [
            {"code": code, "name": names.get(code, code), "probability": round(probability, 4)}
            for code, probability in ranked
        ],
        "notes": [*recording.notes, *prepared.notes],
        "model": _model(model),
        "warning": NOT_CLINICAL,
    }


def chat(model: ECGLM, recording: Recording, lines: Iterable[str]) -> Iterator[str]:
    """An answer to each line, in the light of the turns before it; what cannot be answered is said, and goes on."""
    prepared = model.prepare(recording.signal, recording.leads, recording.sampling_hz)
    tokens = model.encode([prepared])
    before: list[tuple[str, str]] = []
    for line in lines:
        question = line.strip()
        if not question:
            continue
        if question.lower() in ("quit", "exit"):
            return
        try:
            if asks_yes_or_no(question):
                answer = model.answer_all(tokens, [Asked((0,), question, YES_NO)])[0]
                said, told = answer.text.capitalize(), f"{answer.text} (probability {answer.probability:.2f})"
            else:
                answer, doubt = in_words(model, tokens, question, before[-_TURNS_KEPT:])
                said, told = answer.text, answer.text + (f" ({doubt})" if doubt else "")
        except ModelError as error:
            yield f"({error})"
            continue
        before.append((question, said))
        yield told


def typed_lines() -> Iterator[str]:
    """Lines of stdin; with a prompt where somebody types them."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def _measured(recording: Recording, measured: Measured) -> dict[str, Any]:
    return {
        "seconds": round(recording.seconds, 3),
        "leads": list(recording.leads),
        "sampling_hz": recording.sampling_hz,
        "values": [asdict(value) for value in measured.shown],
        "problems": measured.problems,
    }


def _unknown(recording: Recording, measured: Measured) -> Iterator[str]:
    if measured.columns and recording.patient.age_years is None:
        yield "age not known: limits for adults are applied (give it with --age)"
    if measured.columns and recording.patient.sex is None:
        yield "sex not known: limits that depend on it are not assessed (give it with --sex)"


def _model(model: ECGLM) -> dict[str, Any]:
    return {"name": model.about["name"], "fingerprint": model.fingerprint}


# -------------------------------------------------------------------------------------------------------------- to read


def print_answer(told: dict[str, Any]) -> None:
    """An answer for people: what the model says, then what was measured."""
    print(f"{told['answer']}  (probability {told['probability']:.2f}, by model {told['model']['name']})")
    for row in sorted(told["options"], key=lambda row: -row["probability"]):
        print(f"  {row['probability']:.2f}  {row['option']}")
    measured = told["measured"]
    leads = measured["leads"]
    print(f"measured on {measured['seconds']:g} s, {len(leads)} lead{'s' * (len(leads) != 1)} ({', '.join(leads)})")
    for value in measured["values"]:
        print(f"  {value['text']}" + (f" [{value['grade']}]" if value["grade"] else ""))
    for problem in measured["problems"]:
        print(f"  {problem}")
    for statement in told["statements"]:
        print_statement(statement)
    for note in told["notes"]:
        print(f"note: {note}")
    print(told["warning"])


def print_statement(statement: dict[str, Any]) -> None:
    """What the criteria say of one statement, each with its source."""
    print(f"criteria for {statement['name']} ({statement['code']})")
    if statement["no_criteria"] is not None:
        print(f"  no measurement decides it: {statement['no_criteria']}")
    for row in statement["criteria"]:
        values = f": {row['evidence_text']}" if row["evidence_text"] else ""
        print(f"  {_VERDICTS[row['verdict']]} ({row['role']}): {row['text']}{values} [{row['citation']}]")


def print_classes(told: dict[str, Any]) -> None:
    """Statements for people, a line each."""
    for row in told["statements"]:
        print(f"{row['probability']:.3f}  {row['code']:12} {row['name']}")
    for note in told["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"by model {told['model']['name']}; {told['warning']}", file=sys.stderr)
