"""Zipformer's attention: weights computed once a layer with relative positions, then used three times.

Names and shapes follow icefall's modules, so that its checkpoints load. Everything is batch first. Zipformer: Yao et
al., 2024, arXiv:2310.11230; relative positions: Dai et al., 2019, arXiv:1901.02860.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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


def relative_to_absolute(scores: Tensor) -> Tensor:
    """(..., time, 2 time - 1) by offset, contiguous -> (..., time, time) by key: a view of i, j - i + time - 1."""
    *batch, time, width = scores.shape
    strides = scores.stride()
    return scores.as_strided((*batch, time, time), (*strides[:-2], width - 1, 1), scores.storage_offset() + time - 1)


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

    def forward(self, x: Tensor, positions: Tensor, key_bias: Tensor, mask: Tensor | None) -> Tensor:
        """x (batch, time, dim), positions (2 time - 1, pos_dim), key_bias (batch, 1, 1, time) 0 or `MASKED`, mask
        (time, time) 0 or `MASKED` from query to key -> weights (batch, heads, time, time) that sum to 1 over keys."""
        batch, time, _ = x.shape
        size = self.heads * self.query_head_dim
        q, k, p = self.in_proj(x).split((size, size, self.heads * self.pos_head_dim), dim=2)
        k = self.whiten_keys(self.balance_keys(k))
        q, k, p = (part.reshape(batch, time, self.heads, -1).transpose(1, 2) for part in (q, k, p))
        scores = torch.matmul(q, k.transpose(2, 3))
        encoded = self.linear_pos(positions).view(2 * time - 1, self.heads, -1).permute(1, 2, 0)
        if self.training and chance(self.pos_skip_rate):
            scores = scores + 0.0 * encoded.sum()  # every parameter has a gradient on every step
        else:
            scores = scores + relative_to_absolute(torch.matmul(p, encoded).contiguous())
        scores = scores + (key_bias if mask is None else torch.minimum(key_bias, mask))
        return scores.softmax(3)


def constant_weights(weights: Tensor) -> Tensor:
    """Even weights over the keys that have any."""
    ones = (weights > 0.0).to(weights.dtype)
    return ones / ones.sum(-1, keepdim=True)


class SelfAttention(nn.Module):
    """Values averaged with given weights."""

    def __init__(self, dim: int, heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, heads * value_head_dim)
        self.out_proj = Linear(heads * value_head_dim, dim, scale=0.05)
        self.whiten = Whiten(whiten_schedule(7.5, ratio=3.0))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (batch, time, dim), weights (batch, heads, time, time) -> (batch, time, dim)."""
        batch, time, _ = x.shape
        values = self.in_proj(x).view(batch, time, self.heads, -1).transpose(1, 2)
        values = torch.matmul(weights, values).transpose(1, 2).reshape(batch, time, -1)
        return self.whiten(self.out_proj(values))


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

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (batch, time, dim), weights (batch, time, time) -> (batch, time, dim)."""
        gate, x, y = self.in_proj(x).chunk(3, dim=2)
        x = self.whiten1(x) * torch.tanh(self.balancer(gate))
        return self.whiten2(self.out_proj(torch.matmul(weights, x) * y))
