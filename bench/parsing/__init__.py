"""From the words of an answer to the options it means, strictly and leniently, and never by guessing.

    parse_answer("The rhythm is atrial fibrillation.", ["sinus rhythm", "atrial fibrillation"], multiple=False)
    # Parsed(strict=None, lenient=("atrial fibrillation",), reason="sentence")

`docs/bench-parsing.md` has the rules in plain words.
"""

from __future__ import annotations

from ecglm.bench.parsing.answers import OptionReader, Parsed, ParsingError, parse_answer
from ecglm.bench.parsing.numbers import ParsedNumber, parse_number

__all__ = ["OptionReader", "Parsed", "ParsedNumber", "ParsingError", "parse_answer", "parse_number"]
