"""ECGLM: a trained model in use. Asks, classifies, answers in batches; reads and writes safetensors and JSON only."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ecglm.models.checkpoint import load_into, own_tensors, read_tensors, write_tensors
from ecglm.models.comparing import MOST_ECGS
from ecglm.models.config import BuiltIn
from ecglm.models.ecg_lm import PREFIX_TOKENS, EcgLanguageModel, built_in_language_model
from ecglm.models.encoder import Encoded, Encoder, EncoderConfig, padded
from ecglm.models.fingerprint import fingerprint
from ecglm.models.packing import Branch
from ecglm.models.preprocessing import Prepared, Preprocessing, prepare
from ecglm.models.text import Codec, Markers
from ecglm.synth.errors import ModelError
from ecglm.synth.measure import MEASURED_VERSION

FORMAT = "ecglm model"
FORMAT_VERSION = 3
WEIGHTS, ABOUT, TOKENIZER = "model.safetensors", "model.json", "tokenizer.json"
LONGEST_QUESTION = 512
"""Tokens."""
LONGEST_ANSWER = 256
YES_NO = ("yes", "no")
VERDICTS = ("yes", "no", "not sure")
NONE = "none"
"""The option that no other one holds."""
ADAPTER = "lora_"
UNSAVED = "not saved"
_TOKENS_IN_A_PASS = 24_000
_JUST_ABOVE = 0.01
"""By how much, as a logit, an option is above the threshold that it was raised to."""


@dataclass(frozen=True)
class Answered:
    """What the model says."""

    text: str
    probability: float
    """Of the answer given: of yes or no, of the option chosen; of a text the geometric mean over its tokens."""
    scores: tuple[float, ...] | None = None
    """With options: the probability of each, judged one by one (yes and no add up to 1)."""


@dataclass(frozen=True)
class Asked:
    """A question about ECGs that were encoded."""

    ecgs: tuple[int, ...]
    """Rows of the encoded ECGs, in the order of time; one or two."""
    question: str
    options: tuple[str, ...] = ()
    multiple: bool = False
    """Whether several options may hold, one at least; else exactly one does."""


class ECGLM:
    """A model with all it needs: encoder, language model, tokenizer, preprocessing, card."""

    def __init__(self, model: EcgLanguageModel, about: Mapping[str, Any]) -> None:
        self.model, self.about = model.eval(), dict(about)
        self.fingerprint = UNSAVED
        """Hash of weights, tokenizer and preprocessing; answers change only with it."""
        config = self.about.get("training", {}).get("config", {})
        self.blind = "pretraining" in config and config["pretraining"] is None
        """Whether it never saw an ECG: then it is never shown one."""

    # --- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: str | Path = "reference", device: str = "cpu") -> ECGLM:
        """A model from a folder, or the one that comes with ecglm, by its name.

        Raises:
            ModelError: nothing there, another format, or a file that is not what it should be.
        """
        root = model_folder(folder)
        about = read_about(root)
        codec = read_codec(root, about)
        encoder = Encoder(
            Preprocessing.model_validate(about["preprocessing"]), EncoderConfig.model_validate(about["encoder"])
        )
        if about["language_model"]["kind"] == "built_in":
            size = BuiltIn.model_validate(about["language_model"]["built_in"])
            language_model = built_in_language_model(size.model_dump(), codec.size)
        else:
            from ecglm.models.language_models import saved_language_model

            language_model = saved_language_model(about["language_model"])
        model = EcgLanguageModel(encoder, language_model, codec)
        if encoder.measured is not None and about.get("measurements_version") != MEASURED_VERSION:
            warnings.warn(
                f"{root}: trained on measurements version {about.get('measurements_version')}; this ecglm takes version"
                f" {MEASURED_VERSION}, so its answers may differ from those it was judged by",
                stacklevel=2,
            )
        tensors, _ = read_tensors(root / WEIGHTS)
        load_into(stored_tensors(model, about["language_model"]), tensors, str(root / WEIGHTS))
        loaded = cls(model.to(device), about)
        loaded.fingerprint = model_fingerprint(tensors, about, codec)
        return loaded

    @property
    def statements(self) -> list[str]:
        """Codes of the statements it was trained to tell, and of those withheld from it."""
        told = [target.name for target in self.model.encoder.config.targets if target.kind == "statement"]
        return [*told, *self.about.get("training", {}).get("withheld", ())]

    def save(self, folder: Path, half: bool = True) -> None:
        """Writes the model; in half precision if not told otherwise."""
        folder.mkdir(parents=True, exist_ok=True)
        stored = stored_tensors(self.model, self.about["language_model"])
        tensors = {n: t.detach().half() if half and t.dtype == torch.float32 else t for n, t in stored.items()}
        write_tensors(folder / WEIGHTS, tensors, {"format": FORMAT})
        self.model.codec.tokenizer.save(str(folder / TOKENIZER))
        about = {"format": FORMAT, "format_version": FORMAT_VERSION, **self.about}
        (folder / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        self.fingerprint = model_fingerprint(tensors, about, self.model.codec)

    # --- use ----------------------------------------------------------------------------------------------------------

    def prepare(self, signal: NDArray[np.floating], leads: Sequence[str], sampling_hz: float) -> Prepared:
        """A recording, (n_samples, n_leads) in mV, as the encoder takes it (see `prepare`)."""
        return prepare(signal, leads, sampling_hz, self.model.encoder.preprocessing)

    def encode(self, recordings: Sequence[Prepared]) -> torch.Tensor:
        """ECG tokens (n_recordings, n_tokens, token_width)."""
        return self.encode_whole(recordings).tokens

    def encode_whole(self, recordings: Sequence[Prepared]) -> Encoded:
        """All that the encoder says of recordings: its own outputs, tokens, embedding."""
        values, mask = padded([(torch.from_numpy(r.values), torch.from_numpy(r.mask)) for r in recordings])
        device = self.model.device
        with torch.inference_mode(), self.model.autocast():
            encoded: Encoded = self.model.encoder(values.to(device), mask.to(device))
        return encoded

    def answer(
        self,
        signal: NDArray[np.floating],
        leads: Sequence[str],
        sampling_hz: float,
        question: str,
        options: Sequence[str] | None = None,
    ) -> Answered:
        """The answer to one question about one recording.

        Args:
            signal: (n_samples, n_leads) in mV, NaN where a sample is missing.
            leads: name of each column, 1 to 15 in any order.
            sampling_hz: samples per second.
            question: in English.
            options: answers to choose from; left out, the model answers in sentences.

        Raises:
            ModelError: a recording or question that cannot be used; says why.
        """
        tokens = self.encode([self.prepare(signal, leads, sampling_hz)])
        if options is None:
            return self.say(tokens, question)
        return self.answer_all(tokens, [Asked((0,), question, tuple(options))])[0]

    def say(
        self,
        tokens: torch.Tensor,
        question: str,
        before: Sequence[tuple[str, str]] = (),
        short: bool = False,
        blank: bool = False,
    ) -> Answered:
        """An answer in words, token by token.

        Args:
            tokens: of the ECG it is about, or of two, (1 or 2, n_tokens, token_width).
            question: in English.
            before: earlier turns (question, answer) of the conversation.
            short: whether a word or two are wanted rather than sentences.
            blank: shows the model nothing of the ECG.
        """
        codec = self.model.codec
        ids: list[int] = []
        for asked, said in before:
            ids += [*codec.user, *codec.encode(asked), *codec.full, *codec.encode(said), *codec.end]
        ids += [*codec.user, *self._question(question), *(codec.short if short else codec.full)]
        with torch.inference_mode(), self.model.autocast():
            prefix = self.model.prefix([list(range(len(tokens)))], tokens, blank or self.blind)
            said_ids, probability = self.model.generate(prefix, ids, LONGEST_ANSWER)
        return Answered(codec.decode(said_ids).strip(), probability)

    def answer_all(
        self, tokens: torch.Tensor, asked: Sequence[Asked], threshold: float = 0.5, blank: bool = False
    ) -> list[Answered]:
        """Answers to many questions with options, each ECG taken once for all questions about it.

        Args:
            tokens: ECG tokens of `encode`.
            asked: questions; each needs options.
            threshold: where any number of options may hold, those are chosen whose probability is above.
            blank: shows the model nothing of the ECGs.
        """
        grouped: dict[tuple[int, ...], list[int]] = {}
        for number, each in enumerate(asked):
            if not each.options:
                raise ModelError("a question without options is answered by `say`")
            if not 1 <= len(each.ecgs) <= MOST_ECGS:
                raise ModelError(f"a question about {len(each.ecgs)} ECGs; expected one or two")
            grouped.setdefault(each.ecgs, []).append(number)
        encoded = self._encoded_texts(asked)
        verdicts: list[torch.Tensor] = [torch.empty(0)] * len(asked)
        for rows in self._passes(grouped, asked, encoded):
            branches = [[self._branch(asked[number], encoded) for number in members] for _, members in rows]
            with torch.inference_mode(), self.model.autocast():
                prefix = self.model.prefix([list(ecgs) for ecgs, _ in rows], tokens, blank or self.blind)
                found = self.model.verdicts(prefix, branches)
            for (_, members), told in zip(rows, found, strict=True):
                sizes = [1 if is_verdict(asked[number].options) else len(asked[number].options) for number in members]
                for number, part in zip(members, torch.split(told.cpu(), sizes), strict=True):
                    verdicts[number] = part
        return [_decided(each, told, threshold) for each, told in zip(asked, verdicts, strict=True)]

    def classify(
        self, signal: NDArray[np.floating], leads: Sequence[str], sampling_hz: float, questions: Mapping[str, str]
    ) -> dict[str, float]:
        """Probability of each statement, by asking: `questions` maps its code to the question."""
        tokens = self.encode([self.prepare(signal, leads, sampling_hz)])
        asked = [Asked((0,), question, YES_NO) for question in questions.values()]
        answers = self.answer_all(tokens, asked)
        return {code: answer.scores[0] for code, answer in zip(questions, answers, strict=True) if answer.scores}

    def _question(self, question: str) -> list[int]:
        if not question.strip():
            raise ModelError("the question is empty")
        ids = self.model.codec.encode(question.strip())
        if len(ids) > LONGEST_QUESTION:
            raise ModelError(
                f"the question has {len(question)} characters, {len(ids)} tokens; the model takes up to"
                f" {LONGEST_QUESTION} tokens: ask something shorter"
            )
        return ids

    def _encoded_texts(self, asked: Sequence[Asked]) -> dict[str, list[int]]:
        questions = {each.question for each in asked}
        options = {option for each in asked if not is_verdict(each.options) for option in each.options}
        encoded = {text: self._question(text) for text in sorted(questions)}
        texts = sorted(options - questions)
        return encoded | dict(zip(texts, self.model.codec.encode_all(texts), strict=True))

    def _branch(self, asked: Asked, encoded: Mapping[str, list[int]]) -> Branch:
        codec = self.model.codec
        question = [*codec.user, *encoded[asked.question]]
        if is_verdict(asked.options):
            return Branch([*question, *codec.short])
        children = [Branch([*codec.option, *encoded[option], *codec.short]) for option in asked.options]
        return Branch(question, children=children)

    def _passes(
        self, grouped: Mapping[tuple[int, ...], list[int]], asked: Sequence[Asked], encoded: Mapping[str, list[int]]
    ) -> Iterable[list[tuple[tuple[int, ...], list[int]]]]:
        """Rows of (ECGs, questions) that go through the model together; rows of about one length."""
        most = 2048
        rows: list[tuple[int, tuple[int, ...], list[int]]] = []
        for ecgs, numbers in grouped.items():
            members: list[int] = []
            length = 0
            for number in numbers:
                each = asked[number]
                size = 4 + len(encoded[each.question])
                size += 0 if is_verdict(each.options) else sum(4 + len(encoded[option]) for option in each.options)
                if members and length + size > most:
                    rows.append((length, ecgs, members))
                    members, length = [], 0
                members.append(number)
                length += size
            rows.append((length, ecgs, members))
        rows.sort(key=lambda row: row[0])
        batch: list[tuple[tuple[int, ...], list[int]]] = []
        for length, ecgs, members in rows:
            if batch and (len(batch) + 1) * (length + 2 * PREFIX_TOKENS) > _TOKENS_IN_A_PASS:
                yield batch
                batch = []
            batch.append((ecgs, members))
        if batch:
            yield batch


def is_verdict(options: Sequence[str]) -> bool:
    """Whether options are yes and no, perhaps with "not sure": the question itself is answered, not each option."""
    return set(YES_NO) <= set(options) <= set(VERDICTS)


def _decided(asked: Asked, verdicts: torch.Tensor, threshold: float) -> Answered:
    if is_verdict(asked.options):
        scores = verdicts[0, [VERDICTS.index(option) for option in asked.options]].softmax(-1).tolist()
        surest = max(range(len(scores)), key=scores.__getitem__)
        return Answered(asked.options[surest], scores[surest], tuple(scores))
    needed = math.log(threshold / (1 - threshold)) if asked.multiple else 0.0
    logits = consistent(asked.options, (verdicts[:, 0] - verdicts[:, 1]).double(), needed)
    chosen = [int(logits.argmax())]
    if asked.multiple:
        logits = one_at_least(logits, needed)
        chosen = [place for place, logit in enumerate(logits.tolist()) if logit > needed]
    scores = logits.sigmoid().tolist()
    text = ", ".join(asked.options[place] for place in chosen)
    return Answered(text, min(scores[place] for place in chosen), tuple(scores))


def consistent(options: Sequence[str], logits: torch.Tensor, needed: float = 0.0) -> torch.Tensor:
    """Logits of options (n_options,), that of "none" set so that it is chosen where no other one is.

    Judged by itself it may be chosen beside another, and such an answer says nothing.

    Args:
        options: the options.
        logits: what is said of each.
        needed: the logit above which an option is chosen.
    """
    others = [place for place, option in enumerate(options) if option != NONE]
    if NONE not in options or not others:
        return logits
    told = (2 * needed - logits[others].max()).expand(len(options))
    return torch.where(torch.tensor([option == NONE for option in options]), told, logits)


def one_at_least(logits: torch.Tensor, needed: float = 0.0) -> torch.Tensor:
    """Logits of options (n_options,) of which one holds at least.

    If none is above the logit needed, all are raised until the likeliest is, and no other that ties with it.
    """
    best = int(logits.argmax())
    if logits[best] > needed:
        return logits
    raised = logits + (needed - logits[best])
    raised[best] += _JUST_ABOVE
    return raised


def stored_tensors(model: EcgLanguageModel, kind: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What is kept of a model: all of it, but of a folder's language model with adapters the adapters only."""
    own = own_tensors(model)
    if kind["kind"] == "folder" and kind["lora"] is not None:
        return {n: t for n, t in own.items() if not n.startswith("language_model.") or ADAPTER in n}
    return own


def model_fingerprint(tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any], codec: Codec) -> str:
    """Hash of all that decides a model's answers; not of where it is, or of what is told of its training."""
    language_model = {name: value for name, value in about["language_model"].items() if name != "path"}
    parts: list[Any] = [language_model, *(about[name] for name in ("preprocessing", "encoder", "markers"))]
    parts.append(codec.tokenizer.to_str())
    for name, tensor in sorted(tensors.items()):
        parts += [name, tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()]
    return fingerprint(*parts)


def model_folder(name: str | Path) -> Path:
    """Where a model is: a folder, or the name of one that comes with ecglm."""
    path = Path(name)
    if (path / ABOUT).is_file():
        return path
    bundled = Path(__file__).parent / "weights" / str(name)
    if (bundled / ABOUT).is_file():
        return bundled
    shipped = sorted(found.parent.name for found in (Path(__file__).parent / "weights").glob(f"*/{ABOUT}"))
    raise ModelError(
        f"{name}: no model folder (no {ABOUT} in it), and none of that name comes with ecglm"
        + (f" (there is {', '.join(shipped)})" if shipped else "")
    )


def read_about(root: Path) -> dict[str, Any]:
    """What a model's folder says of it.

    Raises:
        ModelError: cannot be read, or another format.
    """
    path = root / ABOUT
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    found = (about.get("format"), about.get("format_version")) if isinstance(about, dict) else None
    if found != (FORMAT, FORMAT_VERSION):
        raise ModelError(f"{path}: format {found}, expected {(FORMAT, FORMAT_VERSION)}")
    return about


def read_codec(root: Path, about: Mapping[str, Any]) -> Codec:
    """The tokenizer of a model's folder, with its markers.

    Raises:
        ModelError: not a tokenizer.
    """
    path = root / TOKENIZER
    try:
        return Codec(Tokenizer.from_file(str(path)), Markers.model_validate(about["markers"]))
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{path}: not a tokenizer ({error})") from error
