"""ECG-LM: encoder → projector → causal language model (after Yang et al., Health Data Science 2025).

The ECG's tokens stand in front of the text. Any number of questions about one ECG share them (see `packing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecglm.models.encoder import Encoder
from ecglm.models.llama import Llama, LlamaSize
from ecglm.models.packing import Branch, Packed, attention, pack
from ecglm.models.text import Codec

_EMPHASIS = 8.0
"""How much more than a number gathered a number told counts at first: what a token says is one number of a hundred."""
_ALIKE = 3.0
"""How much larger than usual queries and keys begin."""
MOST_ECGS = 2
"""A comparison is about two."""


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


class Reader(nn.Module):
    """Words look up the ECG: each is given what the ECG tokens of that name say, before the language model reads it.

    Attention from text to ECG tokens by the likeness of word and name, as an instruction-aware projector does
    (InstructBLIP, Dai et al., NeurIPS 2023). A word that is like no name finds nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(MOST_ECGS))
        for layer in (self.query, self.key, self.value[0]):
            nn.init.eye_(cast(nn.Linear, layer).weight)
        self.sharpness = nn.Parameter(torch.tensor(15.0))
        self.nothing = nn.Parameter(torch.tensor(0.3))

    def forward(self, text: Tensor, names: Tensor, said: Tensor, there: Tensor) -> Tensor:
        """What each word finds.

        Args:
            text: (batch, length, width) embedded words.
            names: (n_tokens, width) of the ECG tokens.
            said: (batch, most_ecgs, n_tokens, width) what they say.
            there: (batch, most_ecgs) which ECGs there are.
        """
        queries = functional.normalize(self.query(text).float(), dim=-1)
        keys = functional.normalize(self.key(names).float(), dim=-1)
        alike = functional.pad(queries @ keys.T, (0, 1)) * self.sharpness  # (batch, length, n_tokens + 1)
        bias = functional.pad(torch.zeros_like(alike[..., :-1]), (0, 1), value=1.0) * self.nothing * self.sharpness
        weights = (alike + bias).softmax(-1)[..., :-1].to(said.dtype)
        found = torch.zeros_like(text)
        for number in range(said.shape[1]):
            each = self.value[number](weights @ said[:, number])
            found = found + each * there[:, number, None, None]
        return found


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


class EcgLanguageModel(nn.Module):
    """Answers in text, given one or two ECGs, or none."""

    def __init__(self, encoder: Encoder, language_model: nn.Module, codec: Codec) -> None:
        super().__init__()
        self.encoder, self.language_model, self.codec = encoder, language_model, codec
        width = self.embedding.weight.shape[1]
        self.projector = Projector(encoder.token_width, encoder.n_slots, encoder.n_tokens, width)
        self.reader = Reader(width)

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

    def name_tokens(self, phrases: Sequence[str]) -> None:
        """Starts each ECG token from the mean of the text tokens of its name, so that a question about it finds it.

        What the ECG adds to the name starts about as large.
        """
        with torch.no_grad():
            table = self.embedding.weight.float()
            size = table.pow(2).mean().sqrt()
            for row, phrase in enumerate(phrases):
                mean = table[self.codec.encode(f" {phrase}")].mean(0)
                self.projector.names[row] = mean * size / mean.pow(2).mean().sqrt()
            last = cast(nn.Linear, self.projector.layers[-1])
            last.weight.mul_(3 * size)
            last.bias.zero_()

    def encode(self, values: Tensor, mask: Tensor) -> Tensor:
        """ECG tokens (batch, n_tokens, token_width) of recordings; the encoder learns in its own stage only."""
        with torch.no_grad():
            tokens: Tensor = self.encoder(values, mask).tokens
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
        there = torch.zeros(len(ecgs), most, dtype=torch.bool, device=self.device)
        for number in range(most):
            rows = [row for row, members in enumerate(ecgs) if len(members) > number]
            said[rows, number] = self.projector(tokens[[ecgs[row][number] for row in rows]]).to(said.dtype)
            there[rows, number] = True
        embedded = said + names + self.projector.which[:most, None]
        return Prefix(embedded.flatten(1, 2), there.repeat_interleave(n, 1), said, there)

    def embed(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Words as the language model gets them, with what they find in the ECG: (batch, length, width)."""
        text = self.embedding(tokens.to(self.device))
        found: Tensor = self.reader(text, self.projector.names, prefix.said, prefix.there)
        embedded: Tensor = text + found.to(text.dtype)
        return embedded

    def hidden(self, prefix: Prefix, packed: Packed) -> Tensor:
        """Last hidden states of the text, (batch, length, width)."""
        n_prefix = prefix.known.shape[1]
        text = self.embed(prefix, packed.tokens)
        inputs = torch.cat([prefix.embedded.to(text.dtype), text], 1)
        in_front = prefix.known.sum(1, keepdim=True)
        positions = torch.cat(
            [torch.cumsum(prefix.known, 1).sub(1).clamp(min=0), in_front + packed.positions.to(self.device)], 1
        )
        seen = attention(packed, n_prefix, prefix.known.cpu()).to(self.device)
        body = cast(Any, self.language_model).get_decoder()
        states: Tensor = body(
            inputs_embeds=inputs, attention_mask=seen, position_ids=positions, use_cache=False
        ).last_hidden_state
        return states[:, n_prefix:]

    def logits(self, states: Tensor) -> Tensor:
        """(n, width) → (n, vocabulary)."""
        head = cast(Any, self.language_model).get_output_embeddings()
        return cast(Tensor, head(states))

    def loss(self, prefix: Prefix, packed: Packed) -> Tensor:
        """Weighted mean cross-entropy of the tokens to be learned: answers, never questions."""
        learned = packed.targets != -100
        states = self.hidden(prefix, packed)[learned.to(self.device)]
        targets = packed.targets[learned].to(self.device)
        each = nn.functional.cross_entropy(self.logits(states).float(), targets, reduction="none")
        weights = packed.weights[learned].to(self.device)
        return (each * weights).sum() / weights.sum()

    def yes_minus_no(self, prefix: Prefix, batch: Sequence[Sequence[Branch]]) -> list[Tensor]:
        """For each row the logit of yes minus that of no after every leaf of its branches."""
        packed = pack(batch)
        states = self.hidden(prefix, packed)
        head = cast(Any, self.language_model).get_output_embeddings()
        direction = (head.weight[self.codec.yes] - head.weight[self.codec.no]).to(states.dtype)
        return [(states[row, last] @ direction).float() for row, last in enumerate(packed.last)]

    @torch.inference_mode()
    def generate(self, prefix: Prefix, tokens: Sequence[int], most: int) -> tuple[list[int], float]:
        """The likeliest continuation, token by token, of one row; and the geometric mean of its probabilities."""
        body = cast(Any, self.language_model).get_decoder()
        cache = self._new_cache()
        prompt = torch.tensor([list(tokens)], device=self.device)
        inputs = torch.cat(
            [prefix.embedded[:, prefix.known[0]], self.embed(prefix, prompt).to(prefix.embedded.dtype)], 1
        )
        inputs = inputs.to(self.embedding.weight.dtype)
        end, log_probability = list(self.codec.end), 0.0
        said: list[int] = []
        while len(said) < most and said[-len(end) :] != end:
            states = body(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            scores = self.logits(states).float().log_softmax(-1)[0]
            chosen = int(scores.argmax())
            log_probability += float(scores[chosen])
            said.append(chosen)
            inputs = self.embed(prefix, torch.tensor([[chosen]])).to(self.embedding.weight.dtype)
        probability = float(torch.tensor(log_probability / max(1, len(said))).exp())
        return (said[: -len(end)] if said[-len(end) :] == end else said), probability

    def _new_cache(self) -> Any:
        if isinstance(self.language_model, Llama):
            return self.language_model.new_cache()
        from transformers import DynamicCache

        return DynamicCache()


def built_in_language_model(config: Mapping[str, Any], vocabulary: int) -> nn.Module:
    """A small Llama with random weights, whose attention starts out looking for what is alike.

    Queries and keys begin equal and larger than usual, so that a word of a question finds the ECG token of that name
    from the first step on (mimetic initialisation, Trockman & Kolter, ICML 2023).
    """
    model = Llama(LlamaSize(vocabulary, config["width"], config["inner_width"], config["layers"], config["heads"]))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= _ALIKE
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model
