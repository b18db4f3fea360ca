"""CTC loss (Graves et al. 2006), in plain torch and on k2."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from steps.objectives.backend import Backend, backend_name, load_k2

# k2 prunes arcs worse than the best path by more than this many nats; large enough for never
NO_PRUNING = 1.0e10


def ctc_backend(backend: Backend) -> Literal["k2", "torch"]:
    """What computes the CTC loss under `backend`; "auto" is torch, faster in tests/bench/transducer_loss.py."""
    return backend_name(backend, auto="torch")


def ctc_loss(
    log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor, backend: Backend = "auto"
) -> Tensor:
    """CTC loss `(batch,)` in nats, computed in float32; token 0 is the blank.

    `log_probs` `(batch, frames, vocab)`; `targets` `(batch, tokens)` are padded. An utterance whose target does not
    fit (fewer frames than tokens plus repeats, or no frame) has loss 0 and zero gradient.
    """
    compute = _k2_loss if ctc_backend(backend) == "k2" else _torch_loss
    with torch.autocast(log_probs.device.type, enabled=False):
        return compute(log_probs.float(), lens, targets, target_lens)


class _TorchLoss(torch.autograd.Function):
    """torch's CTC over the few columns that the targets name, in float64, with the true derivative.

    torch computes exp(log_probs) minus the occupancies, which is the derivative only before a log_softmax, in the
    precision of its input, which in float32 leaves three digits after a minute of speech.
    """

    @staticmethod
    def forward(ctx: Any, columns: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor) -> Tensor:
        frames = columns.shape[1]
        with torch.inference_mode(False), torch.enable_grad():  # searches score texts too
            columns = columns.detach().double().transpose(0, 1).requires_grad_()
            # torch 1.13 refuses a length of zero; what inference made cannot be kept for a derivative
            loss = F.ctc_loss(columns, targets.clone(), lens.clamp(min=1), target_lens.clone(), reduction="none")
            (grad,) = torch.autograd.grad(loss.sum(), columns)
        possible = ~(loss.isinf() | (lens == 0).to(loss.device))
        inside = torch.arange(frames, device=loss.device).unsqueeze(1) < (lens.to(loss.device) * possible)
        occupancy = (columns.detach().exp() - grad).masked_fill(~inside.unsqueeze(2), 0.0)
        ctx.save_for_backward(occupancy.transpose(0, 1).float())
        return loss.detach().masked_fill(~possible, 0.0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (occupancy,) = ctx.saved_tensors
        return -grad.view(-1, 1, 1) * occupancy, None, None, None


def _torch_loss(log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor) -> Tensor:
    if targets.shape[1] == 0:  # torch wants a column to look at
        targets = F.pad(targets, (0, 1))
    labels = F.pad(targets, (1, 0))  # column 0 is the blank, column u the u-th token
    columns = log_probs.gather(2, labels.unsqueeze(1).expand(-1, log_probs.shape[1], -1))
    # tokens are renamed to their columns; a repeat keeps its predecessor's name, as only neighbours are compared
    renamed = torch.arange(1, labels.shape[1], device=labels.device).expand_as(targets)
    renamed = renamed.masked_fill(targets == labels[:, :-1], 0).cummax(1).values
    return _TorchLoss.apply(columns, lens, renamed, target_lens)


def dense_fsas(log_probs: Tensor, lens: Tensor, order: Tensor) -> Any:
    """`log_probs (batch, frames, tokens)` as a `k2.DenseFsaVec` of the utterances in `order`; all but it on the CPU."""
    segments = torch.stack((order, torch.zeros_like(order), lens.cpu()[order]), 1).int()
    return load_k2().DenseFsaVec(log_probs, segments)


def _k2_loss(log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor) -> Tensor:
    k2 = load_k2()
    order = lens.cpu().argsort(descending=True)  # k2's exact intersection wants the longest first
    fsas = dense_fsas(log_probs, lens, order)
    tokens, sizes = targets.cpu()[order].tolist(), target_lens.cpu()[order].tolist()
    graphs = k2.ctc_graph([row[:size] for row, size in zip(tokens, sizes, strict=True)], device=log_probs.device)
    loss = k2.ctc_loss(graphs, fsas, output_beam=NO_PRUNING, reduction="none")
    loss = torch.where(loss.isinf(), torch.zeros_like(loss), loss)
    return torch.zeros_like(loss).index_copy(0, order.to(loss.device), loss)
