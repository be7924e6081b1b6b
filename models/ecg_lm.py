"""ECG-LM: encoder → projector → causal language model (after Yang et al., Health Data Science 2025).

A few tokens that sum up the ECG stand in front of the text, and the text looks up the others by their names on its way
through the language model. Any number of questions about one ECG share both (see `packing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecglm.models.comparing import MOST_ECGS, Comparer, in_units
from ecglm.models.encoder import MOST_TOLD, Encoder
from ecglm.models.llama import Llama, LlamaSize
from ecglm.models.packing import Branch, Packed, attention, pack
from ecglm.models.text import Codec
from ecglm.synth.errors import ModelError

_EMPHASIS = 8.0
"""How much more than a number gathered a number told counts at first: what a token says is one number of a hundred."""
ANSWERS = 256
"""Learned tokens are padded to a multiple of it, for the same kernels to do for every batch."""
PREFIX_TOKENS = 16
"""What stands in front of the text for each ECG."""
READER_HEADS = 4
VERDICTS_WEIGHT = 0.25
LOOKS_WEIGHT = 1.0
OPEN_GATE = 1.0
"""Of the reader in a language model that learns from nothing; in one that knows its language it opens from 0."""


class Projector(nn.Module):
    """ECG tokens into the space of the language model's text: two layers, plus what each token stands for."""

    def __init__(self, token_width: int, n_outputs: int, n_tokens: int, width: int) -> None:
        super().__init__()
        emphasis = torch.ones(token_width)
        emphasis[token_width - n_outputs :] = _EMPHASIS
        self.register_buffer("emphasis", emphasis, persistent=False)
        self.emphasis: Tensor
        self.register_buffer("centre", torch.zeros(n_tokens, token_width))
        self.register_buffer("spread", torch.ones(n_tokens, token_width))
        self.centre: Tensor
        self.spread: Tensor
        self.layers = nn.Sequential(nn.Linear(token_width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.names = nn.Parameter(torch.randn(n_tokens, width) * 0.02)
        self.which = nn.Parameter(torch.zeros(MOST_ECGS, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, n_tokens, token_width) → (batch, n_tokens, width): what tokens of ECGs say, without their names."""
        result: Tensor = self.layers(((tokens - self.centre) / self.spread).clamp(-8, 8) * self.emphasis)
        return result

    def standardise(self, tokens: Tensor) -> None:
        """Takes centre and spread of each number of each token from some ECGs, (n_ecgs, n_tokens, token_width)."""
        self.centre.copy_(tokens.mean(0))
        spread = tokens.std(0)
        self.spread.copy_(torch.where(spread > 1e-4, spread, 1.0))


class Resampler(nn.Module):
    """A few tokens that stand for the whole ECG in front of the text, however many tokens it has.

    Learned latents attend to the ECG's tokens (Perceiver resampler; Flamingo, Alayrac et al., NeurIPS 2022).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(PREFIX_TOKENS, width) * 0.02)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, n_tokens, width) → (batch, PREFIX_TOKENS, width)."""
        seen = self.norm(tokens)
        queries = _heads(self.query(self.norm(self.latents))).expand(len(tokens), -1, -1, -1)
        told = functional.scaled_dot_product_attention(queries, _heads(self.key(seen)), _heads(self.value(tokens)))
        return self.latents + told.transpose(1, 2).flatten(2)


class Reader(nn.Module):
    """The text looks into the ECG from within the language model: what its state asks for, ECG tokens of that name say.

    Gated cross-attention between two layers (Flamingo, Alayrac et al., NeurIPS 2022). Tokens are found by their names
    alone; what they say is passed on. The first head is taught where to look: at what a question names.
    """

    def __init__(self, width: int, gate: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(MOST_ECGS))
        self.output = nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.full((READER_HEADS, 1, 1), 8.0))
        self.nothing = nn.Parameter(torch.zeros(READER_HEADS, 1, 1))
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, states: Tensor, names: Tensor, said: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """What each place of a text finds, (batch, length, width); where head 0 looks, (batch, length, n_tokens).

        Args:
            states: (batch, length, width) of the text within the language model.
            names: (n_tokens, width) of the ECG tokens.
            said: (batch, most_ecgs, n_tokens, width) what they say.
            there: (batch, most_ecgs) which ECGs there are.
        """
        queries = functional.normalize(_heads(self.query(self.norm(states))).float(), dim=-1)
        keys = functional.normalize(_heads(self.key(names)).float(), dim=-1)
        alike = queries @ keys.transpose(-1, -2) * self.sharpness  # (batch, heads, length, n_tokens)
        nothing = self.nothing.expand(*alike.shape[:-1], 1)
        weights = torch.cat([alike, nothing], -1).softmax(-1)[..., :-1]
        found = torch.zeros_like(states)
        for number in range(said.shape[1]):
            read = weights.to(said.dtype) @ _heads(self.value[number](said[:, number]))
            each = self.output(read.transpose(1, 2).flatten(2))
            found = found + (self.gate.tanh() * each * there[:, number, None, None]).to(states.dtype)
        return found, weights[:, 0]


def _heads(x: Tensor) -> Tensor:
    """(…, length, width) → (…, heads, length, width / heads)."""
    return x.reshape(*x.shape[:-1], READER_HEADS, x.shape[-1] // READER_HEADS).transpose(-2, -3)


@dataclass
class Prefix:
    """ECGs in front of text."""

    embedded: Tensor
    """(batch, n, width)"""
    known: Tensor
    """(batch, n) which of these tokens are there."""
    said: Tensor
    """(batch, most_ecgs, n_tokens, width) what the ECG tokens say."""
    there: Tensor
    """(batch, most_ecgs) which ECGs a row has."""
    measured: Tensor
    """(batch, most_ecgs, n_quantities) in their units, NaN where there is none."""


@dataclass
class Losses:
    """What a batch teaches, each a mean."""

    answers: Tensor
    """Cross-entropy of the tokens to be learned: answers, never questions."""
    verdicts: Tensor
    """Huber loss of the logit of yes over no where it is known: cross-entropy would not order what is unlikely."""
    looks: Tensor
    """Minus the logarithm of the attention on the ECG tokens that a question names, and on what its numbers limit."""

    @property
    def total(self) -> Tensor:
        """What is made small."""
        return self.answers + VERDICTS_WEIGHT * self.verdicts + LOOKS_WEIGHT * self.looks


class EcgLanguageModel(nn.Module):
    """Answers in text, given one or two ECGs, or none."""

    def __init__(self, encoder: Encoder, language_model: nn.Module, codec: Codec) -> None:
        super().__init__()
        self.encoder, self.language_model, self.codec = encoder, language_model, codec
        width = self.embedding.weight.shape[1]
        self.projector = Projector(encoder.token_width, encoder.n_slots, encoder.n_tokens, width)
        self.resampler = Resampler(width)
        gate = OPEN_GATE if isinstance(language_model, Llama) else 0.0
        self.reader = Reader(width, gate)
        self.comparer = Comparer(encoder.config, width, gate)
        self._reading: tuple[Prefix, int, Tensor] | None = None
        self._looked: Tensor | None = None
        self._compared: Tensor | None = None
        layers = _layers(cast(Any, language_model).get_decoder())
        layers[(len(layers) - 1) // 2].register_forward_hook(self._read)

    @property
    def embedding(self) -> nn.Embedding:
        """The language model's text embedding."""
        return cast("nn.Embedding", cast(Any, self.language_model).get_input_embeddings())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.projector.names.device

    def autocast(self) -> torch.autocast:
        """bfloat16 where it is quicker than float32 and as good."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def name_tokens(self, phrases: Sequence[str], measurements: Sequence[str]) -> None:
        """Starts each ECG token, and each quantity that numbers are compared with, from its name's mean text token.

        So a question about it finds it. What the ECG adds to the name starts about as large.

        Args:
            phrases: what each ECG token stands for.
            measurements: the words for each quantity.
        """
        with torch.no_grad():
            table = self.embedding.weight.float()
            size = table.pow(2).mean().sqrt()
            for names, texts in ((self.projector.names, phrases), (self.comparer.names, measurements)):
                for row, text in enumerate(texts):
                    mean = table[self.codec.encode(f" {text}")].mean(0)
                    names[row] = mean * size / mean.pow(2).mean().sqrt()
            last = cast(nn.Linear, self.projector.layers[-1])
            last.weight.mul_(3 * size)
            last.bias.zero_()

    def encode(self, values: Tensor, mask: Tensor, measured: Tensor | None = None) -> Tensor:
        """ECG tokens (batch, n_tokens, token_width) of recordings; the encoder learns in its own stage only."""
        with torch.no_grad():
            tokens: Tensor = self.encoder(values, mask, measured).tokens
        return tokens

    def prefix(self, ecgs: Sequence[Sequence[int]], tokens: Tensor, blank: bool = False) -> Prefix:
        """What stands in front of each row's text.

        Args:
            ecgs: for each row which ECGs of `tokens` it is about, none to two.
            tokens: (n_ecgs, n_tokens, token_width).
            blank: shows nothing of the ECGs: what the text alone can tell.
        """
        if blank:
            tokens = self.projector.centre.expand_as(tokens)
        n = self.encoder.n_tokens
        most = max((len(row) for row in ecgs), default=0)
        names = self.projector.names
        said = names.new_zeros(len(ecgs), most, n, names.shape[1])
        values = in_units(self.encoder.config, self.encoder.outputs_of(tokens).float()).float()
        measured = values.new_full((len(ecgs), most, values.shape[1]), float("nan"))
        there = torch.zeros(len(ecgs), most, dtype=torch.bool, device=self.device)
        for number in range(most):
            rows = [row for row, members in enumerate(ecgs) if len(members) > number]
            shown = [ecgs[row][number] for row in rows]
            said[rows, number] = self.projector(tokens[shown]).to(said.dtype)
            measured[rows, number] = values[shown]
            there[rows, number] = True
        embedded = self.resampler((said + names).flatten(0, 1))
        embedded = embedded.reshape(len(ecgs), most, PREFIX_TOKENS, -1 if most else names.shape[1])
        embedded = embedded + self.projector.which[:most, None]
        return Prefix(embedded.flatten(1, 2), there.repeat_interleave(PREFIX_TOKENS, 1), said, there, measured)

    def _read(self, _layer: nn.Module, _inputs: Any, output: Any) -> Any:
        """Hook behind a layer: adds what the text finds in the ECG to its states."""
        if self._reading is None:
            return output
        prefix, n_front, numbers = self._reading
        states = output if isinstance(output, Tensor) else output[0]
        text = states[:, n_front:]
        found, self._looked = self.reader(text, self.projector.names, prefix.said, prefix.there)
        sides, self._compared = self.comparer(text, numbers, prefix.measured)
        states = torch.cat([states[:, :n_front], text + found + sides], 1)
        return states if isinstance(output, Tensor) else (states, *output[1:])

    def _decode(self, prefix: Prefix, n_front: int, numbers: Tensor, inputs: Tensor, **how: Any) -> Tensor:
        """Last hidden states, the text behind `n_front` ECG tokens reading this ECG on its way.

        Args:
            prefix, n_front: what stands in front.
            numbers: (batch, length) of the text, NaN where no number ends.
            inputs: (batch, n_front + length, width).
            how: for the language model.
        """
        self._reading = prefix, n_front, numbers
        states: Tensor = cast(Any, self.language_model).get_decoder()(inputs_embeds=inputs, **how).last_hidden_state
        return states

    def hidden(self, prefix: Prefix, packed: Packed) -> Tensor:
        """Last hidden states of the text, (batch, length, width)."""
        n_prefix = prefix.known.shape[1]
        text = self.embedding(packed.tokens.to(self.device))
        inputs = torch.cat([prefix.embedded.to(text.dtype), text], 1)
        in_front = prefix.known.sum(1, keepdim=True)
        positions = torch.cat(
            [torch.cumsum(prefix.known, 1).sub(1).clamp(min=0), in_front + packed.positions.to(self.device)], 1
        )
        seen = attention(packed, n_prefix, prefix.known.cpu()).to(self.device)
        how = {"attention_mask": seen, "position_ids": positions, "use_cache": False}
        numbers = self.numbers(packed.tokens.tolist())
        said = functional.pad(packed.targets != -100, (1, -1)).to(self.device)
        numbers.masked_fill_(said, float("nan"))  # of an answer, which a model gives digit by digit
        return self._decode(prefix, n_prefix, numbers, inputs, **how)[:, n_prefix:]

    def numbers(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(n_texts, longest) the numbers of each text at the token where they end, else NaN."""
        found = torch.full((len(texts), max(map(len, texts))), float("nan"))
        for row, tokens in enumerate(texts):
            for place, number in self.codec.numbers(tokens).items():
                found[row, place] = number
        return found.to(self.device)

    def logits(self, states: Tensor) -> Tensor:
        """(n, width) → (n, vocabulary)."""
        head = cast(Any, self.language_model).get_output_embeddings()
        return cast(Tensor, head(states))

    def loss(self, prefix: Prefix, packed: Packed) -> Losses:
        """What is to be learned of a batch."""
        learned = packed.targets != -100
        text = self.hidden(prefix, packed)
        states = text[learned.to(self.device)]
        targets = packed.targets[learned].to(self.device)
        n = len(targets)
        padded = nn.functional.pad(states, (0, 0, 0, -n % ANSWERS))
        each = nn.functional.cross_entropy(self.logits(padded)[:n].float(), targets, reduction="none")
        weights = packed.weights[learned].to(self.device)
        answers = (each * weights).sum() / weights.sum().clamp(min=1e-6)
        return Losses(answers, self._verdicts_missed(text, packed), self._looks(packed) + self._limits(packed))

    def _verdicts_missed(self, text: Tensor, packed: Packed) -> Tensor:
        if not packed.verdicts:
            return text.new_zeros((), dtype=torch.float32)
        rows, places, wanted = zip(*packed.verdicts, strict=True)
        told = self._words(text[list(rows), list(places)])
        logits = torch.tensor(wanted, device=told.device).clamp(-MOST_TOLD, MOST_TOLD)
        return nn.functional.smooth_l1_loss(told[:, 0] - told[:, 1], logits)

    def _looks(self, packed: Packed) -> Tensor:
        """Mean of minus the logarithm of the attention on what is named; 0 where nothing is."""
        looked = self._looked
        if looked is None or not packed.about:
            return self.projector.names.new_zeros(())
        wanted = torch.zeros(len(packed.about), looked.shape[-1], device=looked.device)
        for number, (_, _, tokens) in enumerate(packed.about):
            wanted[number, list(tokens)] = 1
        rows, places = zip(*((row, place) for row, place, _ in packed.about), strict=True)
        return _missed((looked[list(rows), list(places)].float() * wanted).sum(-1))

    def _limits(self, packed: Packed) -> Tensor:
        """The same of what numbers are limits of."""
        compared, numbers = self._compared, self._reading[2] if self._reading else None
        if compared is None or numbers is None or not packed.compared:
            return self.projector.names.new_zeros(())
        there = numbers.isfinite().cpu()
        order = there.flatten().cumsum(0).sub(1).view_as(there)  # of each number among all
        chosen: list[int] = []
        wanted: list[int] = []
        for row, first, behind, limited in packed.compared:
            some = order[row, first:behind][there[row, first:behind]].tolist()
            if len(some) != len(limited):
                raise ModelError(f"{len(some)} numbers in a question, {len(limited)} quantities that they limit")
            chosen += some
            wanted += limited
        return _missed(compared[chosen, wanted])

    def yes_minus_no(self, prefix: Prefix, batch: Sequence[Sequence[Branch]]) -> list[Tensor]:
        """For each row the logit of yes minus that of no after every leaf of its branches."""
        return [told[:, 0] - told[:, 1] for told in self.verdicts(prefix, batch)]

    def verdicts(self, prefix: Prefix, batch: Sequence[Sequence[Branch]]) -> list[Tensor]:
        """For each row the logits of yes, no and "not sure" after every leaf of its branches, (n_leaves, 3)."""
        packed = pack(batch)
        states = self.hidden(prefix, packed)
        told = [self._words(states[row, last]) for row, last in enumerate(packed.last)]
        if self.codec.unsure is None:
            for each in told:
                each[:, 2] = float("-inf")
        return told

    def _words(self, states: Tensor) -> Tensor:
        """(n, width) → logits of yes, no and "not sure", (n, 3); in float32, or one answer in a hundred is a tie."""
        head = cast(Any, self.language_model).get_output_embeddings()
        codec = self.codec
        words = head.weight[[codec.yes, codec.no, codec.no if codec.unsure is None else codec.unsure]]
        with torch.autocast(states.device.type, enabled=False):
            return cast(Tensor, states.float() @ words.float().T)

    @torch.inference_mode()
    def generate(self, prefix: Prefix, tokens: Sequence[int], most: int) -> tuple[list[int], float]:
        """The likeliest continuation, token by token, of one row; and the geometric mean of its probabilities."""
        cache = self._new_cache()
        kind = self.embedding.weight.dtype
        shown = prefix.embedded[:, prefix.known[0]].to(kind)
        inputs = torch.cat([shown, self.embedding(torch.tensor([list(tokens)], device=self.device))], 1)
        n_front = shown.shape[1]
        numbers = self.numbers([tokens])
        end, log_probability = list(self.codec.end), 0.0
        said: list[int] = []
        while len(said) < most and said[-len(end) :] != end:
            states = self._decode(prefix, n_front, numbers, inputs, past_key_values=cache, use_cache=True)[:, -1]
            scores = self.logits(states).float().log_softmax(-1)[0]
            chosen = int(scores.argmax())
            log_probability += float(scores[chosen])
            said.append(chosen)
            inputs, n_front = self.embedding(torch.tensor([[chosen]], device=self.device)), 0
            numbers = numbers.new_full((1, 1), float("nan"))
        probability = float(torch.tensor(log_probability / max(1, len(said))).exp())
        return (said[: -len(end)] if said[-len(end) :] == end else said), probability

    def _new_cache(self) -> Any:
        if isinstance(self.language_model, Llama):
            return self.language_model.new_cache()
        from transformers import DynamicCache

        return DynamicCache()


def _missed(share: Tensor) -> Tensor:
    """Mean of minus the logarithm of the attention that fell where it should."""
    return -share.clamp(min=1e-6).log().mean()


def _layers(decoder: nn.Module) -> nn.ModuleList:
    """The layers of a causal language model's decoder, in order."""
    n = getattr(getattr(decoder, "config", None), "num_hidden_layers", None)
    lists = [each for each in decoder.children() if isinstance(each, nn.ModuleList)]
    lists += [each for each in decoder.modules() if isinstance(each, nn.ModuleList)]
    for each in lists:
        if n is None or len(each) == n:
            return each
    raise ModelError("this language model has no list of layers between which the ECG could be read")


def built_in_language_model(config: Mapping[str, Any], vocabulary: int) -> nn.Module:
    """A small Llama with random weights."""
    return Llama(LlamaSize(vocabulary, config["width"], config["inner_width"], config["layers"], config["heads"]))
