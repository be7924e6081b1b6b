"""Text to tokens and back: a tokenizer trained on a corpus, or that of a language model folder.

Questions are data. Whatever they contain, they never become a marker: special tokens in a text are plain letters.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ecglm.synth.errors import ModelError

_NUMBER = re.compile(r"(?<![\w.])(-?)(\d+(?:\.\d+)?)(?:\s?(?:(s)|([^\x00-\x7f]+V))\b)?")
"""A number of a text, which that of V4 is not; whether it is in seconds, or in µV (the µ may be two tokens)."""


class Markers(BaseModel):
    """What stands between the parts of a conversation; each is a special token, or text of a foreign tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = "<user>"
    option: str = "<option>"
    """Before an option that is to be judged by yes or no."""
    short: str = "<short>"
    """Before an answer in a word or two."""
    full: str = "<full>"
    """Before an answer in sentences."""
    end: str = "<end>"


PLAIN_MARKERS = Markers(
    user="\nQuestion: ", option="\nProposed answer: ", short="\nAnswer in short: ", full="\nAnswer: ", end="\n\n"
)
"""For language models that come with a tokenizer of their own."""


def train_tokenizer(texts: Iterable[str], size: int, markers: Markers) -> Tokenizer:
    """A byte-level BPE tokenizer whose tokens may span words, so that the name of a finding is one token or two.

    That halves the length of questions (Liu et al., SuperBPE, COLM 2025). Digits and punctuation stand alone: numbers
    are read digit by digit.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(markers.model_dump().values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Codec:
    """A tokenizer with its markers."""

    def __init__(self, tokenizer: Tokenizer, markers: Markers) -> None:
        self.tokenizer, self.markers = tokenizer, markers
        # A marker that is one token of the tokenizer is that token; one that is plain text is spelled out.
        self.user, self.option, self.short, self.full, self.end = (
            self._marker(text) for text in markers.model_dump().values()
        )
        self.yes, self.no, unsure = (self.encode(word)[0] for word in ("yes", "no", "not sure"))
        if self.yes == self.no:
            raise ModelError("this tokenizer begins 'yes' and 'no' alike; options cannot be scored with it")
        self.unsure = None if unsure in (self.yes, self.no) else unsure
        """What "not sure" begins with; None if it begins as "no" does: then it is never chosen."""

    def _marker(self, text: str) -> tuple[int, ...]:
        known = self.tokenizer.token_to_id(text)
        return (known,) if known is not None else tuple(self.encode(text))

    @property
    def size(self) -> int:
        """Tokens it knows."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is special."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of many texts; a minus sign is a hyphen, as in all texts that were learned."""
        self.tokenizer.encode_special_tokens = True
        plain = [text.replace("−", "-") for text in texts]
        return [each.ids for each in self.tokenizer.encode_batch(plain, add_special_tokens=False)]

    def numbers(self, tokens: Sequence[int]) -> dict[int, float]:
        """The numbers in a text, by the place of the token that each ends with; seconds in ms, µV in mV."""
        pieces = [self._pieces[token] for token in tokens]
        ends = list(itertools.accumulate(map(len, pieces)))
        found = {}
        for match in _NUMBER.finditer("".join(pieces)):
            value = float(match[2]) * (1000 if match[3] else 0.001 if match[4] else 1)
            found[bisect.bisect_left(ends, match.end(2))] = -value if match[1] else value
        return found

    @cached_property
    def _pieces(self) -> list[str]:
        """The text of each token by itself."""
        markers = {
            token for name in Markers.model_fields for token in getattr(self, name) if len(getattr(self, name)) == 1
        }
        return ["\n" if number in markers else self._piece(number) for number in range(self.size)]

    def _piece(self, token: int) -> str:
        known = self.tokenizer.id_to_token(token) or ""
        if "▁" in known:  # SentencePiece's space, which decoding takes away in front
            return known.replace("▁", " ")
        return str(self.tokenizer.decode([token], skip_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a language model folder in Hugging Face's layout.

    Raises:
        ModelError: none there that can be read.
    """
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            return Tokenizer.from_file(str(path))
        from transformers import AutoTokenizer

        fast = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
        backend = getattr(fast, "backend_tokenizer", None)
        if isinstance(backend, Tokenizer):
            return backend
    except Exception as error:  # whatever the libraries raise about files that are not theirs
        raise ModelError(f"{folder}: its tokenizer cannot be read: {error}") from error
    raise ModelError(f"{folder}: no tokenizer.json, and no tokenizer that can be converted to one")
