"""CTC loss (Graves et al. 2006), in plain torch and on k2."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from steps.objectives.backend import Backend, backend_name, load_k2

# k2 prunes arcs worse than the best path by more than this many nats; large enough for never
NO_PRUNING = 1.0e10


def ctc_backend(backend: Backend) -> Literal["k2", "torch"]:
    """What computes the CTC loss under `backend`; "auto" is torch, which was measured to be the faster."""
    return backend_name(backend, auto="torch")


def ctc_loss(
    log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor, backend: Backend = "auto"
) -> Tensor:
    """CTC loss `(batch,)` in nats, computed in float32; token 0 is the blank.

    `log_probs` `(batch, frames, vocab)` are normalised (log_softmax); `targets` `(batch, tokens)` are padded. An
    utterance whose target does not fit (fewer frames than tokens plus repeats) has loss 0 and zero gradient.
    The gradient is right with respect to the input of the log_softmax; torch's own leaves out that function's part.
    """
    compute = _k2_loss if ctc_backend(backend) == "k2" else _torch_loss
    with torch.autocast(log_probs.device.type, enabled=False):
        return compute(log_probs.float(), lens, targets, target_lens)


def _torch_loss(log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor) -> Tensor:
    if targets.shape[1] == 0:  # torch wants a column to look at
        targets = F.pad(targets, (0, 1))
    return F.ctc_loss(log_probs.transpose(0, 1), targets, lens, target_lens, reduction="none", zero_infinity=True)


def _k2_loss(log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor) -> Tensor:
    k2 = load_k2()
    # k2 wants the longest segment first
    lens, order = lens.cpu().sort(descending=True)
    segments = torch.stack((order, torch.zeros_like(order), lens), 1).int()
    tokens, sizes = targets.cpu()[order].tolist(), target_lens.cpu()[order].tolist()
    graphs = k2.ctc_graph([row[:size] for row, size in zip(tokens, sizes, strict=True)], device=log_probs.device)
    loss = k2.ctc_loss(graphs, k2.DenseFsaVec(log_probs, segments), output_beam=NO_PRUNING, reduction="none")
    loss = torch.where(loss.isinf(), torch.zeros_like(loss), loss)
    return torch.zeros_like(loss).index_copy(0, order.to(loss.device), loss)
