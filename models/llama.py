"""The built-in language model: Llama (Touvron et al. 2023) in one file, named and shaped as Hugging Face's.

Importing transformers takes seconds that a question at the command line does not have; a test holds the two to the same
numbers. Only what the built-in model needs is here: as many key heads as query heads, embeddings tied to the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-6
ROPE_BASE = 10_000.0
INITIAL_SPREAD = 0.02


@dataclass(frozen=True)
class LlamaSize:
    """How large a model is."""

    vocabulary: int
    width: int
    inner_width: int
    layers: int
    heads: int


@dataclass
class Cache:
    """Keys and values of the tokens so far, one pair per layer, each (batch, heads, length, head_width)."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.keys[0].shape[2] if self.keys else 0

    def add(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, with these behind the others."""
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], keys], 2)
            self.values[layer] = torch.cat([self.values[layer], values], 2)
        return self.keys[layer], self.values[layer]


@dataclass
class States:
    """What a decoder gives."""

    last_hidden_state: Tensor
    """(batch, length, width)"""


class Norm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019), worked out in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPSILON)).to(x.dtype)


class Attention(nn.Module):
    """Scaled dot-product attention with rotary positions (Su et al. 2021)."""

    def __init__(self, size: LlamaSize, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, size.heads
        self.q_proj = nn.Linear(size.width, size.width, bias=False)
        self.k_proj = nn.Linear(size.width, size.width, bias=False)
        self.v_proj = nn.Linear(size.width, size.width, bias=False)
        self.o_proj = nn.Linear(size.width, size.width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor | None, cache: Cache | None) -> Tensor:
        """(batch, length, width) → the same."""
        batch, length, width = x.shape
        queries, keys, values = (
            layer(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )  # (batch, heads, length, head_width)
        queries, keys = turned(queries, turn), turned(keys, turn)
        if cache is not None:
            keys, values = cache.add(self.layer, keys, values)
        causal = seen is None and length > 1
        told = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=causal)
        result: Tensor = self.o_proj(told.transpose(1, 2).reshape(batch, length, width))
        return result


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates each pair (i, i + half) of a head's numbers by its position's angle."""
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Inner(nn.Module):
    """Gated linear unit with SiLU (Shazeer 2020)."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.width, size.inner_width, bias=False)
        self.up_proj = nn.Linear(size.width, size.inner_width, bias=False)
        self.down_proj = nn.Linear(size.inner_width, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) → the same."""
        result: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class Layer(nn.Module):
    """Attention, then the gated unit, each behind a norm and beside a shortcut."""

    def __init__(self, size: LlamaSize, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(size, layer)
        self.mlp = Inner(size)
        self.input_layernorm = Norm(size.width)
        self.post_attention_layernorm = Norm(size.width)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor | None, cache: Cache | None) -> Tensor:
        """(batch, length, width) → the same."""
        x = x + self.self_attn(self.input_layernorm(x), turn, seen, cache)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Decoder(nn.Module):
    """Embedded tokens → hidden states."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocabulary, size.width)
        layers = [Layer(size, number) for number in range(size.layers)]
        self.layers: Sequence[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = Norm(size.width)
        head_width = size.width // size.heads
        frequencies = ROPE_BASE ** -(torch.arange(0, head_width, 2).float() / head_width)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> States:
        """Hidden states of embedded tokens.

        Args:
            inputs_embeds: (batch, length, width).
            attention_mask: (batch, 1, length, length) whether a place sees another; left out, all before it and itself.
            position_ids: (batch, length); left out, counted on from the cache.
            past_key_values: tokens before these, added to.
            use_cache: as in transformers; the cache given is used.
        """
        if position_ids is None:
            start = 0 if past_key_values is None else past_key_values.length
            position_ids = torch.arange(start, start + inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        angles = position_ids[:, None, :, None].float() * self.frequencies  # (batch, 1, length, head_width / 2)
        angles = torch.cat([angles, angles], -1)
        x = inputs_embeds
        turn = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, turn, attention_mask, past_key_values)
        return States(self.norm(x))


class Head(nn.Module):
    """Hidden states → logits, by the weights of the embedding."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, states: Tensor) -> Tensor:
        """(…, width) → (…, vocabulary)."""
        return F.linear(states, self.weight)


class Llama(nn.Module):
    """A causal language model with random weights."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        if size.width % (2 * size.heads):
            raise ValueError(f"width {size.width} is not a multiple of twice the {size.heads} heads")
        self.model = Decoder(size)
        self.lm_head = Head(self.model.embed_tokens)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=INITIAL_SPREAD)

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding of tokens."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> Head:
        """The head."""
        return self.lm_head

    def get_decoder(self) -> Decoder:
        """All but the head."""
        return self.model

    def new_cache(self) -> Cache:
        """For generating token by token."""
        return Cache()
