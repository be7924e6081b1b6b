"""Statements kept out of training, so that a model can be asked about what it never read of."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import polars as pl

from ecglm.synth.guidelines import load_guidelines


def mention_pattern(codes: Collection[str]) -> re.Pattern[str]:
    """Matches any name, phrase, synonym, abbreviation or code of these statements, in any language we know it in."""
    known = load_guidelines(check_sql=False).by_code
    words: set[str] = set()
    for code in codes:
        words.add(code)
        if code in known:
            guideline = known[code]
            words |= {guideline.name, guideline.phrase}
            words |= {name for names in guideline.synonyms.model_dump().values() for name in names}
    stems = {re.sub(r"^(?:an?|the) ", "", word.strip(), flags=re.IGNORECASE) for word in words}
    ordered = sorted(stems, key=len, reverse=True)
    return re.compile(
        r"(?<![\w])(?:" + "|".join(re.escape(word) for word in ordered) + r")(?:s|es)?(?![\w])", re.IGNORECASE
    )


UNNAMED = "another finding"


def unmentioned(phrases: Sequence[str], codes: Collection[str]) -> list[str]:
    """Phrases, `UNNAMED` for those that mention one of these statements: some findings are named after others."""
    if not codes:
        return list(phrases)
    pattern = mention_pattern(codes)
    return [UNNAMED if pattern.search(phrase) else phrase for phrase in phrases]


def refuse_mentions(pairs: pl.DataFrame, codes: Collection[str], tell: Callable[[str], None]) -> pl.DataFrame:
    """Pairs without those that mention one of these statements in any text, or are filed under its code."""
    pattern = mention_pattern(codes)
    texts = pairs.select(
        pl.concat_str(
            [
                pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n"),
                pl.col("answers").list.join("\n").fill_null(""),
                pl.col("options").list.join("\n").fill_null(""),
            ],
            separator="\n",
        )
    ).to_series()
    mentioned = texts.str.contains(f"(?i){_rust(pattern.pattern)}")
    filed = pairs["codes"].list.eval(pl.element().is_in(list(codes))).list.any().fill_null(False)
    kept = pairs.filter(~(mentioned | filed))
    tell(f"withheld {', '.join(sorted(codes))}: {len(pairs) - len(kept):,} pairs that mention one of them are left out")
    return kept


def refuse_shown(
    pairs: pl.DataFrame, labels: pl.DataFrame, codes: Collection[str], tell: Callable[[str], None]
) -> pl.DataFrame:
    """Pairs without those about an ECG that has one of these statements: that it has no other would tell of it."""
    shown = labels.filter(pl.col("code").is_in(list(codes)))["ecg_id"].unique()
    about = pairs["ecg_ids"].list.eval(pl.element().is_in(shown.implode())).list.any().fill_null(False)
    kept = pairs.filter(~about)
    tell(f"withheld: {len(pairs) - len(kept):,} more pairs about ECGs that have one of them are left out")
    return kept


def _rust(pattern: str) -> str:
    """The pattern without look-around, which polars' engine lacks: word bounds instead."""
    inner = pattern.removeprefix(r"(?<![\w])").removesuffix(r"(?![\w])")
    return rf"(?:^|\W){inner}(?:$|\W)"
