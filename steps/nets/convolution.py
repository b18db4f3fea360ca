"""Zipformer's convolution module: gated, depthwise over time; a chunk-causal variant for streaming models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.nets.attention import whiten_schedule
from steps.nets.regularizers import Balancer, Whiten
from steps.nets.scaling import Linear, SwooshLinear
from steps.nets.schedule import Schedule


def depthwise(x: Tensor, conv: nn.Conv1d, padding: int) -> Tensor:
    """A depthwise convolution over time of x (batch, time, channels), zero-padded by `padding` on both sides."""
    # as a two-dimensional convolution with channels last, which needs no transposition and is several times faster
    weight = conv.weight.to(x.dtype).unsqueeze(3)
    y = x.unsqueeze(2).permute(0, 3, 1, 2)
    y = F.conv2d(y, weight, conv.bias.to(x.dtype), 1, (padding, 0), 1, x.shape[2])
    return y.squeeze(3).transpose(1, 2)


class DepthwiseConv(nn.Conv1d):
    """A depthwise convolution over time that keeps the length."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor, lens: Tensor, chunk_size: int) -> Tensor:
        """(batch, time, channels) to the same shape."""
        return depthwise(x, self, self.padding[0])


class ChunkCausalDepthwiseConv(nn.Module):
    """A causal convolution over the past plus one within the chunk, whose outputs near the edges are rescaled.

    No output depends on a frame beyond its chunk. A `chunk_size` below 1 makes the utterance one chunk.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.causal_conv = nn.Conv1d(channels, channels, (kernel + 1) // 2, groups=channels)
        self.chunkwise_conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, channels, kernel))  # left edge, right edge

    def edge_scale(self, lens: Tensor, chunk: int) -> Tensor:
        """Scales (batch, chunk, channels) of the first chunk, which ends with the utterance if that is shorter."""
        left, right = self.chunkwise_conv_scale.transpose(1, 2).unbind(0)  # (kernel, channels)
        kernel = self.kernel
        left = F.pad(left, (0, 0, 0, max(chunk - kernel, 0)))[:chunk]
        # the right edge's last row belongs to the last frame of the chunk
        ends = lens.clamp(max=chunk).unsqueeze(1)
        index = torch.arange(chunk, device=lens.device) - ends + kernel
        inside = ((index >= 0) & (index < kernel)).unsqueeze(2)
        return 1.0 + left + right[index.clamp(0, kernel - 1)] * inside

    def forward(self, x: Tensor, lens: Tensor, chunk_size: int) -> Tensor:
        """x (batch, time, channels), zero beyond lens (batch,) -> the same shape."""
        batch, time, channels = x.shape
        chunk = time if chunk_size <= 0 else min(chunk_size, time)
        past = depthwise(F.pad(x, (0, 0, self.kernel // 2, 0)), self.causal_conv, 0)
        chunks = F.pad(x, (0, 0, 0, -time % chunk))
        count = chunks.shape[1] // chunk
        within = depthwise(chunks.reshape(batch * count, chunk, channels), self.chunkwise_conv, self.kernel // 2)
        within = within.reshape(batch, count, chunk, channels)
        scale = self.edge_scale(lens, chunk).to(x.dtype)
        if count > 1:  # chunks after the first are whole, whatever the utterance's length
            whole = self.edge_scale(lens.new_full((1,), chunk), chunk).to(x.dtype)
            scale = torch.stack([scale] + [whole.expand_as(scale)] * (count - 1), dim=1)
        else:
            scale = scale.unsqueeze(1)
        return past + (within * scale).reshape(batch, count * chunk, channels)[:, :time]


class ConvolutionModule(nn.Module):
    """Linear, gate, depthwise convolution, SwooshR, linear."""

    def __init__(self, channels: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.in_proj = Linear(channels, 2 * channels)
        conv = ChunkCausalDepthwiseConv if causal else DepthwiseConv
        self.depthwise_conv = conv(channels, kernel)
        self.out_proj = SwooshLinear(channels, channels, "r", dropout=0.0, scale=0.05)
        # keeps the gates' inputs from growing until their gradients are sparse
        self.balancer1 = Balancer(
            Schedule((0, 0.05), (8000, 0.025)), 1.0, 1.5, Schedule((0, 5.0), (8000, 10.0), default=1.0)
        )
        self.balancer2 = Balancer(Schedule((0, 0.1), (8000, 0.05)), 1.0, Schedule((0, 0.2), (20000, 0.5)), 10.0)
        self.whiten = Whiten(whiten_schedule(7.5))

    def forward(self, x: Tensor, frame_mask: Tensor, lens: Tensor, chunk_size: int = -1) -> Tensor:
        """x (batch, time, channels), frame_mask (batch, time, 1) 1 within an utterance and 0 beyond, lens (batch,)
        -> (batch, time, channels)."""
        x, gate = self.in_proj(x).chunk(2, dim=2)
        x = x * torch.sigmoid(self.balancer1(gate)) * frame_mask
        x = self.depthwise_conv(x, lens, chunk_size)
        return self.out_proj(self.whiten(self.balancer2(x)))
