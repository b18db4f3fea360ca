"""Consistency of two views of the same utterances: CR-CTC (Yao et al. 2024, arXiv:2410.05101, equation 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def consistency_loss(log_probs: Tensor, lens: Tensor) -> Tensor:
    """Kullback-Leibler divergence `(batch,)` in nats of each view from the other, which gets no gradient from it.

    `log_probs (batch, frames, vocab)`: first one view of all utterances, then the other in the same order; summed over
    each utterance's frames, `lens (batch,)`, as icefall's `cr_loss` is.
    """
    other = log_probs.detach().roll(len(log_probs) // 2, 0)
    with torch.autocast(log_probs.device.type, enabled=False):
        apart = F.kl_div(log_probs.float(), other.float(), reduction="none", log_target=True).sum(2)
    inside = torch.arange(apart.shape[1], device=lens.device) < lens[:, None]
    return apart.masked_fill(~inside, 0.0).sum(1)
