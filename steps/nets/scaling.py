"""The small parts of a Zipformer: Swoosh activations, BiasNorm, bypass, scaled initialisation, shared dropout masks.

Everything computes in the type of its input, casting parameters to it: the encoder chooses the type once, and no module
depends on autocast. Functions with a backward of their own save little and recompute, which is faster on CPUs and GPUs.
Source of the definitions: Zipformer (Yao et al., 2024, arXiv:2310.11230).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.nets.placement import on_cpu
from steps.nets.regularizers import Balancer, balanced, limit, sample
from steps.nets.schedule import FloatLike, Schedule

SWOOSH = {"l": (4.0, 0.035), "r": (1.0, 0.313261687)}  # kind: (shift, constant)
PIECE = 1 << 18  # elements of a piece that stays in a CPU core's cache through several operations


def wide(x: Tensor) -> Tensor:
    """`x` in at least float32."""
    return x if x.dtype == torch.float64 else x.float()


def _swoosh_piece(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    shift, constant = SWOOSH[kind]
    z = wide(x) - shift
    value = z.clamp(min=-80.0)
    slope = torch.sigmoid(value)
    value.sub_(torch.log(slope))  # log(1 + exp(z)) = z - log(sigmoid(z)): both results from one exponential
    return value.add_(z, alpha=-0.08).sub_(constant + 0.08 * shift), slope.sub_(0.08)


def swoosh(x: Tensor, kind: str, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """log(1 + exp(x - shift)) - 0.08 x - constant, and its derivative; for `kind` "l" or "r".

    x (batch, ..., channels); both results are multiplied by `mask` (batch, 1, channels) if there is one.
    """
    if not on_cpu(x):
        value, slope = (part.to(x.dtype) for part in _swoosh_piece(x, kind))
        return (value, slope) if mask is None else (value * mask, slope * mask)
    x = x.contiguous()
    value, slope = torch.empty_like(x), torch.empty_like(x)
    shape = (1 if mask is None else len(x), -1, x.shape[-1])
    for (part, *results), masks in _pieces(mask, *(each.view(shape) for each in (x, value, slope))):
        for result, piece in zip(results, _swoosh_piece(part, kind), strict=True):
            result.copy_(piece) if masks is None else torch.mul(piece, masks, out=result)
    return value, slope


def _pieces(mask: Tensor | None, *tensors: Tensor) -> Iterator[tuple[list[Tensor], Tensor | None]]:
    """Pieces of (batch, time, channels) tensors, whole utterances or parts of one, with their part of `mask`."""
    batch, time, channels = tensors[0].shape
    rows = max(PIECE // max(channels, 1), 1)
    utterances = max(rows // max(time, 1), 1)
    for n in range(0, batch, utterances):
        masks = None if mask is None else mask[n : n + utterances]
        for start in range(0, time, rows):
            yield [tensor[n : n + utterances, start : start + rows] for tensor in tensors], masks


class _Swoosh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kind):
        value, slope = swoosh(x, kind)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


class Swoosh(nn.Module):
    """SwooshL (kind "l") or SwooshR (kind "r"): log(1 + exp(x - shift)) - 0.08 x - constant."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return _Swoosh.apply(x, self.kind)


def dropout_mask(x: Tensor, rate: FloatLike, shape: tuple[int, ...]) -> Tensor | None:
    """A mask of `shape` in x's type, 0 with probability `rate` and 1 / (1 - rate) elsewhere; None for rate 0."""
    rate = float(rate)
    if rate <= 0.0:
        return None
    return (torch.rand(shape, device=x.device) >= rate).to(x.dtype).mul_(1.0 / (1.0 - rate))


def skip_mask(x: Tensor, rate: FloatLike, training: bool) -> Tensor | None:
    """(batch, 1, 1), 0 with probability `rate` and 1 elsewhere: utterances that a module leaves out; None for none."""
    rate = float(rate) if training else 0.0
    return None if rate <= 0.0 else (torch.rand(x.shape[0], 1, 1, device=x.device) >= rate).to(x.dtype)


def add_unless(x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """x + y mask."""
    return x + y if mask is None else torch.addcmul(x, y, mask)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` in the type of `x`."""
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class Linear(nn.Linear):
    """`nn.Linear` that computes in the type of its input; a `scale` below 1 makes the initial output smaller."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, scale: float | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        if scale is not None:
            with torch.no_grad():
                self.weight.mul_(scale)
                if bias:
                    self.bias.uniform_(-0.1 * scale, 0.1 * scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return linear(x, self.weight, self.bias)


class _SwooshLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mask, kind):
        value, slope = swoosh(x, kind, mask)
        ctx.kind, ctx.recompute = kind, not on_cpu(x)  # an accelerator is short of memory, a CPU of speed
        ctx.save_for_backward(*((x, mask) if ctx.recompute else (value, slope)), weight)
        return F.linear(value, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        *saved, weight = ctx.saved_tensors
        value, slope = swoosh(saved[0], ctx.kind, saved[1]) if ctx.recompute else saved
        rows = grad.reshape(-1, grad.shape[-1])
        grad_weight = rows.t() @ value.view(-1, value.shape[-1])
        return torch.matmul(grad, weight).mul_(slope), grad_weight, rows.sum(0), None, None


def swoosh_linear(x: Tensor, weight: Tensor, bias: Tensor, kind: str, mask: Tensor | None = None) -> Tensor:
    """A linear layer after Swoosh and a dropout mask (batch, 1, inputs); x (batch, ..., inputs)."""
    return _SwooshLinear.apply(x, weight.to(x.dtype), bias.to(x.dtype), mask, kind)


class _SwooshMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight1, bias1, weight2, bias2, kind, line):
        ctx.save_for_backward(x, weight1, bias1, weight2)
        ctx.kind, ctx.line = kind, line
        y = x.new_empty(len(x), len(weight2))
        for part, result in _row_pieces(len(weight1), x, y):
            value, _ = swoosh(F.linear(part, weight1, bias1), kind)
            torch.addmm(bias2, value, weight2.t(), out=result)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight1, bias1, weight2 = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        sums = [0.0, 0.0, 0.0]
        for part, g, result in _row_pieces(len(weight1), x, grad, grad_x):
            hidden = F.linear(part, weight1, bias1)
            value, slope = swoosh(hidden, ctx.kind)
            inner = (g @ weight2).mul_(slope)
            if ctx.line is not None:
                inner = balanced(inner, hidden, *ctx.line)
            torch.mm(inner, weight1, out=result)
            terms = inner.t() @ part, inner.sum(0), g.t() @ value
            sums = [total + wide(term) for total, term in zip(sums, terms, strict=True)]
        sums = [total.to(x.dtype) for total in sums]
        return grad_x, *sums, grad.sum(0), None, None


def _row_pieces(width: int, *tensors: Tensor):
    """Pieces of several (rows, any) tensors whose hidden layer of `width` channels a cache holds."""
    size = max(PIECE // width, 1) if on_cpu(tensors[0]) else len(tensors[0])
    return zip(*(tensor.split(max(size, 1)) for tensor in tensors), strict=True)


def swoosh_mlp(x: Tensor, one: nn.Module, two: nn.Module, kind: str, balancer: Balancer) -> Tensor:
    """Linear `one`, balancer, Swoosh, linear `two` (layers or 1x1 convolutions); x (..., channels) to the same kind.

    Its hidden layer is never stored but computed again in the backward pass, in pieces: right for one so large that
    memory is slower than that.
    """
    weights = [part.to(x.dtype) for each in (one, two) for part in (each.weight.flatten(1), each.bias)]
    line = None
    if balancer.active():
        with torch.no_grad():
            line = balancer.line_of(F.linear(sample(x, 4096), *weights[:2]))
    return _SwooshMlp.apply(x.reshape(-1, x.shape[-1]), *weights, kind, line).view(*x.shape[:-1], -1)


class SwooshLinear(Linear):
    """Swoosh, dropout with a mask shared over time, and a linear layer."""

    def __init__(self, inputs: int, outputs: int, kind: str, dropout: FloatLike, scale: float) -> None:
        super().__init__(inputs, outputs, scale=scale)
        self.kind, self.dropout = kind, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, inputs) to (batch, time, outputs)."""
        mask = dropout_mask(x, self.dropout, (x.shape[0], 1, x.shape[2])) if self.training else None
        return swoosh_linear(x, self.weight, self.bias, self.kind, mask)


class _BiasNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, log_scale):
        centred = wide(x) - bias
        power = centred.square_().mean(-1, keepdim=True)
        scale = power.rsqrt().mul_(log_scale.exp())
        ctx.save_for_backward(x, bias, power, scale)
        return x * scale.to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, bias, power, scale = ctx.saved_tensors
        product = wide(grad * x).sum(-1, keepdim=True).mul_(scale)  # per frame: the gradient of log(scale)
        pull = product / (power * -x.shape[-1])
        grad_x = (wide(x) - bias).mul_(pull)
        grad_bias = -grad_x.reshape(-1, x.shape[-1]).sum(0)
        grad_x = grad_x.to(x.dtype).addcmul_(grad, scale.to(x.dtype))
        return grad_x, grad_bias, product.sum()


class BiasNorm(nn.Module):
    """x / RMS(x - bias) exp(log_scale): a norm that leaves the length of a frame's vector recoverable."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.randn(channels) * 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) to the same shape; its statistics are in float32 whatever the type."""
        log_scale = limit(self.log_scale, -1.5, 1.5) if self.training else self.log_scale
        return _BiasNorm.apply(x, self.bias, log_scale)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, old, new, scale):
        change = new - old
        ctx.save_for_backward(change, scale)
        return torch.addcmul(old, change, scale)

    @staticmethod
    def backward(ctx, grad):
        change, scale = ctx.saved_tensors
        grad_new = grad * scale
        # (batch or 1, 1, channels): summed over what the scale was shared over
        grad_scale = (change * grad).sum(1, keepdim=True)
        if scale.shape[0] == 1:
            grad_scale = grad_scale.sum(0, keepdim=True)
        return grad - grad_new, grad_new, grad_scale


class Bypass(nn.Module):
    """old + (new - old) scale: a learned share per channel; in training also leaves out `new` for some utterances.

    Early in training the scale is kept near 1, so that every module has to learn something.
    """

    def __init__(self, channels: int, skip_rate: FloatLike = 0.0) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((channels,), 0.5))
        self.skip_rate = skip_rate
        self.scale_min = Schedule((0, 0.9), (20000, 0.2), default=0.0)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """Two of (batch, time, channels) to one."""
        scale = self.bypass_scale
        if self.training:
            scale = limit(scale, float(self.scale_min), 1.0)
        scale = scale.to(old.dtype).view(1, 1, -1)
        mask = skip_mask(old, self.skip_rate, self.training)
        return _Mix.apply(old, new, scale if mask is None else scale * mask)
