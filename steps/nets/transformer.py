"""Transformer layers (Vaswani et al. 2017, arXiv:1706.03762; pre-norm) and the decoder that attends to an encoder.

Parameter names are those of icefall's attention decoder (`zipformer/attention_decoder.py`). Whisper's encoder and
decoder consist of the same layers, so that its weights fit too (`steps.pretrained.whisper`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import repeat
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from steps.nets.activation import Gelu
from utils.options import Config

MASKED = -1.0e4  # added to the score of what must not be seen; fits float16
CACHED = 1 << 21  # scores of attention that a CPU computes at a time: 8 MB
ACTIVATIONS = {"relu": nn.ReLU, "gelu": Gelu, "swish": nn.SiLU}
Cache = tuple[Tensor, Tensor]  # keys and values (batch, heads, length, head_dim)


class TransformerConfig(Config):
    """Sizes of a stack of transformer layers."""

    dim: int = Field(512, ge=2)
    layers: int = Field(6, ge=1)
    heads: int = Field(8, ge=1)
    feedforward_dim: int = Field(2048, ge=1)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    activation: Literal["relu", "gelu", "swish"] = "swish"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_positions: int = Field(512, ge=1)  # of learned positions: the longest sequence
    final_norm: bool = True  # layer norm behind the last layer (icefall has none)

    @model_validator(mode="after")
    def _check(self) -> TransformerConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even and a multiple of heads ({self.heads})")
        return self


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32, also under autocast (torch 1.13 has no other on a CPU)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; q `(..., U, d)`, k and v `(..., S, d)`, mask is added to the scores."""
    if q.device.type != "cpu" and hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.to(q.dtype))
    # a CPU is quickest, mostly also beside torch's fused kernel, where the scores of some queries stay in its caches
    rows = max(CACHED // max(k.shape[:-1].numel(), 1), 1)
    if q.shape[-2] <= rows:
        return _attend(q, k, v, mask)
    k, v = k.contiguous(), v.contiguous()  # otherwise each product would copy them
    masks = repeat(mask) if mask is None or mask.shape[-2] == 1 else mask.split(rows, -2)
    return torch.cat([_attend(some, k, v, own) for some, own in zip(q.split(rows, -2), masks, strict=False)], -2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    return torch.matmul(scores.float().softmax(dim=-1).to(v.dtype), v)


class MultiHeadAttention(nn.Module):
    """Attention of `dim` values to a memory of `memory_dim` values, in `heads` heads."""

    def __init__(self, dim: int, heads: int, memory_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(memory_dim or dim, dim)
        self.linear_v = nn.Linear(memory_dim or dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, memory: Tensor) -> Cache:
        """Keys and values `(batch, heads, length, head_dim)` of a memory `(batch, length, memory_dim)`."""
        return self._split(self.linear_k(memory)), self._split(self.linear_v(memory))

    def forward(self, x: Tensor, cache: Cache, mask: Tensor | None = None) -> Tensor:
        """x `(batch, U, dim)` attends to what `project` gave; mask broadcasts to `(batch, heads, U, length)`."""
        y = attend(self._split(self.linear_q(x)), *cache, mask)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Self-attention, attention to a memory (where `memory_dim` is given), feed-forward; each normed before, added."""

    def __init__(self, config: TransformerConfig, memory_dim: int | None = None) -> None:
        super().__init__()
        dim = config.dim
        self.norm_self_attn = LayerNorm(dim)
        self.self_attn = MultiHeadAttention(dim, config.heads)
        if memory_dim is not None:
            self.norm_src_attn = LayerNorm(dim)
            self.src_attn = MultiHeadAttention(dim, config.heads, memory_dim)
        self.norm_ff = LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, config.feedforward_dim),
            ACTIVATIONS[config.activation](),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward_dim, dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: Cache | None = None, memory: Cache | None = None, seen=None
    ) -> tuple[Tensor, Cache]:
        """x `(rows, U, dim)`; `past` is prepended to its own keys and values, which are returned with it.

        `memory` `(batch, heads, S, d)` may serve several rows (rows = batch * beam); `seen` masks it.
        """
        y = self.norm_self_attn(x)
        cache = self.self_attn.project(y)
        if past is not None:
            cache = (torch.cat((past[0], cache[0]), dim=2), torch.cat((past[1], cache[1]), dim=2))
        x = x + self.dropout(self.self_attn(y, cache, mask))
        if memory is not None:
            y = self.norm_src_attn(x).reshape(memory[0].shape[0], -1, x.shape[-1])
            x = x + self.dropout(self.src_attn(y, memory, seen).view(x.shape))
        return x + self.dropout(self.feed_forward(self.norm_ff(x))), cache


def padding_mask(lens: Tensor, length: int) -> Tensor | None:
    """`(batch, 1, 1, length)` float: 0 within `lens (batch,)`, `MASKED` beyond."""
    return (torch.arange(length, device=lens.device) >= lens[:, None])[:, None, None].float() * MASKED


def causal_mask(new: int, past: int, device: torch.device) -> Tensor | None:
    """`(new, past + new)` float that hides the future from each of `new` positions; None for a single one."""
    if new == 1:
        return None
    return torch.full((new, past + new), MASKED, device=device).triu(past + 1)


def sinusoids(places: Tensor, dim: int) -> Tensor:
    """`(..., dim)` for positions `(...)`, of Vaswani et al., section 3.5: sines at even, cosines at odd places."""
    rate = torch.exp(torch.arange(0, dim, 2, device=places.device, dtype=torch.float32) * (-math.log(10000.0) / dim))
    angles = places[..., None] * rate
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class Embedding(nn.Module):
    """Base of what begins with tokens: `embed`, and their positions (`pos.weight` where they are learned)."""

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(vocab_size, config.dim)
        # what icefall's and ESPnet's scaling by sqrt(dim) makes of a unit normal is dim times too large a variance
        nn.init.normal_(self.embed.weight, std=config.dim**-0.5)
        self.pos = nn.Embedding(config.max_positions, config.dim) if config.positions == "learned" else None
        if self.pos is not None:
            nn.init.normal_(self.pos.weight, std=config.dim**-0.5)
        self.embed_dropout = nn.Dropout(config.dropout)

    def embedded(self, tokens: Tensor, start: int | Tensor = 0) -> Tensor:
        """Tokens `(..., U)` at positions from `start` on (of all rows, or of each `(..., 1)`) as `(..., U, dim)`."""
        places = start + torch.arange(tokens.shape[-1], device=tokens.device)
        if self.pos is not None:
            x = self.embed(tokens) + self.pos(places)
        else:
            x = self.embed(tokens) * math.sqrt(self.config.dim) + sinusoids(places, self.config.dim)
        return self.embed_dropout(x)


@dataclass
class DecoderState:
    """What a decoder has computed for N utterances with B hypotheses each.

    `memory`: each layer's keys and values of the encoder's output `(N, heads, S, d)`; `seen`: its mask; `past`: each
    layer's own keys and values `(N * B, heads, length, d)`.
    """

    memory: list[Cache]
    seen: Tensor | None
    length: int = 0
    past: list[Cache] = field(default_factory=list)

    def reorder(self, source: Tensor) -> None:
        """Hypothesis b of utterance n becomes what `source[n, b]` was; `source` `(N, B)` may change B."""
        rows = self.past[0][0].shape[0] // source.shape[0]
        index = (source + torch.arange(source.shape[0], device=source.device)[:, None] * rows).flatten()
        self.past = [(k.index_select(0, index), v.index_select(0, index)) for k, v in self.past]

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances `(N',)` alone."""
        batch = self.memory[0][0].shape[0]
        self.memory = [(k[utterances], v[utterances]) for k, v in self.memory]
        self.seen = None if self.seen is None else self.seen[utterances]
        self.past = [tuple(x.unflatten(0, (batch, -1))[utterances].flatten(0, 1) for x in pair) for pair in self.past]


class TransformerDecoder(Embedding):
    """Predicts the next token from those before and a memory: `(batch, S, memory_dim)`, an encoder's output.

    `tied`: the output layer's weights are the embeddings', without bias (Whisper, Press and Wolf 2017).
    """

    def __init__(self, config: TransformerConfig, memory_dim: int, vocab_size: int, tied: bool = False) -> None:
        super().__init__(config, vocab_size)
        self.layers = nn.ModuleList(TransformerLayer(config, memory_dim) for _ in range(config.layers))
        self.norm = LayerNorm(config.dim) if config.final_norm else nn.Identity()
        self.output_layer = None if tied else nn.Linear(config.dim, vocab_size)

    def start(self, memory: Tensor, lens: Tensor) -> DecoderState:
        """The state before the first token."""
        return DecoderState(
            [layer.src_attn.project(memory) for layer in self.layers], padding_mask(lens, memory.shape[1])
        )

    def extend(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Log-odds `(N, B, U, vocab)` of what follows each of `tokens (N, B, U)`, which `state` then includes."""
        x = self.embedded(tokens.flatten(0, 1), state.length)
        mask = causal_mask(tokens.shape[-1], state.length, x.device)
        past, state.past = state.past or [None] * len(self.layers), []
        for layer, before, memory in zip(self.layers, past, state.memory, strict=True):
            x, cache = layer(x, mask, before, memory, state.seen)
            state.past.append(cache)
        state.length += tokens.shape[-1]
        return self.logits(self.norm(x)).view(*tokens.shape, -1)

    def logits(self, x: Tensor) -> Tensor:
        """Log-odds `(..., vocab)` of outputs `(..., dim)`."""
        return F.linear(x, self.embed.weight) if self.output_layer is None else self.output_layer(x)

    def forward(self, tokens: Tensor, memory: Tensor, lens: Tensor) -> Tensor:
        """Log-odds `(batch, U, vocab)` of the next token after each of `tokens (batch, U)`, given `memory`."""
        return self.extend(tokens[:, None], self.start(memory, lens))[:, 0]


class TransformerEncoder(Embedding):
    """Tokens `(batch, U)` with their `lens` to `(batch, U, dim)`: the encoder of text translation."""

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.dim) if config.final_norm else nn.Identity()

    def forward(self, tokens: Tensor, lens: Tensor) -> Tensor:
        return self.layered(self.embedded(tokens), padding_mask(lens, tokens.shape[1]))

    def layered(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What the layers make of vectors `(batch, U, dim)`; `mask` is added to attention's scores."""
        for layer in self.layers:
            x, _ = layer(x, mask)
        return self.norm(x)
