"""Transducer losses: the full one (Graves 2012) and the pruned one (Kuang et al. 2022, arXiv:2206.13236).

The pruned loss takes two passes. A trivial joiner that only adds encoder and predictor logits is cheap on the full
lattice (`simple_loss`); its occupancies say which few tokens matter at each frame (`prune_ranges`); the real joiner is
computed for these alone (`do_prune`, `pruned_loss`). The blank is token 0 throughout, losses are in nats, always
computed in float32, and 0 with zero gradient for an utterance that has no path.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from steps.objectives import transducer_k2, transducer_torch
from steps.objectives.backend import Backend, backend_name

RnntType = Literal["regular", "modified"]
BLANK = 0


def transducer_backend(backend: Backend) -> Literal["k2", "torch"]:
    """What computes transducer losses under `backend`; "auto" is torch, faster in tests/bench/transducer_loss.py."""
    return backend_name(backend, auto="torch")


def simple_loss(
    am: Tensor,
    lm: Tensor,
    targets: Tensor,
    lens: Tensor,
    target_lens: Tensor,
    lm_only_scale: float = 0.0,
    am_only_scale: float = 0.0,
    delay_penalty: float = 0.0,
    rnnt_type: RnntType = "regular",
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of the joiner `am + lm`, smoothed, and the occupancies that `prune_ranges` wants.

    `am` `(batch, frames, vocab)` and `lm` `(batch, tokens + 1, vocab)` are logits of encoder and predictor. Arc
    log-probabilities are interpolated with those of the predictor alone (`lm_only_scale`) and of the encoder with a
    unigram predictor (`am_only_scale`). `delay_penalty` d adds d * ((frames - 1) / 2 - t) to a symbol at frame t, which
    favours early symbols (k2 issue 955, arXiv:2211.00490).

    Returns the loss `(batch,)`, and the occupancies of symbols `(batch, frames, tokens)` and of blanks
    `(batch, frames, tokens + 1)`, without gradient.
    """
    module = transducer_k2 if transducer_backend(backend) == "k2" else transducer_torch
    with torch.autocast(am.device.type, enabled=False):
        return module.simple_loss(
            am.float(), lm.float(), targets, lens, target_lens, lm_only_scale, am_only_scale, delay_penalty, rnnt_type
        )


def _ascending(bounds: Tensor) -> Tensor:
    """The largest non-decreasing sequence (over the last dimension) that is nowhere above `bounds`."""
    return bounds.flip(-1).cummin(-1).values.flip(-1)


def prune_ranges(
    symbol_occupancy: Tensor,
    blank_occupancy: Tensor,
    lens: Tensor,
    target_lens: Tensor,
    s_range: int = 5,
    rnnt_type: RnntType = "regular",
) -> Tensor:
    """Which `s_range` successive lattice states to keep at each frame: `(batch, frames, min(s_range, tokens + 1))`.

    At each frame the window is taken that holds the most occupancy and receives the least from outside (the paper's
    section 3.2); then its lower bounds are made non-decreasing, starting at 0 and ending at the last state, with steps
    of less than the width (at most 1 for the modified transducer), so that a path always remains if there can be one.
    """
    _, frames, states = blank_occupancy.shape
    width = min(s_range, states)
    if width < 2 <= states and rnnt_type == "regular":
        raise ValueError(f"s_range is {s_range}: the regular transducer needs at least 2, or no path survives")
    starts = states - width + 1
    kept = blank_occupancy.unfold(2, width, 1).sum(3)
    kept[:, :, 1:] -= symbol_occupancy[:, :, : starts - 1]
    at_end = (target_lens - width + 1).clamp(min=0).unsqueeze(1)
    frame = torch.arange(frames, device=lens.device)
    begin = torch.where(frame < lens.unsqueeze(1) - 1, kept.argmax(2), at_end)
    # bounding the steps is bounding a sequence's descent: the same operation on frame * step - begin
    climb = frame * (1 if rnnt_type == "modified" else max(width - 1, 0))
    begin = climb - _ascending(climb - _ascending(begin)).clamp(min=0)
    return begin.unsqueeze(2) + torch.arange(width, device=lens.device)


def do_prune(am: Tensor, lm: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder `am` `(batch, frames, dim)` and predictor `lm` `(batch, tokens + 1, dim)` where `ranges` keeps them.

    Returns `(batch, frames, 1, dim)` and `(batch, frames, s_range, dim)`, whose sum is the joiner's input.
    """
    batch, states, dim = lm.shape
    rows = ranges + states * torch.arange(batch, device=lm.device).view(-1, 1, 1)
    return am.unsqueeze(2), lm.reshape(-1, dim).index_select(0, rows.flatten()).view(*ranges.shape, dim)


def pruned_loss(
    logits: Tensor,
    targets: Tensor,
    ranges: Tensor,
    lens: Tensor,
    target_lens: Tensor,
    delay_penalty: float = 0.0,
    rnnt_type: RnntType = "regular",
    backend: Backend = "auto",
) -> Tensor:
    """Transducer loss `(batch,)` over the states kept by `ranges`.

    `logits` `(batch, frames, s_range, vocab)` is the joiner's output; `ranges` comes from `prune_ranges`.
    """
    module = transducer_k2 if transducer_backend(backend) == "k2" else transducer_torch
    with torch.autocast(logits.device.type, enabled=False):
        return module.pruned_loss(logits.float(), targets, ranges, lens, target_lens, delay_penalty, rnnt_type)


def full_loss(
    logits: Tensor,
    targets: Tensor,
    lens: Tensor,
    target_lens: Tensor,
    delay_penalty: float = 0.0,
    rnnt_type: RnntType = "regular",
    backend: Backend = "auto",
) -> Tensor:
    """Transducer loss `(batch,)` without pruning, for `logits` `(batch, frames, tokens + 1, vocab)`."""
    batch, frames, states, _ = logits.shape
    ranges = torch.arange(states, device=logits.device).expand(batch, frames, states)
    return pruned_loss(logits, targets, ranges, lens, target_lens, delay_penalty, rnnt_type, backend)
