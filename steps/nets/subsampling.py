"""The convolutional front end: features at 100 frames a second to embeddings at 50 or 25."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.nets.placement import on_cpu
from steps.nets.regularizers import Balancer, ScaleGrad, Whiten
from steps.nets.scaling import BiasNorm, Linear, Swoosh, add_unless, dropout_mask, linear, skip_mask, swoosh_mlp
from steps.nets.schedule import FloatLike, Schedule
from utils.options import Config


class SubsamplingConfig(Config):
    """The front end: `factor` 2 with `convnext` is icefall's; 4 without is several times cheaper."""

    factor: Literal[2, 4] = 2
    channels: tuple[int, int, int] = (8, 32, 128)
    convnext: bool = True


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` for (batch, time, frequency, channels), in the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, frequency, channels) to the same kind."""
        weight = self.weight.to(x.dtype, memory_format=torch.channels_last)
        y = self._conv_forward(x.permute(0, 3, 1, 2), weight, self.bias.to(x.dtype))
        return y.permute(0, 2, 3, 1)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution, zero-padded to keep the size, whose backward pass consists of forward convolutions.

    PyTorch's own weight gradient takes 3 (float32) to 10 (bfloat16) times as long on CPUs.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        time, width = weight.shape[2] // 2, weight.shape[3] // 2
        return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, 1, (time, width), 1, len(weight)).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        time, width = weight.shape[2] // 2, weight.shape[3] // 2
        grad_x = F.conv2d(grad.permute(0, 3, 1, 2), weight.flip(2, 3), None, 1, (time, width), 1, len(weight))
        # the weight's gradient correlates the input with the output's gradient: that is one more convolution
        x = F.pad(x, (0, 0, width, width, time, time)).permute(0, 3, 1, 2)
        kernels = grad.permute(0, 3, 1, 2).unsqueeze(2)
        grads = (F.conv2d(x[n : n + 1], kernels[n], groups=len(weight)) for n in range(len(x)))
        grad_weight = sum(grad.to(torch.promote_types(grad.dtype, torch.float32)) for grad in grads).transpose(0, 1)
        return grad_x.permute(0, 2, 3, 1), grad_weight.to(weight.dtype), grad.sum((0, 1, 2))


class _ZeroTail(torch.autograd.Function):
    """Zeros in x (batch, time, ...) from frame lens[n] of row n on, in place: no gradient needs the old values."""

    @staticmethod
    def forward(ctx, x, lens):
        ctx.lens = lens
        ctx.mark_dirty(x)
        return _ZeroTail.zero(x, lens)

    @staticmethod
    def backward(ctx, grad):
        return _ZeroTail.zero(grad.clone(), ctx.lens), None

    @staticmethod
    def zero(x: Tensor, lens: Tensor) -> Tensor:
        """In place."""
        if not on_cpu(x):  # without asking for the lens, which would make the accelerator wait
            outside = torch.arange(x.shape[1], device=x.device) >= lens.unsqueeze(1)
            return x.masked_fill_(outside.view(*outside.shape, *[1] * (x.ndim - 2)), 0.0)
        for row, end in zip(x, lens.tolist(), strict=True):
            row[end:] = 0.0
        return x


class DepthwiseConv2d(Conv2d):
    """A depthwise convolution that keeps the size."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, frequency, channels) to the same shape."""
        if not on_cpu(x):
            return super().forward(x)
        return _Depthwise.apply(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class ConvNeXt(nn.Module):
    """A residual block: depthwise 7x7, then a hidden layer three times as wide (Liu et al., 2022, arXiv:2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 3 * channels
        self.depthwise_conv = DepthwiseConv2d(channels, 7)
        self.pointwise_conv1 = nn.Conv2d(channels, hidden, 1)
        self.pointwise_conv2 = nn.Conv2d(hidden, channels, 1)
        with torch.no_grad():  # starts as nearly the identity
            self.pointwise_conv2.weight.mul_(0.01)
            self.pointwise_conv2.bias.uniform_(-0.001, 0.001)
        self.skip_rate = Schedule((0, 0.2), (20000, 0.015))
        self.hidden_balancer = Balancer(0.3, 1.0, 0.75, 5.0)
        self.out_balancer = Balancer(0.4, 0.6, 1.0, 6.0)
        self.out_whiten = Whiten(5.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, frequency, channels) to the same shape; `x` is zero beyond each utterance's end."""
        y = self.depthwise_conv(x)
        y = swoosh_mlp(y, self.pointwise_conv1, self.pointwise_conv2, "l", self.hidden_balancer)
        mask = skip_mask(x, self.skip_rate, self.training)
        y = add_unless(x, y, None if mask is None else mask.unsqueeze(3))
        return self.out_whiten(self.out_balancer(y))


class Conv2dSubsampling(nn.Module):
    """Three convolutions over time and frequency, a ConvNeXt block, and a projection to the encoder's dimension."""

    def __init__(self, feature_dim: int, dim: int, config: SubsamplingConfig, dropout: FloatLike) -> None:
        super().__init__()
        self.factor = config.factor
        one, two, three = config.channels
        first = {"kernel_size": 3, "stride": 2} if config.factor == 4 else {"kernel_size": 3, "padding": (0, 1)}
        self.conv = nn.Sequential(
            Conv2d(1, one, **first),
            ScaleGrad(0.2),
            Balancer(max_abs=1.0),
            Swoosh("r"),
            Conv2d(one, two, 3, stride=2),
            Balancer(max_abs=4.0),
            Swoosh("r"),
            Conv2d(two, three, 3, stride=(1, 2)),
            Balancer(max_abs=4.0),
            Swoosh("r"),
        )
        width = (feature_dim - 1) // 2 if config.factor == 4 else feature_dim
        self.width = ((width - 1) // 2 - 1) // 2
        self.convnext = ConvNeXt(three) if config.convnext else None
        self.out = Linear(self.width * three, dim)
        self.out_whiten = Whiten(Schedule((0, 4.0), (20000, 8.0), default=4.0), gain=0.02)
        self.out_norm = BiasNorm(dim)
        self.dropout = dropout

    def output_lens(self, lens: Tensor) -> Tensor:
        """Frames out (batch,) for `lens` frames in: (lens - 7) // 2, or half of that for factor 4; at least 0."""
        if self.factor == 4:
            lens = torch.div(lens - 1, 2, rounding_mode="floor") + 2
        return torch.div(lens - 7, 2, rounding_mode="floor").clamp(min=0)

    @property
    def origin(self) -> float:
        """Feature frames before the sound of the first frame out, the middle of which is frame 4 (7 for factor 4)."""
        return 3.5 if self.factor == 2 else 5.5

    @property
    def min_frames(self) -> int:
        """The fewest frames in that give a frame out."""
        return 15 if self.factor == 4 else 9

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features (batch, time, feature_dim), time at least `min_frames`, and their lens (batch,) -> (batch, time',
        dim) and its lens."""
        lens = self.output_lens(lens)
        x = self.conv(x.unsqueeze(3))
        if self.convnext is not None:
            # what the next convolution sees beyond the end is zero, as for an utterance alone
            x = self.convnext(_ZeroTail.apply(x, lens))
        # icefall's order of the projection's inputs is (channels, frequency)
        weight = self.out.weight.view(self.out.out_features, -1, self.width).transpose(1, 2).flatten(1)
        x = linear(x.flatten(2), weight, self.out.bias)
        x = self.out_norm(self.out_whiten(x))
        mask = dropout_mask(x, self.dropout, (x.shape[0], 1, x.shape[2])) if self.training else None
        return (x if mask is None else x * mask), lens
