"""Zipformer's attention: weights computed once a layer with relative positions, then used three times.

Names and shapes follow icefall's modules, so that its checkpoints load. Everything is batch first. Zipformer: Yao et
al., 2024, arXiv:2310.11230; relative positions: Dai et al., 2019, arXiv:1901.02860.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from steps.nets.attention_kernel import RelativeAttention
from steps.nets.regularizers import Balancer, Whiten
from steps.nets.scaling import Linear
from steps.nets.schedule import Schedule, chance

MASKED = -1000.0  # added to the score of a masked key: its weight underflows to exactly zero


def whiten_schedule(limit: float, ratio: float = 2.0) -> Schedule:
    """Whitening limits start strict and are relaxed by `ratio`."""
    return Schedule((0, limit), (20000, ratio * limit), default=limit)


class RelativePositions(nn.Module):
    """Encodes offsets from -(time - 1) to time - 1 as Fourier features of a compressed axis (logarithm, then atan)."""

    def __init__(self, dim: int, dropout: float = 0.15) -> None:
        super().__init__()
        self.dim, self.dropout = dim, dropout

    def forward(self, time: int, like: Tensor) -> Tensor:
        """(2 time - 1, dim) in the type and on the device of `like`."""
        offsets = torch.arange(1 - time, time, device=like.device, dtype=torch.float32).unsqueeze(1)
        root = math.sqrt(self.dim)
        compressed = root * offsets.sign() * ((offsets.abs() + root).log() - math.log(root))
        angles = (compressed * (2.0 * math.pi / self.dim)).atan()
        angles = angles * torch.arange(1, self.dim // 2 + 1, device=like.device)
        encoding = torch.stack((angles.cos(), angles.sin()), dim=2).flatten(1)
        encoding[:, -1] = 1.0
        return nn.functional.dropout(encoding, self.dropout, self.training).to(like.dtype)


class AttentionWeights(nn.Module):
    """Attention weights from content and relative position: softmax(query key + position query position)."""

    def __init__(self, dim: int, pos_dim: int, heads: int, query_head_dim: int, pos_head_dim: int) -> None:
        super().__init__()
        self.heads, self.query_head_dim, self.pos_head_dim = heads, query_head_dim, pos_head_dim
        # the initial scale takes the part of 1 / sqrt(query_head_dim), half for queries and half for keys
        outputs = heads * (2 * query_head_dim + pos_head_dim)
        self.in_proj = Linear(dim, outputs, scale=query_head_dim**-0.25)
        self.linear_pos = Linear(pos_dim, heads * pos_head_dim, bias=False, scale=0.05)
        self.pos_skip_rate = Schedule((0, 0.5), (4000, 0.0), default=0.0)
        self.balance_keys = Balancer(0.4, 0.6, 0.0, 100.0, prob=0.025)
        self.whiten_keys = Whiten(whiten_schedule(3.0), gain=0.025, groups=heads)

    def forward(self, x: Tensor, positions: Tensor, bias: Tensor | None) -> RelativeAttention:
        """x (batch, time, dim), positions (2 time - 1, pos_dim), bias (batch, 1 or time, time) 0 or `MASKED`."""
        time = x.shape[1]
        size = self.heads * self.query_head_dim
        q, k, p = self.in_proj(x).split((size, size, self.heads * self.pos_head_dim), dim=2)
        k = self.whiten_keys(self.balance_keys(k))
        q, k, p = (heads_first(part, self.heads) for part in (q, k, p))
        positions = self.linear_pos(positions).view(2 * time - 1, self.heads, -1).permute(1, 2, 0)
        if self.training and chance(self.pos_skip_rate):
            q = q + 0.0 * (positions.sum() + p.sum())  # every parameter has a gradient on every step
            p = None
        return RelativeAttention(q, k, p, positions, bias)


def heads_first(x: Tensor, heads: int) -> Tensor:
    """(batch, time, heads * dim) -> (heads, batch, time, dim)."""
    return x.unflatten(2, (heads, -1)).permute(2, 0, 1, 3)


class SelfAttention(nn.Module):
    """Values averaged with given weights."""

    def __init__(self, dim: int, heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, heads * value_head_dim)
        self.out_proj = Linear(heads * value_head_dim, dim, scale=0.05)
        self.whiten = Whiten(whiten_schedule(7.5, ratio=3.0))

    def forward(self, x: Tensor, attention: RelativeAttention) -> Tensor:
        """(batch, time, dim) to the same shape."""
        values = attention.average(heads_first(self.in_proj(x), self.heads))
        return self.whiten(self.out_proj(values.permute(1, 2, 0, 3).flatten(2)))


class NonlinAttention(nn.Module):
    """Like a convolution module, with the weights of the first head in place of the convolution."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.in_proj = Linear(dim, 3 * hidden)
        self.out_proj = Linear(hidden, dim, scale=0.05)
        self.balancer = Balancer(
            Schedule((0, 0.25), (20000, 0.05)), Schedule((0, 0.75), (20000, 0.95)), min_abs=0.5, max_abs=5.0
        )
        self.whiten1 = Whiten(whiten_schedule(5.0))
        self.whiten2 = Whiten(whiten_schedule(5.0, ratio=3.0))

    def forward(self, x: Tensor, attention: RelativeAttention, even: bool = False) -> Tensor:
        """(batch, time, dim) to the same shape; with `even`, all keys have the same weight."""
        gate, x, y = self.in_proj(x).chunk(3, dim=2)
        x = self.whiten1(x) * torch.tanh(self.balancer(gate))
        x = attention.even(x) if even else attention.average(x)
        return self.whiten2(self.out_proj(x * y))
