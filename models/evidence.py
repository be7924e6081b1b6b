"""The measured evidence behind an answer: what the waveform measures, and what the guidelines' criteria make of it.

Nothing here comes from the model: values are those of `synth.measure`, limits and citations those of the guidelines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from ecglm.models.recording import Patient, Recording
from ecglm.models.wording import names_pattern
from ecglm.synth.criteria import format_quantity
from ecglm.synth.errors import SignalError
from ecglm.synth.evidence_texts import in_words
from ecglm.synth.facts import decide_ecgs, merge_measurements
from ecglm.synth.guidelines import GuidelineSet, load_guidelines
from ecglm.synth.measure import measure_record
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import ECGS

SHOWN = (
    "HR__Global",
    "RR_StdDev_Global",
    "P_Found_Global",
    "PR_Int_Global",
    "P_Dur_Global",
    "QRS_Dur_Global",
    "QT_Int_Global",
    "QT_IntBazett_Global",
    "QRS_AxisFront_Global",
    "T_AxisFront_Global",
    "Ectopic_Count_Global",
    "Pacing_Found_Global",
)
"""Measurements of the whole recording that are told with every answer."""
GRADES = {3: "good", 2: "fair", 1: "poor"}
_GRADE_OF = {"P": "P_Quality_Global", "QRS": "QRS_Quality_Global", "QT": "T_Quality_Global", "T": "T_Quality_Global"}
_ADULT_AGES = (30.0, 60.0)
"""Where the age is not known, what holds at both is taken to hold of an adult."""


@dataclass(frozen=True)
class Value:
    """One measurement."""

    name: str
    words: str
    value: float
    unit: str
    grade: str | None
    """good, fair or poor; None where the measurement has no grade."""
    text: str


@dataclass(frozen=True)
class Ruling:
    """One criterion of a guideline, decided by the measurements."""

    criterion: str
    role: str
    """defining or supporting."""
    text: str
    verdict: str
    """met, not_met or not_assessable."""
    evidence: list[dict[str, Any]]
    """The values compared: name, value, unit, limit."""
    evidence_text: str | None
    citation: str
    reference: str


@dataclass(frozen=True)
class StatementEvidence:
    """What the measurements say of one statement."""

    code: str
    name: str
    criteria: list[Ruling]
    no_criteria: str | None
    """Why no measurement decides it."""

    @property
    def support(self) -> str:
        """contradicted (a defining criterion is not met), met, not_met, or not_assessable."""
        verdicts = {(each.role, each.verdict) for each in self.criteria}
        if ("defining", "not_met") in verdicts:
            return "contradicted"
        told = {verdict for _, verdict in verdicts} - {"not_assessable"}
        return "met" if "met" in told else "not_met" if told else "not_assessable"


@dataclass(frozen=True)
class Measured:
    """A recording's measurements."""

    columns: dict[str, float]
    """All that `measure_record` gives; empty where the recording cannot be measured."""
    problems: list[str]

    @property
    def shown(self) -> list[Value]:
        """Those that are told with every answer."""
        return [_value(name, self.columns) for name in SHOWN if not math.isnan(self.columns.get(name, math.nan))]


def measure(recording: Recording) -> Measured:
    """Measures a recording; what cannot be measured is told, never raised."""
    hz = round(recording.sampling_hz)
    if hz != recording.sampling_hz:
        return Measured({}, [f"not measured: {recording.sampling_hz:g} samples per second is no whole number"])
    try:
        columns, problems = measure_record(recording.signal, recording.leads, hz)
    except SignalError as error:
        return Measured({}, [f"not measured: {error}"])
    return Measured(columns, [f"{reason.replace('_', ' ')}: {detail}" for reason, detail in problems])


def _value(name: str, columns: dict[str, float]) -> Value:
    known, value = measurements()[name], columns[name]
    wave = name.split("_")[0]
    grade = columns.get(_GRADE_OF.get("P" if wave == "PR" else wave, "Rhythm_Quality_Global"), math.nan)
    if known.none_found is not None:
        text = known.words if value > 0 else known.none_found
    elif known.unit == "beats":
        text = f"{known.words} {value:.0f}"
    else:
        text = f"{known.words} {format_quantity(value, known.unit)}"
    return Value(name, known.words, value, known.unit, None if math.isnan(grade) else GRADES[round(grade)], text)


def judge(measured: Measured, codes: Sequence[str], patient: Patient) -> list[StatementEvidence]:
    """The criteria of these statements, decided by the measurements; without an age, as for an adult of any age."""
    everything = load_guidelines(check_sql=False)
    chosen = {code: everything.by_code[code] for code in codes if code in everything.by_code}
    if not chosen:
        return []
    guidelines = GuidelineSet(
        chosen, everything.categories, everything.texts, everything.sources, everything.sources_text
    )
    rulings = _decided(measured, guidelines, patient) if any(each.rules for each in chosen.values()) else {}
    return [
        StatementEvidence(
            code=code,
            name=guideline.name,
            criteria=[
                Ruling(
                    criterion=rule.id,
                    role=rule.role,
                    text=rule.text,
                    citation=everything.citation(rule.cite),
                    reference=everything.reference(rule.cite),
                    **rulings[code, rule.id],
                )
                for rule in guideline.rules
            ],
            no_criteria=None if guideline.no_criteria is None else guideline.no_criteria.reason,
        )
        for code, guideline in chosen.items()
    ]


def _decided(measured: Measured, guidelines: GuidelineSet, patient: Patient) -> dict[tuple[str, str], dict[str, Any]]:
    ages = _ADULT_AGES if patient.age_years is None else (patient.age_years,)
    places = [f"asked:{number}" for number in range(len(ages))]
    columns: dict[str, Any] = {field.name: [None] * len(ages) for field in ECGS}
    columns |= {"ecg_id": places, "age_years": ages, "sex": [patient.sex] * len(ages)}
    known = {name: [None if math.isnan(value) else value] * len(ages) for name, value in measured.columns.items()}
    merged = merge_measurements(
        pa.table(columns, schema=ECGS),
        [("measured", pa.table({"ecg_id": places, **known}))],
        pa.array(range(len(ages)), pa.int64()),
    )
    decided = decide_ecgs(merged, guidelines)
    texts = {
        (row["ecg_id"], row["code"], row["criterion"]): row["evidence_text"]
        for row in in_words(decided, decided.assessed).to_pylist()
    }
    rulings: dict[tuple[str, str], dict[str, Any]] = {}
    for row in decided.findings.to_pylist():
        key = row["code"], row["criterion"]
        ruling = rulings.setdefault(
            key,
            {
                "verdict": row["verdict"],
                "evidence": row["evidence"],
                "evidence_text": texts.get((row["ecg_id"], *key)),
            },
        )
        if ruling["verdict"] != row["verdict"]:  # it depends on the age
            ruling |= {"verdict": "not_assessable", "evidence_text": None}
    return rulings


# ------------------------------------------------------------------------------------------------------ what is named


def named_statements(text: str) -> list[str]:
    """Codes of the statements a text names by name, phrase, English synonym or code, in order; longer names first."""
    words, letters = _names()
    found: dict[str, int] = {}
    taken: list[tuple[int, int]] = []
    for pattern, codes in (words, letters):
        for match in pattern.finditer(text):
            if not any(start < match.end() and match.start() < end for start, end in taken):
                taken.append(match.span())
                found.setdefault(codes[match[0] if codes is letters[1] else match[0].lower()], match.start())
    return sorted(found, key=found.__getitem__)


@cache
def _names() -> tuple[tuple[re.Pattern[str], dict[str, str]], tuple[re.Pattern[str], dict[str, str]]]:
    """Names in any case, and abbreviations and codes, which are read as they are written: each a pattern and codes."""
    words: dict[str, str] = {}
    letters: dict[str, str] = {}
    by_code = load_guidelines(check_sql=False).by_code
    for code, guideline in by_code.items():  # own names first: a synonym of one may be the name of another
        for name in (guideline.name, re.sub(r"^(?:an?|the) ", "", guideline.phrase)):
            words.setdefault(name.lower(), code)
        letters.setdefault(code, code)
    for code, guideline in by_code.items():
        for name in guideline.synonyms.en:
            if name.isupper() and len(name) <= 6:
                letters.setdefault(name, code)
            else:
                words.setdefault(name.lower(), code)
    return (names_pattern(words, flags=re.IGNORECASE), words), (names_pattern(letters), letters)


def plain(statement: StatementEvidence) -> dict[str, Any]:
    """For JSON."""
    return {**asdict(statement), "support": statement.support}
