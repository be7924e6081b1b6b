"""Guidelines as SQL and tables: what decides every criterion, and what templates may quote."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from ecglm.synth.criteria import finding_sql
from ecglm.synth.database import quote_text
from ecglm.synth.guidelines import GuidelineSet


def findings_sql(guidelines: GuidelineSet, measured: Collection[str], codes: Collection[str] | None = None) -> str:
    """One SELECT over `measured_ecgs` (ecgs and measurements) that decides criteria for every ECG.

    Args:
        guidelines: whose criteria are decided.
        measured: measurements with a value in at least one ECG; criteria on others alone are not assessable anywhere.
        codes: statements whose criteria are decided; all, if None.
    """
    parts = [
        finding_sql(code, rule)
        if not rule.measurements or rule.measurements & set(measured)
        else (
            f"SELECT ecg_id, {quote_text(code)} AS code, {quote_text(rule.id)} AS criterion,"
            f" {quote_text(rule.missing)} AS verdict, [] AS evidence, [] AS evidence_words FROM measured_ecgs"
        )
        for code, guideline in sorted(guidelines.by_code.items())
        if codes is None or code in codes
        for rule in guideline.rules
    ]
    if not parts:
        parts = [
            "SELECT ecg_id, '' AS code, '' AS criterion, '' AS verdict,"
            ' []::STRUCT(name VARCHAR, value DOUBLE, unit VARCHAR, "limit" VARCHAR)[] AS evidence,'
            " []::VARCHAR[] AS evidence_words FROM measured_ecgs WHERE false"
        ]
    return " UNION ALL ".join(parts)


def unsure_absence_sql(guidelines: GuidelineSet) -> str:
    """One SELECT over `measured_ecgs` listing (ecg_id, code) whose absence the record's own columns put in doubt."""
    parts = [
        f"SELECT ecg_id, {quote_text(code)} AS code FROM measured_ecgs WHERE ({guideline.absence_unsure_when})"
        for code, guideline in sorted(guidelines.by_code.items())
        if guideline.absence_unsure_when
    ]
    return " UNION ALL ".join(parts) or "SELECT ecg_id, '' AS code FROM measured_ecgs WHERE false"


def relation_tables(guidelines: GuidelineSet) -> dict[str, pa.Table]:
    """Guideline knowledge as tables for SQL: guidelines, guideline_criteria, confusions, overlapping."""
    texts: list[dict[str, Any]] = []
    criteria: list[dict[str, Any]] = []
    confusions: list[dict[str, Any]] = []
    overlaps: set[tuple[str, str]] = set()
    for code, guideline in sorted(guidelines.by_code.items()):
        known = [c for c in guideline.confused_with if c.code in guidelines.by_code]
        texts.append(
            {
                "code": code,
                "category": guidelines.categories[code],
                "name": guideline.name,
                "phrase": guideline.phrase,
                "kinds": list(guideline.kinds),
                "definition": guideline.definition,
                "meaning": guideline.meaning,
                "pitfalls": guideline.pitfalls,
                "next_steps": guideline.next_steps,
                "synonyms_text": ", ".join(guideline.synonyms.en) or None,
                "differential_text": "; ".join(f"{guidelines.by_code[c.code].name} ({c.how})" for c in known) or None,
                "criteria_text": "; ".join(rule.text for rule in guideline.rules) or None,
                "citation_text": "; ".join(guidelines.citation(cite) for cite in guideline.cites),
                "no_criteria_reason": guideline.no_criteria.reason if guideline.no_criteria else None,
                "absence_unsure": guideline.absence_unsure_when is not None,
            }
        )
        for rule in guideline.rules:
            source = guidelines.sources[rule.cite.source]
            criteria.append(
                {
                    "code": code,
                    "name": guideline.name,
                    "phrase": guideline.phrase,
                    "criterion": rule.id,
                    "role": rule.role,
                    "criterion_text": rule.text,
                    "citation": guidelines.citation(rule.cite),
                    "doi": source.doi or source.url,
                }
            )
        for confusion in known:
            other = guidelines.by_code[confusion.code]
            confusions.append(
                {
                    "code": code,
                    "name": guideline.name,
                    "phrase": guideline.phrase,
                    "other_code": confusion.code,
                    "other_name": other.name,
                    "other_phrase": other.phrase,
                    "how": confusion.how,
                }
            )
        overlaps |= {pair for other in guideline.overlaps for pair in ((code, other), (other, code))}
    texts_schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in ("code", "category", "name", "phrase")),
            pa.field("kinds", pa.list_(pa.string())),
            *(
                pa.field(name, pa.string())
                for name in (
                    "definition",
                    "meaning",
                    "pitfalls",
                    "next_steps",
                    "synonyms_text",
                    "differential_text",
                    "criteria_text",
                    "citation_text",
                    "no_criteria_reason",
                )
            ),
            pa.field("absence_unsure", pa.bool_()),
        ]
    )
    return {
        "guidelines": pa.Table.from_pylist(texts, schema=texts_schema),
        "guideline_criteria": _text_table(
            criteria, ("code", "name", "phrase", "criterion", "role", "criterion_text", "citation", "doi")
        ),
        "confusions": _text_table(
            confusions, ("code", "name", "phrase", "other_code", "other_name", "other_phrase", "how")
        ),
        "overlapping": _text_table(
            [{"code": code, "other_code": other} for code, other in sorted(overlaps)], ("code", "other_code")
        ),
    }


def _text_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(column, pa.string()) for column in columns]))
