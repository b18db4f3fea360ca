"""Balancer and Whiten: identities whose backward pass nudges activations into a healthy range.

Both are from Zipformer (Yao et al., 2024, arXiv:2310.11230, section 3.4), with the gradients in closed form: the
balancer's is affine in the activation for each channel, so that two column sums and one pass over the gradient are all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from steps.nets.placement import on_cpu
from steps.nets.schedule import FloatLike, Schedule, chance

TINY = 1e-12


def _mean_limit(positive: float) -> float:
    """The mean/stddev at which a Gaussian is positive this often, by Zipformer's rough inverse error function."""
    x, eps = 2.0 * positive - 1.0, 1e-10
    return 0.8139535143 * 0.5 * (math.log(1.0 + x + eps) - math.log(1.0 - x + eps))


def _rms_limit(mean_abs: float) -> float:
    """The root mean square of a Gaussian with this mean absolute value."""
    return math.sqrt(math.pi / 2.0) * mean_abs


class Balancer(nn.Module):
    """Keeps each channel's share of positive values and its mean absolute value within limits, by its gradient alone.

    A gradient g becomes g + |g| (slope x + offset), where slope and offset (per channel) are the direction that brings
    the channel back, zero for a channel within its limits. Acts with probability `prob` on each call in training.
    """

    def __init__(
        self,
        min_positive: FloatLike = 0.05,
        max_positive: FloatLike = 0.95,
        min_abs: FloatLike = 0.2,
        max_abs: FloatLike = 100.0,
        gain: float = 0.04,
        prob: FloatLike | None = None,
    ) -> None:
        super().__init__()
        self.min_positive, self.max_positive = min_positive, max_positive
        self.min_abs, self.max_abs = min_abs, max_abs
        self.gain = gain
        self.prob = Schedule((0, 0.5), (8000, 0.125), default=0.4) if prob is None else prob
        self.enabled = True

    def active(self) -> bool:
        """Whether it acts on this call (a draw)."""
        return self.enabled and self.training and torch.is_grad_enabled() and chance(self.prob)

    def line(self, mean: Tensor, mean_square: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and offset (channels,) for channels with these means of x and of x^2, both float32 (channels,)."""
        mean_square = mean_square.clamp(min=TINY)
        std = (mean_square - mean * mean).clamp(min=TINY).sqrt()
        ratio, rms = mean / std, mean_square.sqrt()
        low, high = _mean_limit(float(self.min_positive)), _mean_limit(float(self.max_positive))
        # of |ratio - limit|: d/dx = sign (1 / std - ratio (x - mean) / std^2) / frames; times std and frames:
        sign = (ratio - ratio.clamp(low, high)).sign()
        slope, centre = -sign * ratio / std, sign
        # of |log(limit / rms)|: d/dx = sign x / rms^2 / frames; times the same:
        low, high = _rms_limit(float(self.min_abs)), _rms_limit(float(self.max_abs))
        sign = (rms - rms.clamp(low, high)).sign() * std / mean_square
        slope, centre = slope + sign, centre + sign * mean
        # slope (x - mean) + centre, brought to a root mean square of `gain` over the frames
        factor = self.gain / ((slope * std).square() + centre * centre + TINY).sqrt()
        return slope * factor, (centre - slope * mean) * factor

    def line_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`line` for x (..., channels), from a few thousand frames of it, in its type."""
        x = sample(x, 4096)
        few = x.float()
        slope, offset = self.line(few.mean(0), few.square().mean(0))
        return slope.to(x.dtype), offset.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., channels) unchanged."""
        if not (x.requires_grad and self.active()):
            return x
        return _Balance.apply(x, *self.line_of(x))


def sample(x: Tensor, size: int) -> Tensor:
    """Rows of x (..., channels), (rows, channels): all or evenly spaced ones, fewer than twice `size` of them."""
    x = x.reshape(-1, x.shape[-1])
    return x[:: max(len(x) // size, 1)]


def balanced(grad: Tensor, x: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """grad + |grad| (slope x + offset)."""
    return torch.addcmul(offset, x, slope).mul_(grad.abs()).add_(grad)


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope, offset):
        ctx.save_for_backward(x, slope, offset)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return balanced(grad, *ctx.saved_tensors), None, None


class Whiten(nn.Module):
    """Pulls the covariance of the channels towards a multiple of the identity when it is far from it.

    The measure is mean(eigenvalue^2) / mean(eigenvalue)^2 of the centred covariance of each of `groups` groups of
    channels: 1 when white. Above `limit` its gradient is added, with `gain` times the norm of the gradient.
    """

    def __init__(self, limit: FloatLike, gain: float = 0.01, groups: int = 1, prob: float = 0.25) -> None:
        super().__init__()
        self.limit, self.gain, self.groups, self.prob = limit, gain, groups, prob
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., channels) unchanged."""
        if not (self.enabled and self.training and x.requires_grad and chance(self.prob)):
            return x
        return _Whiten.apply(x, float(self.limit), self.gain, self.groups)


class _Whiten(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, limit, gain, groups):
        ctx.save_for_backward(x)
        ctx.config = (limit, gain, groups)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        limit, gain, groups = ctx.config
        channels = x.shape[-1]
        few, few_grads = (sample(part, max(2048, 4 * channels)).float() for part in (x, grad))
        means = few.mean(0)
        few = few - means
        covariance = few.t() @ few * _within(groups, channels, x.device)
        mean = covariance.diagonal().mean()
        metric = covariance.square().sum() / channels / (mean * mean + TINY)
        if on_cpu(metric) and metric < limit:
            return grad, None, None, None
        # d metric / d x is proportional to (x - mean) pull; given `gain` times the gradient's norm
        pull = covariance / (mean + TINY) - metric * torch.eye(channels, device=x.device)
        scale = gain * few_grads.norm() / ((few @ pull).norm() + TINY)
        pull = pull * torch.where(metric < limit, torch.zeros_like(scale), scale)  # on a GPU: no waiting for the metric
        rows = torch.addmm(grad.reshape(-1, channels), x.reshape(-1, channels), pull.to(x.dtype))
        return rows.sub_((means @ pull).to(x.dtype)).view(x.shape), None, None, None


def _within(groups: int, channels: int, device: torch.device) -> Tensor:
    """(channels, channels): 1 for two channels of the same group, 0 otherwise."""
    group = torch.arange(groups, device=device).repeat_interleave(channels // groups)
    return (group == group.unsqueeze(1)).float()


class _Limit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.limits = (low, high)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        low, high = ctx.limits
        grad = torch.where((x < low) & (grad > 0), -grad, grad)
        return torch.where((x > high) & (grad < 0), -grad, grad), None, None


def limit(parameter: Tensor, low: float, high: float) -> Tensor:
    """`parameter` unchanged; gradients that would push it further out of [low, high] change their sign."""
    return _Limit.apply(parameter, low, high) if parameter.requires_grad else parameter


class _ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


class ScaleGrad(nn.Module):
    """Multiplies the gradient by `factor` in training: keeps float16 gradients of the first layer in range."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """`x` unchanged."""
        return _ScaleGrad.apply(x, self.factor) if self.training and x.requires_grad else x
