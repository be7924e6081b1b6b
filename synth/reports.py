"""SQL that makes an English source report readable, and says why one cannot be shown."""

from __future__ import annotations

from ecglm.synth.database import quote_text

_TIDY = (
    (r"\"", "'"),
    (r"\s+", " "),
    (r" ?,[ ,]*,", ","),
    (r"([a-z])\.([a-z])", r"\1. \2"),
    (r"\.( ?\.)+", "."),
    (r" +([.,])", r"\1"),
    (r"\bin in\b", "in"),
    (r"\bfasicular", "fascicular"),
    (r"^ +| +$", ""),
)
"""What typing left behind in the lower-case reports of PTB-XL."""

_SPELLING = (
    (r"\bv([1-6])", r"V\1"),
    (r"\bv leads", "V leads"),
    (r"\bavl\b", "aVL"),
    (r"\bavf\b", "aVF"),
    (r"\bavr\b", "aVR"),
    (r"\biii\b", "III"),
    (r"\bii\b", "II"),
    (r"\bi\b", "I"),
    (r"\blvh\b", "LVH"),
    (r"\brvh\b", "RVH"),
    (r"\blv\b", "LV"),
    (r"\brv\b", "RV"),
    (r"\becg\b", "ECG"),
    (r"\bqrs\b", "QRS"),
    (r"\bqtc?\b", "QT"),
    (r"\bst-t\b", "ST-T"),
    (r"\bst\b", "ST"),
    (r"\br-s\b", "R-S"),
    (r"\bqs complex", "QS complex"),
    (r"\bpr interval", "PR interval"),
    (r"\bp wave", "P wave"),
    (r"\bq wave", "Q wave"),
    (r"\br wave", "R wave"),
    (r"\bt wave", "T wave"),
    (r"\bwolff-parkinson-white", "Wolff-Parkinson-White"),
    (r"\bmobitz", "Mobitz"),
    (r"\bwenckebach", "Wenckebach"),
)
"""Capitals that the lower-case reports lost."""

_PROBLEMS = (
    (r"\bedit:", "report_has_editor_note"),
    (r"\d{1,2}[./:-]\d{1,2}[./:-]\d{2,4}|\b(19|20)\d\d\b", "report_names_a_date"),
    (r"compared with|since trace|previous (trac|ecg)|no change", "report_compares_with_another_tracing"),
    (r"unconfirmed|trace only|not reported|no report", "report_says_nothing"),
)
_LONG_ENOUGH_TO_BE_CUT = 200
_SHORTEST = 10


_PLAIN = "|".join(
    (
        r"4\.46|unbest.tigter bericht|edit:.*$|trace only( requested)?",
        r"sinus ?rhythm(us|en)?|sinusrytm|sinus ?arr?h?ythmi[ea]|sinus arytmi|sinus arrhythmia",
        r"lagetyp( in anbetracht des alters)? normal",
        r"(überdrehter |ueberdrehter )?(links|rechts|steil|indifferenz|horizontal)typ",
        r"\b(llt|mlt|slt|rlt|ült|lt|it|st|mt|rt|sr|rechts|links)\b",
        r"(borderline |slight )?(left|right)ward axis|(borderline )?left axis( deviation)?",
        r"vänster el-axel|höger el-axel|horisontalställd el-axel",
        r"sonst|otherwise|eljest|i övrigt|normale?s? ekg|normalt ekg|normal ecg|ekg normal|normal",
        r"tracing is( within)?|within normal limits",
        r"no definite (pathology|diagnostic features)|inget säkert patologiskt",
        r"for age|marked|minor|probably|the|with|tracing|remains|unremarkable",
        r"r-s ..?bergang in v ableitungen nach (rechts|links) verschoben",
        r"r-s transition zone in v leads displaced to the (right|left)",
        r"bröstavledningarnas r-s transition förskjuten\s+åt (höger|vänster)",
        r"\bob\b|o\.b\.",
    )
)
"""What a German, English or Swedish report of a normal ECG says; filler words too, so that only a finding is left."""

_REST_OF_REPORT = f"regexp_replace(lower(report), {quote_text(_PLAIN)}, ' ', 'g')"
REMARK_SQL = f"(report IS NOT NULL AND regexp_matches({_REST_OF_REPORT}, '\\p{{L}}{{2}}|\\d'))"
"""Whether a source report says more than that the ECG is normal: a word or a number, not a letter mistyped."""


def _replaced(expression: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        expression = f"regexp_replace({expression}, {quote_text(pattern)}, {quote_text(replacement)}, 'g')"
    return expression


def _problem(words: str) -> str:
    found = " ".join(f"WHEN regexp_matches({words}, {quote_text(p)}) THEN '{reason}'" for p, reason in _PROBLEMS)
    return (
        f"CASE {found} WHEN length({words}) > {_LONG_ENOUGH_TO_BE_CUT} AND {words} NOT LIKE '%.' THEN 'report_cut_off'"
        f" WHEN len(string_split({words}, '(')) <> len(string_split({words}, ')')) THEN 'report_damaged'"
        f" WHEN length({words}) < {_SHORTEST} THEN 'report_too_short' END"
    )


REPORTS_SQL = f"""
WITH tidy AS (
    SELECT report_en, {_replaced("lower(report_en)", _TIDY)} AS words
    FROM (SELECT DISTINCT report_en FROM measured_ecgs WHERE report_en IS NOT NULL)
), spelled AS (
    SELECT report_en, {_replaced("words", _SPELLING)} AS text, {_problem("words")} AS report_problem FROM tidy
)
SELECT report_en, report_problem,
       array_to_string(list_transform(
           list_filter(string_split(rtrim(text, ' .'), '. '), lambda s: trim(s) <> ''),
           lambda s: upper(trim(s)[1]) || trim(s)[2:]), '. ') || '.' AS report_text
FROM spelled
"""
"""Each distinct English report of `measured_ecgs`: `report_text` in sentences, and `report_problem` or NULL."""
