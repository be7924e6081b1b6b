"""Questions and phrases about statements and measurements, from the guidelines and the dictionary of measurements."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from ecglm.models.comparing import quantities
from ecglm.models.encoder import EncoderConfig
from ecglm.synth.ecgqa import attributes
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import LEADS

CLASS_PHRASES = {
    "superclass:MI": "a myocardial infarction, of any site, old or recent",
    "superclass:STTC": "an ST segment or T wave change",
    "superclass:CD": "a conduction disturbance",
    "superclass:HYP": "hypertrophy of a ventricle or enlargement of an atrium",
    "subclass:_AVB": "an AV block of any degree",
    "subclass:AMI": "an anterior, anteroseptal or anterolateral infarction, or subendocardial injury there",
    "subclass:IMI": "an inferior, inferolateral or inferoposterior infarction, or subendocardial injury there",
    "subclass:ISCA": "ischaemia in anterior, anteroseptal, anterolateral or lateral leads",
    "subclass:ISCI": "ischaemia in inferior or inferolateral leads",
    "subclass:LAFB/LPFB": "a left anterior or left posterior fascicular block",
    "subclass:STTC": (
        "a non-diagnostic T abnormality, a digitalis effect, a long QT interval, ST-T changes of"
        " an aneurysm, or an electrolyte or drug pattern"
    ),
}
"""What the diagnostic classes of several statements are called, as the tasks of `bench` call them."""
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
        if token in CLASS_PHRASES:
            phrases.append(CLASS_PHRASES[token])
        elif token in known:
            phrases.append(known[token].phrase)
        elif token in dictionary:
            phrases.append(dictionary[token].words)
        else:
            phrases.append(token.replace(":", " ").replace("_", " "))
    return phrases + [f"time {number}" for number in range(encoder.n_time_tokens)]


def quantity_words(encoder: EncoderConfig) -> list[str]:
    """The words for each measurement that an encoder tells (see `quantities`)."""
    dictionary = measurements()
    return [dictionary[each.name].words for each in quantities(encoder)]


def names_pattern(names: Collection[str], plural: bool = False, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """Finds any of these names as whole words, the longest first; group 1 is the name without a plural's ending."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    ending = "(?:s|es)?" if plural else ""
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))}){ending}(?!\w)", flags)


class TokenNames:
    """Finds the ECG tokens that a text names: statements, classes, measurements, leads, in any of their names."""

    def __init__(self, encoder: EncoderConfig) -> None:
        place = {token: number for number, token in enumerate(encoder.tokens)}
        names: dict[str, int] = {}
        for name, token in _names(encoder):
            if token in place:
                names.setdefault(re.sub(r"^(?:an?|the) ", "", name.lower()), place[token])
        self._places = names
        self._pattern = names_pattern(names, plural=True)
        self.found = lru_cache(100_000)(self._found)

    def _found(self, text: str) -> tuple[int, ...]:
        """Numbers of the tokens a text names, longer names before shorter ones inside them."""
        matches = [match[1] for match in self._pattern.finditer(text.lower())]
        return tuple(dict.fromkeys(self._places[name] for name in matches))


def _names(encoder: EncoderConfig) -> Iterable[tuple[str, str]]:
    """Names and the token each stands for; own names first, since a synonym of one may be the name of another."""
    known = load_guidelines(check_sql=False).by_code
    words = attributes()
    yield from zip(token_phrases(encoder), encoder.tokens, strict=False)
    yield from ((guideline.name, code) for code, guideline in known.items())
    yield from ((statement.name, code) for code, statement in words.statements.items())
    yield from ((name, f"superclass:{code}") for code, name in words.superclasses.items())
    yield from ((name, feature.column) for name, feature in words.features.items())
    yield from ((name, code) for code, guideline in known.items() for name in guideline.synonyms.en if len(name) > 3)
    yield from ((f"lead {lead}", f"lead:{lead}") for lead in LEADS)
    yield from ((name, f"noise:{column}") for column, name in words.noises.items())
    yield from ((name, "extra_beats") for name in ("extra systole", "extrasystole", "extra beat"))
    yield from ((name, "heart_axis") for name in ("axis", "heart axis", "cardiac axis"))
    yield from ((name, "infarction_stage") for name in ("stage of myocardial infarction", "stage of infarction"))
