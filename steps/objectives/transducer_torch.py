"""Transducer losses in plain torch: gradients from forward-backward occupancies, see `steps.objectives.wavefront`.

`steps.objectives.transducer` documents the functions; here are float32 tensors on one device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steps.objectives.wavefront import Band, forward_backward


def _penalty(frames: int, lens: Tensor, delay_penalty: float) -> Tensor:
    """What a symbol at each frame gains: `(batch, frames, 1)` nats."""
    middle = (lens - 1).view(-1, 1, 1) / 2
    return delay_penalty * (middle - torch.arange(frames, device=lens.device).view(1, -1, 1))


class _AdditiveJoiner:
    """Arc log-probabilities of the smoothed joiner `am + lm`, and their gradient.

    The normaliser log sum_v exp(am + lm) is a matrix product of exp(am) and exp(lm), so nothing of size
    (batch, frames, tokens, vocab) is made. The derivative with respect to the subtracted maxima is zero.
    """

    def __init__(self, am: Tensor, lm: Tensor, targets: Tensor, lm_scale: float, am_scale: float) -> None:
        self.lm_scale, self.am_scale, self.both_scale = lm_scale, am_scale, 1.0 - lm_scale - am_scale
        # label 0 is the blank, label u + 1 is token u
        self.labels = F.pad(targets, (1, 0))
        am_max, self.lm_max = am.amax(2, keepdim=True), lm.amax(2, keepdim=True)
        self.am_exp, self.lm_exp = (am - am_max).exp_(), (lm - self.lm_max).exp_()
        self.norm = torch.bmm(self.am_exp, self.lm_exp.transpose(1, 2)).add_(torch.finfo(am.dtype).tiny)
        common = self.norm.log().add_(am_max).add_(self.lm_max.transpose(1, 2)).mul_(-self.both_scale)
        am_label = (1.0 - lm_scale) * am.gather(2, self.labels.unsqueeze(1).expand(-1, am.shape[1], -1))
        lm_blank, lm_symbol = lm[:, :, 0].unsqueeze(1), lm[:, :-1].gather(2, targets.unsqueeze(2)).transpose(1, 2)
        if lm_scale:
            common -= self._lm_only_norm()
        if am_scale:
            common -= self._am_only_norm() + am_scale * am_max
            am_label = am_label + am_scale * self.unigram.log()[self.labels].unsqueeze(1)
        self.blank = common + am_label[:, :, :1] + (1.0 - am_scale) * lm_blank
        self.symbol = common[:, :, :-1] + am_label[:, :, 1:] + (1.0 - am_scale) * lm_symbol

    def _lm_only_norm(self) -> Tensor:
        """Scaled log-normaliser of the predictor alone `(batch, 1, tokens + 1)`."""
        self.lm_sum = self.lm_exp.sum(2, keepdim=True)
        return self.lm_scale * (self.lm_sum.log() + self.lm_max).transpose(1, 2)

    def _am_only_norm(self) -> Tensor:
        """Scaled log-normaliser of the encoder with the batch's average predictor `(batch, frames, 1)`."""
        self.lm_prob = self.lm_exp / self.lm_exp.sum(2, keepdim=True)
        self.unigram = self.lm_prob.mean((0, 1)) + torch.finfo(self.lm_prob.dtype).tiny
        self.am_sum = torch.matmul(self.am_exp, self.unigram).unsqueeze(2)
        return self.am_scale * self.am_sum.log()

    def gradient(self, blank: Tensor, symbol: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients with respect to `am` and `lm` of the loss whose arcs have these (scaled) occupancies."""
        leaving = blank + F.pad(symbol, (0, 1))
        # the normaliser underflows where encoder and predictor disagree by 90 nats; k2's gradient is not finite there
        shares = (leaving / self.norm.clamp(min=1e-30)).mul_(self.both_scale)
        am_grad = torch.bmm(shares, self.lm_exp).mul_(self.am_exp)
        lm_grad = torch.bmm(shares.transpose(1, 2), self.am_exp).mul_(self.lm_exp)
        by_label = torch.cat((blank.sum(2, keepdim=True), symbol), 2)
        if self.lm_scale:
            lm_grad += (self.lm_scale * leaving.sum(1).unsqueeze(2) / self.lm_sum) * self.lm_exp
        if self.am_scale:
            by_frame = self.am_scale * leaving.sum(2, keepdim=True) / self.am_sum * self.am_exp
            am_grad += by_frame * self.unigram
            lm_grad += self._through_unigram(by_frame.sum((0, 1)), by_label.sum(1))
        labels = self.labels.unsqueeze(1).expand(-1, blank.shape[1], -1)
        am_grad.scatter_add_(2, labels, by_label.mul_(self.lm_scale - 1.0))
        lm_grad[:, :, 0] += (self.am_scale - 1.0) * blank.sum(1)
        to_next = (self.am_scale - 1.0) * symbol.sum(1).unsqueeze(2)
        lm_grad[:, :-1].scatter_add_(2, self.labels[:, 1:].unsqueeze(2), to_next)
        return am_grad, lm_grad

    def _through_unigram(self, normaliser: Tensor, by_label: Tensor) -> Tensor:
        """Gradient with respect to `lm` through the average predictor."""
        counts = torch.zeros_like(self.unigram).scatter_add_(0, self.labels.flatten(), by_label.flatten())
        average = (normaliser - self.am_scale * counts / self.unigram) / self.lm_prob[:, :, 0].numel()
        return self.lm_prob * (average - torch.matmul(self.lm_prob, average).unsqueeze(2))


class _SimpleLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, am: Tensor, lm: Tensor, targets: Tensor, lens: Tensor, target_lens: Tensor, options: tuple
    ) -> tuple[Tensor, Tensor, Tensor]:
        lm_scale, am_scale, delay_penalty, modified = options
        joiner = _AdditiveJoiner(am, lm, targets, lm_scale, am_scale)
        symbol = joiner.symbol
        if delay_penalty:
            symbol = symbol + _penalty(am.shape[1], lens, delay_penalty)
        band = Band(tuple(joiner.blank.shape), None, lens, target_lens, targets.shape[1], modified)
        total, _, blank_occupancy, symbol_occupancy = forward_backward(joiner.blank, symbol, band)
        del joiner.blank, joiner.symbol
        ctx.joiner = joiner
        ctx.save_for_backward(blank_occupancy, symbol_occupancy)
        ctx.mark_non_differentiable(blank_occupancy, symbol_occupancy)
        return -total, symbol_occupancy, blank_occupancy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        blank, symbol = ctx.saved_tensors
        grad = grad.view(-1, 1, 1)
        with torch.autocast(grad.device.type, enabled=False):  # for callers that go backward under autocast
            return (*ctx.joiner.gradient(blank * grad, symbol * grad), None, None, None, None)


class _PrunedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, ranges: Tensor, lens: Tensor, target_lens: Tensor, options: tuple
    ) -> Tensor:
        delay_penalty, modified = options
        batch, frames, width, _ = logits.shape
        log_probs = logits.log_softmax(3)
        # the state after the last token emits no symbol: any label does there
        labels = F.pad(targets, (0, 1)).gather(1, ranges.reshape(batch, -1)).view(batch, frames, width, 1)
        symbol = log_probs.gather(3, labels).squeeze(3)
        if delay_penalty:
            symbol = symbol + _penalty(frames, lens, delay_penalty)
        band = Band((batch, frames, width), ranges[:, :, 0], lens, target_lens, targets.shape[1], modified)
        total, _, *occupancies = forward_backward(log_probs[..., 0], symbol, band, ctx.needs_input_grad[0])
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(log_probs, labels, *occupancies)
        return -total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        log_probs, labels, blank, symbol = ctx.saved_tensors
        grad = grad.view(-1, 1, 1)
        blank, symbol = blank * grad, symbol * grad
        logits_grad = log_probs.exp().mul_((blank + symbol).unsqueeze(3))
        logits_grad[..., 0] -= blank
        logits_grad.scatter_add_(3, labels, -symbol.unsqueeze(3))
        return logits_grad, None, None, None, None, None


def simple_loss(
    am: Tensor,
    lm: Tensor,
    targets: Tensor,
    lens: Tensor,
    target_lens: Tensor,
    lm_only_scale: float,
    am_only_scale: float,
    delay_penalty: float,
    rnnt_type: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `steps.objectives.transducer.simple_loss`."""
    options = (lm_only_scale, am_only_scale, delay_penalty, rnnt_type == "modified")
    return _SimpleLoss.apply(am, lm, targets, lens, target_lens, options)


def pruned_loss(
    logits: Tensor,
    targets: Tensor,
    ranges: Tensor,
    lens: Tensor,
    target_lens: Tensor,
    delay_penalty: float,
    rnnt_type: str,
) -> Tensor:
    """See `steps.objectives.transducer.pruned_loss`."""
    return _PrunedLoss.apply(logits, targets, ranges, lens, target_lens, (delay_penalty, rnnt_type == "modified"))
