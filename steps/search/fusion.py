"""Fusion: language models and lists of words have their say in a beam search, token by token.

`score(y) = log p(y | x) + Σ scale · log p_i(y)`: shallow fusion with positive scales (Gulcehre et al. 2015,
arXiv:1503.03535), density ratio (McDermott et al. 2019, arXiv:2002.11268), LODR (Zheng et al. 2022, arXiv:2203.16776)
and subtraction of the internal model (Meng et al. 2021, arXiv:2011.01991) with a negative one as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]  # of a scorer; all (rows, ...)
FLOOR = -100.0  # nats: the least that a token can get, as -inf times a negative scale would win


class TokenScorer(Protocol):
    """Scores of what may follow, for rows of hypotheses at once; of ids of the searched head's tokens."""

    end_id: int  # whose score is that of the end of the text

    def begin(self, rows: int) -> tuple[Tensor, State]:
        """Log-probabilities `(rows, vocab)` of the first token, and the state before it."""

    def extend(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The same after one more of `tokens (rows,)`; states may grow, the smaller is then padded with zeros."""


@dataclass(frozen=True)
class Fused:
    """The scorers' opinion on the hypotheses of N utterances: `scores (N, beam, vocab)` of what may follow, the
    blank's 0; `ends (N, beam)`, of a text that ends here; and the scorers' `states`, all `(N, beam, ...)`."""

    scorers: Sequence[tuple[TokenScorer, float]]
    blank: int
    scores: Tensor
    ends: Tensor
    states: tuple[State, ...]

    @classmethod
    def start(cls, scorers: Sequence[tuple[TokenScorer, float]], batch: int, beam: int, blank: int) -> Fused:
        """Before the first token."""
        begun = [scorer.begin(1) for scorer, _ in scorers]
        scores, ends = _weighted(scorers, [log_probs for log_probs, _ in begun], blank)
        states = tuple(tuple(x.expand(batch, beam, *x.shape[1:]) for x in state) for _, state in begun)
        return cls(scorers, blank, scores.expand(batch, beam, -1), ends.expand(batch, beam), states)

    def head(self, batch: int) -> Fused:
        """The first `batch` utterances."""
        states = tuple(tuple(x[:batch] for x in state) for state in self.states)
        return replace(self, scores=self.scores[:batch], ends=self.ends[:batch], states=states)

    def advance(self, source: Tensor, tokens: Tensor, extended: Tensor) -> Fused:
        """After each slot took `source (N, beam)`'s text and, where `extended`, one of `tokens`."""
        rows = torch.arange(len(source), device=source.device)[:, None]
        moved = self._map(lambda x: x[rows, source])
        if source.device.type != "cpu":  # to look which are extended would make the host wait
            return moved._extend(tokens.flatten().clamp(min=0), slice(None), extended)
        chosen = extended.flatten().nonzero().squeeze(1)
        return moved._extend(tokens.flatten()[chosen], chosen, None) if len(chosen) else moved

    def _map(self, change: Any) -> Fused:
        states = tuple(tuple(map(change, state)) for state in self.states)
        return replace(self, scores=change(self.scores), ends=change(self.ends), states=states)

    def _extend(self, tokens: Tensor, chosen: Tensor | slice, only: Tensor | None) -> Fused:
        """One more token for the `chosen` of all rows, which counts for those where `only` (None: for all of them)."""
        flat = self._map(lambda x: x.flatten(0, 1))
        found = [
            scorer.extend(tokens, tuple(x[chosen] for x in state))
            for (scorer, _), state in zip(self.scorers, flat.states, strict=True)
        ]
        scores, ends = _weighted(self.scorers, [log_probs for log_probs, _ in found], self.blank)
        shape, keep = self.scores.shape[:2], None if only is None else only.flatten()
        states = tuple(
            tuple(_merged(old, new, chosen, keep).unflatten(0, shape) for old, new in zip(before, after, strict=True))
            for before, (_, after) in zip(flat.states, found, strict=True)
        )
        scores = _merged(flat.scores, scores, chosen, keep).unflatten(0, shape)
        ends = _merged(flat.ends, ends, chosen, keep).unflatten(0, shape)
        return replace(self, scores=scores, ends=ends, states=states)


def _weighted(
    scorers: Sequence[tuple[TokenScorer, float]], log_probs: Sequence[Tensor], blank: int
) -> tuple[Tensor, Tensor]:
    """The weighted sum of log-probabilities `(rows, vocab)`, the blank's 0, and that of the end `(rows,)`."""
    total = torch.zeros_like(log_probs[0])
    ends = total[:, 0].clone()
    for (scorer, scale), values in zip(scorers, log_probs, strict=True):
        values = values.clamp(min=FLOOR)
        total = total + scale * values
        if scorer.end_id != blank:
            ends = ends + scale * values[:, scorer.end_id]
    total[:, blank] = 0.0
    return total, ends


def _merged(old: Tensor, new: Tensor, chosen: Tensor | slice, only: Tensor | None) -> Tensor:
    """`old (rows, ...)` with `new` at the `chosen` rows, where `only`; the smaller of the two is padded."""
    if old.shape[1:] != new.shape[1:]:
        wanted = [max(sizes) for sizes in zip(old.shape[1:], new.shape[1:], strict=True)]
        old, new = (F.pad(x, _room(x.shape[1:], wanted)) for x in (old, new))
    if only is None:
        return old.index_put((chosen,), new.to(old.dtype))
    return torch.where(only.view(-1, *[1] * (new.dim() - 1)), new.to(old.dtype), old)


def _room(shape: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """How `F.pad` makes `wanted` of `shape`."""
    return [side for have, want in zip(reversed(shape), reversed(wanted), strict=True) for side in (0, want - have)]
