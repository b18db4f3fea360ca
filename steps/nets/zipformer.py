"""The Zipformer encoder of 2024: stacks of layers at several frame rates (Yao et al., arXiv:2310.11230).

Module and parameter names are those of icefall's `zipformer.py`, so that its state dicts load. Unlike there, padding
never changes an utterance's result, and tensors are (batch, time, dim).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steps.nets.attention import (
    MASKED,
    AttentionWeights,
    NonlinAttention,
    RelativePositions,
    SelfAttention,
    whiten_schedule,
)
from steps.nets.convolution import ConvolutionModule
from steps.nets.placement import on_cpu
from steps.nets.regularizers import Balancer, Whiten
from steps.nets.scaling import BiasNorm, Bypass, Linear, SwooshLinear, add_unless, skip_mask
from steps.nets.schedule import FloatLike, Schedule, chance


@dataclass
class Frames:
    """What a stack knows about its time axis: lens (batch,), and masks in the type that is computed in."""

    lens: Tensor
    inside: Tensor  # (batch, time, 1): 1 within an utterance
    bias: Tensor | None  # (batch, 1 or time, time): MASKED from a query to a key that it must not see
    chunk_size: int = -1

    @classmethod
    def of(cls, x: Tensor, lens: Tensor, chunk_size: int = -1, left_chunks: int = -1) -> Frames:
        """For x (batch, time, dim); queries see their chunk and `left_chunks` before it (-1: all)."""
        index = torch.arange(x.shape[1], device=x.device)
        inside = index < lens.unsqueeze(1)
        visible = inside.unsqueeze(1)
        if chunk_size > 0:
            chunk = torch.div(index, chunk_size, rounding_mode="floor")
            back = chunk.unsqueeze(1) - chunk
            visible = visible & (back >= 0) & (back <= (left_chunks if left_chunks >= 0 else len(index)))
        bias = torch.where(visible, 0.0, MASKED).to(x.dtype)
        if on_cpu(x) and visible.all():  # the question would make an accelerator wait
            bias = None
        return cls(lens, inside.unsqueeze(2).to(x.dtype), bias, chunk_size)

    def every(self, factor: int) -> Frames:
        """The same at `factor` times fewer frames."""
        if factor == 1:
            return self
        bias = self.bias
        if bias is not None:
            bias = bias[:, :: factor if bias.shape[1] > 1 else 1, ::factor]
        lens = torch.div(self.lens + factor - 1, factor, rounding_mode="floor")
        return Frames(lens, self.inside[:, ::factor], bias, max(self.chunk_size // factor, -1))


class FeedForward(nn.Module):
    """Linear, SwooshL, dropout shared over time, linear."""

    def __init__(self, dim: int, hidden: int, dropout: FloatLike) -> None:
        super().__init__()
        self.in_proj = Linear(dim, hidden)
        self.hidden_balancer = Balancer(0.3, 1.0, 0.75, 5.0)
        self.out_proj = SwooshLinear(hidden, dim, "l", dropout, scale=0.1)
        self.out_whiten = Whiten(whiten_schedule(7.5))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, dim) to the same shape."""
        return self.out_whiten(self.out_proj(self.hidden_balancer(self.in_proj(x))))


@dataclass
class LayerSizes:
    """The sizes of one stack's layers."""

    dim: int
    pos_dim: int
    heads: int
    query_head_dim: int
    pos_head_dim: int
    value_head_dim: int
    feedforward_dim: int
    kernel: int


class ZipformerLayer(nn.Module):
    """One set of attention weights used three times, three feed-forwards, two convolutions, two bypasses, one norm."""

    def __init__(self, sizes: LayerSizes, dropout: FloatLike, causal: bool, layer_skip_rate: Schedule) -> None:
        super().__init__()
        dim, hidden = sizes.dim, sizes.feedforward_dim
        self.bypass = Bypass(dim, layer_skip_rate)
        self.bypass_mid = Bypass(dim)
        self.self_attn_weights = AttentionWeights(
            dim, sizes.pos_dim, sizes.heads, sizes.query_head_dim, sizes.pos_head_dim
        )
        self.self_attn1 = SelfAttention(dim, sizes.heads, sizes.value_head_dim)
        self.self_attn2 = SelfAttention(dim, sizes.heads, sizes.value_head_dim)
        self.feed_forward1 = FeedForward(dim, hidden * 3 // 4, dropout)
        self.feed_forward2 = FeedForward(dim, hidden, dropout)
        self.feed_forward3 = FeedForward(dim, hidden * 5 // 4, dropout)
        self.nonlin_attention = NonlinAttention(dim, 3 * dim // 4)
        self.conv_module1 = ConvolutionModule(dim, sizes.kernel, causal)
        self.conv_module2 = ConvolutionModule(dim, sizes.kernel, causal)
        self.register_buffer("bypass_scale", torch.full((dim,), 0.5))  # unused; a parameter of icefall's layers
        self.norm = BiasNorm(dim)
        self._add_schedules()

    def _add_schedules(self) -> None:
        skip = (0, 0.2), (4000, 0.05), (16000, 0.0)
        self.attention_skip_rate = Schedule(*skip, default=0.0)
        self.conv_skip_rate = Schedule(*skip, default=0.0)
        self.const_attention_rate = Schedule((0, 0.25), (4000, 0.025), default=0.0)
        self.ff2_skip_rate = Schedule((0, 0.1), (4000, 0.01), (50000, 0.0), default=0.0)
        self.ff3_skip_rate = Schedule((0, 0.1), (4000, 0.01), (50000, 0.0), default=0.0)
        self.balancer1 = Balancer(0.45, 0.55, 0.2, 4.0)
        self.balancer2 = Balancer(0.45, 0.55, 0.1, 4.0)
        self.balancer_na = Balancer(0.3, 0.7, Schedule((0, 0.004), (4000, 0.02)), prob=0.05)
        self.balancer_ff2 = Balancer(0.3, 0.7, Schedule((0, 0.0), (4000, 0.1), default=0.0), 2.0, prob=0.05)
        self.balancer_ff3 = Balancer(0.3, 0.7, Schedule((0, 0.0), (4000, 0.2), default=0.0), 4.0, prob=0.05)
        self.whiten = Whiten(whiten_schedule(4.0, ratio=3.0))

    def forward(self, x: Tensor, positions: Tensor, frames: Frames) -> Tensor:
        """x (batch, time, dim), positions (2 time - 1, pos_dim) -> (batch, time, dim)."""
        old = x
        attention = self.self_attn_weights(x, positions, frames.bias)
        x = x + self.feed_forward1(x)
        attention_skip = skip_mask(x, self.attention_skip_rate, self.training)
        even = self.training and chance(self.const_attention_rate)
        x = add_unless(x, self.balancer_na(self.nonlin_attention(x, attention, even)), attention_skip)
        x = add_unless(x, self.self_attn1(x, attention), attention_skip)
        x = self._convolve(x, self.conv_module1, frames)
        ff = self.balancer_ff2(self.feed_forward2(x))
        x = add_unless(x, ff, skip_mask(x, self.ff2_skip_rate, self.training))
        x = self.bypass_mid(old, x)
        x = add_unless(x, self.self_attn2(x, attention), attention_skip)
        x = self._convolve(x, self.conv_module2, frames)
        ff = self.balancer_ff3(self.feed_forward3(x))
        x = add_unless(x, ff, skip_mask(x, self.ff3_skip_rate, self.training))
        x = self.norm(self.balancer1(x))
        return self.whiten(self.balancer2(self.bypass(old, x)))

    def _convolve(self, x: Tensor, module: ConvolutionModule, frames: Frames) -> Tensor:
        y = module(x, frames.inside, frames.lens, frames.chunk_size)
        return add_unless(x, y, skip_mask(x, self.conv_skip_rate, self.training))


class Stack(nn.Module):
    """Layers at one frame rate; while they warm up one after the other, utterances often skip them."""

    def __init__(
        self,
        sizes: LayerSizes,
        layers: int,
        dropout: FloatLike,
        causal: bool,
        warmup: tuple[float, float],
        final_skip_rate: float,
    ) -> None:
        super().__init__()
        self.encoder_pos = RelativePositions(sizes.pos_dim)
        begin, step = warmup[0], (warmup[1] - warmup[0]) / layers
        self.layers = nn.ModuleList()
        for n in range(layers):
            points = [(begin + n * step, 0.5), (begin + (n + 1) * step, final_skip_rate)]
            skip_rate = Schedule(*(points if step > 0 else points[1:]), default=0.0)
            self.layers.append(ZipformerLayer(sizes, dropout, causal, skip_rate))

    def forward(self, x: Tensor, frames: Frames, feature_mask: Tensor | None) -> Tensor:
        """x (batch, time, dim), feature_mask (batch, 1, dim) or None -> (batch, time, dim)."""
        positions = self.encoder_pos(x.shape[1], x)
        if feature_mask is not None:
            x = x * feature_mask
        for layer in self.layers:
            x = layer(x, positions, frames)
            if feature_mask is not None:
                x = x * feature_mask
        return x


class Downsample(nn.Module):
    """Weighted sums of `factor` frames; the last frame of an utterance is repeated where they do not come out even."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        bias = torch.zeros(factor)
        if factor == 1:  # nothing to learn
            self.register_buffer("bias", bias)
        else:
            self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """x (batch, time, dim), lens (batch,) -> (batch, ceil(time / factor), dim)."""
        batch, time, dim = x.shape
        factor = self.factor
        count = (time + factor - 1) // factor
        if factor == 1:
            return x
        weights = self.bias.softmax(0).to(x.dtype).unsqueeze(1)
        even = torch.cat((x, x[:, -1:].expand(batch, count * factor - time, dim)), dim=1)
        y = (even.view(batch, count, factor, dim) * weights).sum(2)
        # each utterance's last group again, from its own frames only
        last = torch.div(lens - 1, factor, rounding_mode="floor").clamp(min=0)
        index = last.unsqueeze(1) * factor + torch.arange(factor, device=x.device)
        index = torch.minimum(index, (lens - 1).clamp(min=0).unsqueeze(1))
        rows = torch.arange(batch, device=x.device)
        group = (x[rows.unsqueeze(1), index] * weights).sum(1)
        return y.index_put((rows, last), group)


class DownsampledStack(nn.Module):
    """A stack at a lower frame rate, its output repeated to the higher one and mixed with the input."""

    def __init__(self, stack: Stack, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.downsample = Downsample(factor)
        self.encoder = stack
        self.out_combiner = Bypass(dim)

    def forward(self, x: Tensor, frames: Frames, feature_mask: Tensor | None) -> Tensor:
        """As `Stack`; `frames` are those of `x`."""
        y = self.encoder(self.downsample(x, frames.lens), frames.every(self.factor), feature_mask)
        batch, count, dim = y.shape
        y = y.unsqueeze(2).expand(batch, count, self.factor, dim).reshape(batch, count * self.factor, dim)
        return self.out_combiner(x, y[:, : x.shape[1]])
