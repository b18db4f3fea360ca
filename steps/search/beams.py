"""The parts that beam searches share: top-k with a tie rule, finding equal prefixes, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steps.search.hypothesis import Hypothesis, emitted

NEG_INF = float("-inf")
_NO_KEY, _NO_PREFIX, _ROOT = 1, 2, 0  # keys of dead hypotheses, of the empty one's prefix, and of the empty one


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of `scores (N, C)`, best first, as values and indices `(N, k)`; of equal ones the lower index.

    `torch.topk` leaves the order of equal values open, and 16-bit logits often are equal. Float64 has room below
    float32's last digit for a handicap of 1e-11 per index.
    """
    handicap = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float64).mul_(1e-11)
    indices = (scores.double() - handicap).topk(k, dim=1).indices
    return scores.gather(1, indices), indices


@dataclass
class Prefixes:
    """Identities of the token sequences `(N, beam)` in the beams of N utterances.

    `last`: the last token (blank while there is none); `key`: a 64-bit hash of all tokens; `parent`: the hash of all
    but the last. A sequence is the continuation of another exactly when its `parent` is the other's `key`.
    """

    last: Tensor
    key: Tensor
    parent: Tensor

    @classmethod
    def start(cls, batch: int, beam: int, blank: int, device: torch.device) -> Prefixes:
        """The empty sequence first in each beam, dead hypotheses behind it."""
        key = torch.full((batch, beam), _NO_KEY, dtype=torch.int64, device=device)
        key[:, :1] = _ROOT
        return cls(torch.full_like(key, blank), key, torch.full_like(key, _NO_PREFIX))

    def head(self, batch: int) -> Prefixes:
        """The first `batch` utterances."""
        return Prefixes(self.last[:batch], self.key[:batch], self.parent[:batch])

    def continuations(self) -> tuple[Tensor, Tensor]:
        """For each hypothesis: is it another one of its beam plus one token, and which other; both `(N, beam)`."""
        matches = self.parent.unsqueeze(2) == self.key.unsqueeze(1)
        found, source = matches.to(torch.uint8).max(dim=2)
        return found.bool(), source

    def advance(self, source: Tensor, tokens: Tensor, extended: Tensor, alive: Tensor) -> Prefixes:
        """The prefixes after each slot took `source`'s sequence and, where `extended`, one of `tokens`."""
        last, key, parent = (x.gather(1, source) for x in (self.last, self.key, self.parent))
        parent = torch.where(extended, key, parent).masked_fill(~alive, _NO_PREFIX)
        key = torch.where(extended, _mix(key, tokens), key).masked_fill(~alive, _NO_KEY)
        return Prefixes(torch.where(extended, tokens, last), key, parent)


def _mix(key: Tensor, token: Tensor) -> Tensor:
    """A hash of (key, token); multiplications wrap modulo 2^64 (the odd constants are splitmix64's)."""
    key = (key + token + 1) * -4658895280553007687
    return (key ^ torch.bitwise_right_shift(key, 31)) * -7723592293110705685


class Trace:
    """What each slot of each beam did at each frame, and the way back from the last frame to the first."""

    def __init__(self) -> None:
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def append(self, source: Tensor, tokens: Tensor, token_scores: Tensor) -> None:
        """One frame, all `(N', beam)`: the slot at the frame before, the token emitted or -1, its log probability.

        N' may fall from frame to frame (utterances sorted from long to short), never rise.
        """
        self.steps.append((source, tokens, token_scores))

    def hypotheses(self, scores: Tensor, slots: Tensor) -> list[list[Hypothesis]]:
        """The hypotheses in `slots (N, nbest)` with their `scores (N, nbest)`; dead ones are left out."""
        table = scores.cpu().numpy()
        tokens, token_scores = self._walk_back(slots.cpu().numpy())
        result = []
        for n, row in enumerate(table):
            alive = [i for i, score in enumerate(row) if score > NEG_INF or i == 0]
            result.append([emitted(tokens[:, n, i], token_scores[:, n, i], float(row[i])) for i in alive])
        return result

    def _walk_back(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (-1: none) and their scores by frame, `(T, N, nbest)`, of the paths that end in `slots`."""
        tokens = np.full((len(self.steps), *slots.shape), -1, dtype=np.int64)
        token_scores = np.zeros(tokens.shape, dtype=np.float32)
        slots = slots.copy()
        for t, (source, token, score) in reversed(list(enumerate(self._to_host()))):
            n = len(source)
            tokens[t, :n] = np.take_along_axis(token, slots[:n], axis=1)
            token_scores[t, :n] = np.take_along_axis(score, slots[:n], axis=1)
            slots[:n] = np.take_along_axis(source, slots[:n], axis=1)
        return tokens, token_scores

    def _to_host(self) -> list[tuple[np.ndarray, ...]]:
        """All steps as numpy arrays, in one transfer of each kind rather than one a frame."""
        if not self.steps:
            return []
        batches = np.cumsum([len(step[0]) for step in self.steps])[:-1]
        kinds = [np.split(torch.cat(kind).cpu().numpy(), batches) for kind in zip(*self.steps, strict=True)]
        return list(zip(*kinds, strict=True))
