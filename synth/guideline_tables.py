"""Guidelines as tables: what templates may quote of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecglm.synth.criteria import Criterion
from ecglm.synth.ecgqa import ecgqa_statements
from ecglm.synth.guidelines import LANGUAGES, GuidelineSet, damaged


def relation_tables(guidelines: GuidelineSet) -> dict[str, pa.Table]:
    """Guideline knowledge as tables for SQL: guidelines (all that can be found on an ECG), guideline_criteria,
    confusions, overlapping, synonyms, walls (what leads look at), statement_walls, ecgqa_statements."""
    texts: list[dict[str, Any]] = []
    criteria: list[dict[str, Any]] = []
    confusions: list[dict[str, Any]] = []
    overlaps: set[tuple[str, str]] = set()
    for code, guideline in sorted(guidelines.by_code.items()):
        if guideline.wall is not None:
            continue
        known = [c for c in guideline.confused_with if c.code in guidelines.by_code]
        texts.append(
            {
                "code": code,
                "category": guidelines.categories[code],
                "name": guideline.name,
                "phrase": guideline.phrase,
                "kinds": list(guideline.kinds),
                "definition": guideline.definition,
                "plain": guideline.plain,
                "meaning": guideline.meaning,
                "pitfalls": guideline.pitfalls,
                "next_steps": guideline.next_steps,
                "synonyms_text": ", ".join(guideline.synonyms.en) or None,
                "differential_text": "; ".join(f"{guidelines.by_code[c.code].name} ({c.how})" for c in known) or None,
                "criteria_text": "; ".join(rule.text for rule in guideline.rules) or None,
                "citation_text": "; ".join(guidelines.citation(cite) for cite in guideline.cites),
                "no_criteria_reason": guideline.no_criteria.reason if guideline.no_criteria else None,
                "n_criteria": len(guideline.rules),
                "criteria_exhaustive": guideline.criteria_exhaustive,
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
                    "suggests": rule.suggests,
                    "n_limits": len(rule.limits),
                    "limits": [
                        {"words": limit.shown_as, "is": limit.is_, "value": limit.value, "unit": limit.unit}
                        for limit in rule.limits.values()
                    ],
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
    told = sorted(criteria, key=lambda row: (row["code"], row["role"], row["criterion"]))
    for place, row in enumerate(told):
        row["place"] = place
    texts_schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in ("code", "category", "name", "phrase")),
            pa.field("kinds", pa.list_(pa.string())),
            *(
                pa.field(name, pa.string())
                for name in (
                    "definition",
                    "plain",
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
            pa.field("n_criteria", pa.int32()),
            pa.field("criteria_exhaustive", pa.bool_()),
            pa.field("absence_unsure", pa.bool_()),
        ]
    )
    return {
        "guidelines": pa.Table.from_pylist(texts, schema=texts_schema),
        "guideline_criteria": pa.Table.from_pylist(criteria, schema=_CRITERIA),
        "confusions": _text_table(
            confusions, ("code", "name", "phrase", "other_code", "other_name", "other_phrase", "how")
        ),
        "overlapping": _text_table(
            [{"code": code, "other_code": other} for code, other in sorted(overlaps)], ("code", "other_code")
        ),
        "synonyms": pa.Table.from_pylist(_synonyms(guidelines), schema=_SYNONYMS),
        "walls": pa.Table.from_pylist(_walls(guidelines), schema=_WALLS),
        "statement_walls": _text_table(
            [
                {"code": code, "name": guideline.name, "wall_code": wall, "wall_name": guidelines.by_code[wall].name}
                for code, guideline in sorted(guidelines.by_code.items())
                for wall in guideline.walls
                if wall in guidelines.by_code
            ],
            ("code", "name", "wall_code", "wall_name"),
        ),
        "ecgqa_statements": ecgqa_statements(guidelines),
    }


_SYNONYMS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("code", "name", "language", "synonym")),
        pa.field("place", pa.int32()),
        pa.field("damaged", pa.bool_()),
    ]
)


def _synonyms(guidelines: GuidelineSet) -> list[dict[str, Any]]:
    """Every other name of every statement, the spellings of damaged reports among them."""
    return [
        {
            "code": code,
            "name": guideline.name,
            "language": language,
            "synonym": name,
            "place": place,
            "damaged": name == damaged(name) != name.lower(),
        }
        for code, guideline in sorted(guidelines.by_code.items())
        for language in LANGUAGES
        for place, name in enumerate(guideline.names(language))
        if name != guideline.name
    ]


_WALLS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("code", "name", "phrase")),
        *(pa.field(name, pa.list_(pa.string())) for name in ("leads", "further_leads", "opposite_leads", "arteries")),
        *(pa.field(name, pa.string()) for name in ("definition", "meaning", "pitfalls", "citation_text")),
    ]
)


def _walls(guidelines: GuidelineSet) -> list[dict[str, Any]]:
    return [
        {
            **{name: getattr(guideline, name) for name in ("name", "phrase", "definition", "meaning", "pitfalls")},
            **{name: list(leads) for name, leads in wall.model_dump().items()},
            "code": code,
            "citation_text": "; ".join(guidelines.citation(cite) for cite in guideline.cites),
        }
        for code, guideline in sorted(guidelines.by_code.items())
        if (wall := guideline.wall) is not None
    ]


def _text_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(column, pa.string()) for column in columns]))


_CRITERIA = pa.schema(
    {
        **dict.fromkeys(
            ("code", "name", "phrase", "criterion", "role", "criterion_text", "citation", "doi"), pa.string()
        ),
        "suggests": pa.bool_(),
        "n_limits": pa.int32(),
        "place": pa.int16(),
        "limits": pa.list_(
            pa.struct({"words": pa.string(), "is": pa.string(), "value": pa.float64(), "unit": pa.string()})
        ),
    }
)


def rows_of_rules(rules: Sequence[tuple[str, Criterion]], criteria: pa.Table) -> npt.NDArray[np.int64]:
    """(n_rules,): the row of `guideline_criteria` of each criterion."""
    named = zip(criteria["code"].to_pylist(), criteria["criterion"].to_pylist(), strict=True)
    rows = {name: row for row, name in enumerate(named)}
    return np.array([rows[code, rule.id] for code, rule in rules], np.int64)
