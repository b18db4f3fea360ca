"""Transducer losses computed by k2; `steps.objectives.transducer` documents the functions.

k2 1.23.4 insists on at least one token and on no more tokens than frames (padding included), so short inputs are padded
here; the boundary tells k2 what is real.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from steps.objectives.backend import load_k2


def _boundary(lens: Tensor, target_lens: Tensor) -> Tensor:
    zero = torch.zeros_like(lens)
    return torch.stack((zero, zero, target_lens, lens), 1).long()


def _finite(loss: Tensor) -> Tensor:
    """0 with zero gradient in place of the infinite loss of an utterance that has no path."""
    return torch.where(loss.isinf(), torch.zeros_like(loss), loss)


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
    frames, tokens = am.shape[1], targets.shape[1]
    if tokens == 0:  # the copy leaves the average over predictor states as it was
        lm, targets = torch.cat((lm, lm), 1), F.pad(targets, (0, 1))
    missing = max(targets.shape[1] - frames, 0)
    loss, (symbol, blank) = load_k2().rnnt_loss_smoothed(
        lm=lm,
        am=F.pad(am, (0, 0, 0, missing)),
        symbols=targets,
        termination_symbol=0,
        lm_only_scale=lm_only_scale,
        am_only_scale=am_only_scale,
        boundary=_boundary(lens, target_lens),
        rnnt_type=rnnt_type,
        delay_penalty=delay_penalty,
        reduction="none",
        return_grad=True,
    )
    possible = ~loss.isinf().view(-1, 1, 1)
    symbol, blank = symbol[:, :tokens, :frames].transpose(1, 2), blank[:, : tokens + 1, :frames].transpose(1, 2)
    return _finite(loss), symbol * possible, blank * possible


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
    if targets.shape[1] == 0:
        targets = F.pad(targets, (0, 1))
    missing = targets.shape[1] - logits.shape[1]
    if missing > 0:
        logits = F.pad(logits, (0, 0, 0, 0, 0, missing))
        ranges = torch.cat((ranges, ranges[:, -1:].expand(-1, missing, -1)), 1)
    loss = load_k2().rnnt_loss_pruned(
        logits=logits,
        symbols=targets,
        ranges=ranges,
        termination_symbol=0,
        boundary=_boundary(lens, target_lens),
        rnnt_type=rnnt_type,
        delay_penalty=delay_penalty,
        reduction="none",
    )
    return _finite(loss)
