"""Questions and phrases about statements and measurements, from the guidelines and the dictionary of measurements."""

from __future__ import annotations

from collections.abc import Iterable

from ecglm.models.encoder import EncoderConfig
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.measure.dictionary import measurements

STATEMENT_QUESTION = "Does this ECG show {phrase}?"


def statement_questions(codes: Iterable[str]) -> dict[str, str]:
    """Code → the question whether an ECG shows it; a statement without a guideline is asked about by its code."""
    known = load_guidelines(check_sql=False).by_code
    phrases = {code: known[code].phrase if code in known else code for code in codes}
    return {code: STATEMENT_QUESTION.format(phrase=phrase) for code, phrase in phrases.items()}


def token_phrases(encoder: EncoderConfig) -> list[str]:
    """What each ECG token stands for, in words; tokens of time have none but their place."""
    known = load_guidelines(check_sql=False).by_code
    dictionary = measurements()
    phrases = []
    for token in encoder.tokens:
        if token in known:
            phrases.append(known[token].phrase)
        elif token in dictionary:
            phrases.append(dictionary[token].words)
        else:
            phrases.append(token.replace(":", " ").replace("_", " "))
    return phrases + [f"time {number}" for number in range(encoder.n_time_tokens)]
