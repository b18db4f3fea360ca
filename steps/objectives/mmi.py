"""Lattice-free MMI (Povey et al. 2016) on the CTC topology, with a bigram of tokens; in plain torch and on k2."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.lang.arcs import FINAL, Arcs
from steps.objectives.backend import Backend, backend_name, load_k2
from steps.objectives.ctc import NO_PRUNING, ctc_loss, dense_fsas


def mmi_backend(backend: Backend) -> Literal["k2", "torch"]:
    """What computes the loss under `backend`; "auto" is torch: see tests/bench/objectives.py."""
    return backend_name(backend, auto="torch")


class MmiLoss(nn.Module):
    """-log of a text's probability among all texts, each with p(frames | text) of CTC times P(text) of a bigram.

    `bigram (vocab, vocab)`: ln P(column | row) in nats; row 0 is the beginning of a text, column 0 its end, the others
    are tokens. Both in icefall's numerator and in its denominator (icefall/mmi.py) P(text) counts; here the numerator
    is CTC's loss and ln P(text) beside it, which is the same.
    """

    def __init__(self, bigram: Tensor, backend: Backend = "auto") -> None:
        super().__init__()
        self.backend = mmi_backend(backend)
        self.register_buffer("bigram", bigram.double(), persistent=False)
        self._graph: Any = None

    def forward(
        self, log_probs: Tensor, lens: Tensor, targets: Tensor, target_lens: Tensor, share: float = 1.0
    ) -> Tensor:
        """The loss `(batch,)` in nats; `share` below 1 weakens bigram and denominator, 0 is CTC.

        `log_probs (batch, frames, vocab)`, token 0 the blank; `targets (batch, tokens)` padded. A text that does not
        fit has loss 0 and no gradient, as in `ctc_loss`.
        """
        target_lens = target_lens.to(lens.device)
        fit = fits(lens, targets, target_lens)
        with torch.autocast(log_probs.device.type, enabled=False):
            log_probs = log_probs.float()
            loss = ctc_loss(log_probs, lens, targets, target_lens, self.backend)
            rival = self.denominator(log_probs, lens) - self.text(targets, target_lens)
        return loss + share * rival.float().masked_fill(~fit, 0.0)

    def text(self, targets: Tensor, target_lens: Tensor) -> Tensor:
        """ln P `(batch,)` of texts."""
        places = torch.arange(targets.shape[1] + 1, device=targets.device)
        after = F.pad(targets, (0, 1)).masked_fill(places >= target_lens[:, None], 0)
        log_probs = self.bigram[F.pad(targets, (1, 0)), after]
        return log_probs.masked_fill(places > target_lens[:, None], 0.0).sum(1)

    def denominator(self, log_probs: Tensor, lens: Tensor) -> Tensor:
        """ln of the sum over all texts `(batch,)`, in float64; of utterances without frames it means nothing."""
        if self.backend == "torch":
            return _TorchSum.apply(log_probs, lens, self.bigram)
        return self._k2_sum(log_probs, lens)

    def _k2_sum(self, log_probs: Tensor, lens: Tensor) -> Tensor:
        k2, sizes = load_k2(), lens.cpu()
        if self._graph is None or self._graph.device != log_probs.device:
            self._graph = denominator_graph(self.bigram).to(log_probs.device)
        order = sizes.argsort(descending=True)  # k2's exact intersection wants the longest first
        order = order[: int((sizes > 0).sum())]
        total = log_probs.new_zeros(len(lens), dtype=torch.float64)
        if not len(order):
            return total
        rows = torch.zeros(len(order), dtype=torch.int32, device=log_probs.device)
        graphs = k2.index_fsa(k2.create_fsa_vec([self._graph]), rows)
        lattice = k2.intersect_dense(graphs, dense_fsas(log_probs, lens, order), NO_PRUNING)
        found = lattice.get_tot_scores(log_semiring=True, use_double_scores=True)
        return total.index_copy(0, order.to(total.device), found)


def fits(lens: Tensor, targets: Tensor, target_lens: Tensor) -> Tensor:
    """Whether each text `(batch,)` has an alignment: a frame a token, one more between equal neighbours, one at all."""
    inside = torch.arange(targets.shape[1], device=targets.device) < target_lens[:, None]
    repeats = ((targets == F.pad(targets, (1, 0))[:, :-1]) & inside).sum(1)
    return (lens >= target_lens + repeats) & (lens > 0)


class _TorchSum(torch.autograd.Function):
    """Forward-backward through 2 * vocab states: the last token, and whether blanks came since.

    State 0 is the beginning. In float64 and as probabilities that sum to one in every frame: what is lost below 1e-308
    could only return where the bigram or a frame holds a token for less probable than that.
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lens: Tensor, bigram: Tensor) -> Tensor:
        moves = _Moves(bigram)
        top = log_probs.amax(2, keepdim=True)
        frames = (log_probs - top).double().exp().transpose(0, 1).contiguous()
        inside = torch.arange(log_probs.shape[1], device=lens.device) < lens[:, None]
        blank, token = frames.new_zeros(2, *frames.shape[1:])
        blank[:, 0] = 1.0
        blanks, tokens, scales = [], [], []
        for p, live in zip(frames, inside.t()[:, :, None], strict=True):
            after_blank, after_token = moves.forward(blank, token, p)
            scale = (after_blank + after_token).sum(1, keepdim=True)
            blank, token = torch.where(live, after_blank / scale, blank), torch.where(live, after_token / scale, token)
            blanks.append(blank)
            tokens.append(token)
            scales.append(torch.where(live, scale, torch.ones_like(scale)))
        total = ((blank + token) * moves.end).sum(1).log() + torch.cat(scales, 1).log().sum(1)
        total = total + top.squeeze(2).double().masked_fill(~inside, 0.0).sum(1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_occupancy(moves, frames, inside, blanks, tokens).type_as(log_probs))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (occupancy,) = ctx.saved_tensors
        return (grad.view(-1, 1, 1) * occupancy).type_as(occupancy), None, None


def _occupancy(moves: _Moves, frames: Tensor, inside: Tensor, blanks: list[Tensor], tokens: list[Tensor]) -> Tensor:
    """Share of each label in each frame `(batch, frames, vocab)`, over all texts."""
    end = moves.end.expand_as(frames[0])
    blank, token, rows = end, end, []
    steps = zip(frames, inside.t()[:, :, None], blanks, tokens, strict=True)
    for p, live, blank_before, token_before in reversed(list(steps)):
        share = token_before * token
        share[:, 0] = (blank_before * blank).sum(1)
        rows.append((share / share.sum(1, keepdim=True)).masked_fill(~live, 0.0))
        before_blank, before_token = moves.backward(blank, token, p)
        scale = (before_blank + before_token).sum(1, keepdim=True)
        blank, token = torch.where(live, before_blank / scale, end), torch.where(live, before_token / scale, end)
    return torch.stack(rows[::-1], 1)


class _Moves:
    """One frame's steps. A token follows itself only after a blank; without one between, it goes on."""

    def __init__(self, bigram: Tensor) -> None:
        probs = bigram.exp()
        self.end, self.same = probs[:, 0].clone(), probs.diagonal().clone()
        self.same[0] = 0.0
        self.other = probs.clone().fill_diagonal_(0.0)
        self.other[:, 0] = 0.0

    def forward(self, blank: Tensor, token: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the states behind a frame of those before it, each `(batch, vocab)`."""
        either = blank + token
        return either * p[:, :1], (token + either @ self.other + blank * self.same) * p

    def backward(self, blank: Tensor, token: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """What is to come, before a frame of that behind it."""
        token = token * p
        either = blank * p[:, :1] + token @ self.other.t()
        return either + token * self.same, either + token


def denominator_graph(bigram: Tensor) -> Any:
    """The CTC topology composed with the bigram, as a `k2.Fsa` on the CPU: 2 * vocab states and an end.

    States below vocab are those after blanks; arcs into the others are labelled by their token, once more in each
    frame that it lasts. There is no back-off state: k2's dense intersection takes no epsilons.
    """
    scores, size = bigram.cpu().numpy(), len(bigram)
    last, token = (grid[:, 1:].reshape(-1) for grid in np.indices((size, size)))
    every, said = np.arange(size), np.arange(1, size)
    last_said, other = np.meshgrid(said, said, indexing="ij")
    last_said, other = last_said[last_said != other], other[last_said != other]
    end = 2 * size
    arcs = [  # source, target, label, score
        (last, size + token, token, scores[last, token]),
        (size + last_said, size + other, other, scores[last_said, other]),
        (size + said, size + said, said, 0 * said),
        (every, every, 0 * every, 0 * every),
        (size + said, said, 0 * said, 0 * said),
        (every, end + 0 * every, FINAL + 0 * every, scores[:, 0]),
        (size + said, end + 0 * said, FINAL + 0 * said, scores[1:, 0]),
    ]
    columns = [np.concatenate(column) for column in zip(*arcs, strict=True)]
    source, target, label, score = (column[np.isfinite(columns[3])] for column in columns)
    return Arcs(source, target, label, label, score).to_k2(acceptor=True)
