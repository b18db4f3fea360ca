"""Relative-position attention weights that are used several times, with one backward pass for all uses.

The weights' own gradient, the largest tensor there would be, is never stored. Each use (values averaged with the
weights) leaves its output's gradient with the weights; their backward pass then makes, in pieces that a CPU's cache
holds,

    grad scores = weights * (sum over uses of grad output @ values^T - sum over keys of the same times weights)

where the second sum is the row-wise product of output and its gradient (as in FlashAttention, Dao et al., 2022,
arXiv:2205.14135), so that all of the bracket is one matrix product. Scores by offset turn into scores by key by a
view: an array of shape (time, 2 time - 1) read with rows that are one element shorter.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from steps.nets.placement import on_cpu
from steps.nets.scaling import wide

PIECE = 1 << 18  # scores in a piece that a CPU's cache holds
LARGE_PIECE = 1 << 26  # elsewhere: few pieces, little memory for passing results


def by_key(scores: Tensor) -> Tensor:
    """(batch, time, 2 time - 1) by offset, contiguous -> (batch, time, time) by key: a view of i, j - i + time - 1."""
    batch, time, width = scores.shape
    strides = (scores.stride(0), width - 1, 1)
    return scores.as_strided((batch, time, time), strides, scores.storage_offset() + time - 1)


def _pieces(start: int, stop: int, like: Tensor) -> Iterator[slice]:
    """Slices of a (batch, time, time) problem."""
    size = max((PIECE if on_cpu(like) else LARGE_PIECE) // (like.shape[1] * like.shape[1]), 1)
    return (slice(n, min(n + size, stop)) for n in range(start, stop, size))


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, p, positions, bias, uses):
        weights = None
        for piece in _pieces(0, len(q), q):
            keys = k[piece].transpose(1, 2)
            if p is None:
                scores = torch.bmm(q[piece], keys)
            else:
                scores = torch.baddbmm(by_key(torch.bmm(p[piece], positions[piece])), q[piece], keys)
            if bias is not None:
                scores += bias[piece]
            part = scores.softmax(2)
            if len(part) == len(q):
                weights = part
            else:
                weights = q.new_empty(len(q), *part.shape[1:]) if weights is None else weights
                weights[piece] = part
        ctx.save_for_backward(q, k, p, positions, weights)
        ctx.uses = uses
        ctx.mark_non_differentiable(weights)
        return weights, q.new_zeros(())

    @staticmethod
    def backward(ctx, _, __):
        q = ctx.saved_tensors[0]
        grads = [None if part is None else torch.empty_like(part) for part in ctx.saved_tensors[:4]]
        # uses of the first head alone come first: (batch of a head) rows of all, then those of the other heads
        every = [use for use in ctx.uses if len(use[0]) == len(q)]
        first = [use for use in ctx.uses if len(use[0]) < len(q)]
        split = len(first[0][0]) if first else 0
        if split:
            _score_gradients(ctx.saved_tensors, grads, [*every, *first], 0, split)
        _score_gradients(ctx.saved_tensors, grads, every, split, len(q))
        ctx.uses.clear()
        return (*grads, None, None)


def _score_gradients(saved, grads, uses, start: int, stop: int) -> None:
    """Fill rows start to stop of the gradients of q, k, p and positions."""
    q, k, p, positions, weights = saved
    rows = slice(start, stop)
    if not uses:  # nothing was made of these weights
        for grad in grads:
            if grad is not None:
                grad[rows] = 0.0
        return
    left = [grad[rows] for grad, _, _ in uses]
    right = [values[rows] for _, values, _ in uses]
    mean = -sum((wide(grad[rows]) * wide(output[rows])).sum(2, keepdim=True) for grad, _, output in uses)
    rough = mean.to(q.dtype)
    one = torch.ones_like(rough)
    left, right = torch.cat((*left, rough), 2), torch.cat((*right, one), 2)
    if q.dtype in (torch.bfloat16, torch.float16):  # what its rounding lost
        left, right = torch.cat((left, (mean - wide(rough)).to(q.dtype)), 2), torch.cat((right, one), 2)
    buffer = None
    for piece in _pieces(start, stop, q):
        here = slice(piece.start - start, piece.stop - start)
        scores = torch.bmm(left[here], right[here].transpose(1, 2))
        scores *= weights[piece]
        if p is not None:
            if buffer is None:  # zero but for what is written again in each round
                buffer = q.new_zeros(piece.stop - piece.start, q.shape[1], positions.shape[2])
            by_offset = buffer[: piece.stop - piece.start]
            by_key(by_offset).copy_(scores)
            grads[2][piece] = torch.bmm(by_offset, positions[piece].transpose(1, 2))
            grads[3][piece] = torch.bmm(p[piece].transpose(1, 2), by_offset)
        grads[0][piece] = torch.bmm(scores, k[piece])
        grads[1][piece] = torch.bmm(scores.transpose(1, 2), q[piece])


class _Use(torch.autograd.Function):
    @staticmethod
    def forward(ctx, token, weights, values, uses):
        output = torch.bmm(weights, values)
        ctx.save_for_backward(weights, values, output)
        ctx.uses = uses
        return output

    @staticmethod
    def backward(ctx, grad):
        weights, values, output = ctx.saved_tensors
        grad = grad.contiguous()
        ctx.uses.append((grad, values, output))
        # the token's gradient only makes the weights' backward pass wait for this
        return grad.new_zeros(()), None, torch.bmm(weights.transpose(1, 2), grad), None


class RelativeAttention:
    """The attention weights of one layer for one batch.

    q, k (heads, batch, time, query_head_dim); p (heads, batch, time, pos_head_dim) or None for content alone; positions
    (heads, pos_head_dim, 2 time - 1); bias (batch, 1 or time, time), added to the scores, or None.
    """

    def __init__(self, q: Tensor, k: Tensor, p: Tensor | None, positions: Tensor, bias: Tensor | None) -> None:
        self.heads, self.batch = q.shape[:2]
        if p is None:
            positions = None
        if bias is not None:
            bias = bias.expand(self.heads, *bias.shape).flatten(0, 1)
        if p is not None:
            positions = positions.unsqueeze(1).expand(-1, self.batch, -1, -1).flatten(0, 1)
            p = p.flatten(0, 1)
        self._uses: list[tuple[Tensor, Tensor, Tensor]] = []
        weights, self._token = _Weights.apply(q.flatten(0, 1), k.flatten(0, 1), p, positions, bias, self._uses)
        self.weights = weights  # (heads * batch, time, time), constant to autograd

    def average(self, values: Tensor) -> Tensor:
        """values (heads, batch, time, dim), or (batch, time, dim) for the first head alone -> averages, same shape."""
        flat = values.reshape(-1, *values.shape[-2:])
        return _Use.apply(self._token, self.weights[: len(flat)], flat, self._uses).view(values.shape)

    def even(self, values: Tensor) -> Tensor:
        """Averages with equal weights over the keys that the first head sees: (batch, time, dim) to the same shape."""
        ones = (self.weights[: self.batch] > 0.0).to(values.dtype)
        return torch.bmm(ones / ones.sum(2, keepdim=True), values)
