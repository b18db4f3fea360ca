"""Forced alignment: which frames a CTC model gives to each token of a known text (Viterbi; Graves et al. 2006).

The text may be an hour long: frames are taken in blocks, of which only the first column of scores is kept and the rest
computed once more on the way back, so that memory grows with the square root of what the trellis would take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from steps.search.beams import NEG_INF

TRELLIS = 32 * 2**20  # states of the trellis that may be kept at once, a byte each


@dataclass(frozen=True)
class Gaps:
    """Where an alignment may leave the text: at `states (N, G)` (blanks between words, ascending; short rows are filled
    with the last state), where anything may be said, at `strange` nats a frame below its most probable token, and from
    one of which to a later one words may be left out, for the difference of their `costs (N, G)` in nats."""

    states: Tensor
    costs: Tensor
    strange: float

    def of(self, rows: Tensor) -> Gaps:
        """Those of some utterances."""
        return Gaps(self.states[rows], self.costs[rows], self.strange)


def ctc_states(tokens: Tensor, blank: int = 0) -> Tensor:
    """What each state of CTC's trellis emits: a blank before, between and behind `tokens (N, U)`, `(N, 2 U + 1)`."""
    return F.pad(torch.stack((torch.full_like(tokens, blank), tokens), dim=2).flatten(1), (0, 1), value=blank)


def ctc_alignment(
    log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor, gaps: Gaps | None = None, blank: int = 0
) -> tuple[Tensor, Tensor]:
    """The most probable way to say `tokens (N, U)` in `log_probs (N, T, V)` (nats), and its score.

    `lens (N,)` frames and `token_lens (N,)` count. Returns the state of each frame `(N, T)`, 2 u + 1 for token u and
    even for the blanks around (-1 behind the end), and the log probabilities `(N,)`: -inf, with states that mean
    nothing, where the frames are too few (`needed_frames`).
    """
    lens, order = lens.cpu().sort(descending=True, stable=True)
    device, back = log_probs.device, order.argsort().to(log_probs.device)
    order = order.to(device)
    rows = (log_probs[order].float(), lens.tolist(), tokens.to(device)[order], token_lens.to(device)[order])
    path, scores = _best_path(_Trellis(*rows, None if gaps is None else gaps.of(order), blank))
    beyond = torch.arange(path.shape[1], device=device) >= lens.to(device)[:, None]
    return path.masked_fill(beyond, -1)[back], scores[back]


def _best_path(trellis: _Trellis) -> tuple[Tensor, Tensor]:
    """States `(N, T)` and scores `(N,)`."""
    size = max(1, min(trellis.frames, TRELLIS // trellis.emits.numel()))
    if size < trellis.frames:
        size = min(size, math.isqrt(trellis.frames) + 1)
    begins = list(range(0, trellis.frames, size)) or [0]
    columns, shift = [trellis.start()], 0.0
    for begin in begins[:-1]:
        column, by = _rebased(trellis.forward(columns[-1], begin, size))
        columns.append(column)
        shift = shift + by
    state, states = None, []
    for begin, column in zip(reversed(begins), reversed(columns), strict=True):
        steps: list[_Step] = []
        last = trellis.forward(column, begin, size, steps)
        if state is None:
            state, scores = trellis.end(last)
        for step in reversed(steps):
            state = trellis.before_jump(state, step)
            states.append(state)
            state = trellis.before(state, step)
    return torch.cat([trellis.emits[:, :0], *states[::-1]], dim=1), scores + shift


def _rebased(column: Tensor) -> tuple[Tensor, Tensor]:
    """Scores `(N, S)` against their best, which float32 holds after any number of frames, and the best `(N,)`."""
    best = column.max(dim=1, keepdim=True).values.nan_to_num(neginf=0.0)
    return column - best, best[:, 0].double()


@dataclass(frozen=True)
class _Step:
    """One frame of the utterances that are so long: whether a state was reached from the one before or the one before
    that `(N', S)`, and from which gate each gate was `(N', G)`."""

    one: Tensor
    two: Tensor
    jump: Tensor | None


class _Trellis:
    """The scores of being in each state after each frame, and where each came from; the longest utterance is first.

    Masks are added as zeros and -inf: torch 1.13's masked_fill and where are a hundred times as slow on a CPU.
    """

    def __init__(
        self, log_probs: Tensor, lens: list[int], tokens: Tensor, token_lens: Tensor, gaps: Gaps | None, blank: int
    ) -> None:
        self.log_probs, self.gaps, self.frames = log_probs, gaps, log_probs.shape[1]
        self.active = [sum(length > t for length in lens) for t in range(self.frames)]
        self.emits, self.last = ctc_states(tokens, blank), 2 * token_lens[:, None]
        # a blank can be left out between different tokens
        hops = torch.zeros_like(self.emits, dtype=torch.bool)
        hops[:, 3::2] = self.emits[:, 3::2] != self.emits[:, 1:-2:2]
        self.hop = torch.zeros_like(self.emits, dtype=torch.float32).masked_fill(~hops, NEG_INF)
        if gaps is not None:
            places = torch.arange(gaps.states.shape[1], device=tokens.device).expand_as(gaps.states)
            self.gate_of = torch.full_like(self.emits, -1).scatter_(1, gaps.states, places)

    def start(self) -> Tensor:
        """Scores `(N, S)` before the first frame: at the first blank, of which the first token is one step away."""
        column = self.log_probs.new_full(self.emits.shape, NEG_INF)
        column[:, 0] = 0.0
        return self._jump(column)[0]

    def forward(self, column: Tensor, begin: int, size: int, steps: list[_Step] | None = None) -> Tensor:
        """The scores `(N, S)` after `size` frames from `begin` on; `steps` gets what the way back needs."""
        block, column = self.log_probs[:, begin : begin + size], column.clone()
        emitted = self._emitted(block)
        for t in range(block.shape[1]):
            active = self.active[begin + t]
            stay = column[:active]
            one = F.pad(stay, (1, 0), value=NEG_INF)[:, :-1]
            two = F.pad(stay, (2, 0), value=NEG_INF)[:, :-2] + self.hop[:active]
            near = torch.maximum(stay, one)
            best, jump = self._jump(torch.maximum(near, two) + emitted[:active, t])
            if steps is not None:
                steps.append(_Step(one > stay, two > near, jump))
            column[:active] = best
        return column

    def _emitted(self, block: Tensor) -> Tensor:
        """Log probabilities `(N, B, S)` of what each state emits in a block of frames."""
        emitted = block.gather(2, self.emits[:, None].expand(-1, block.shape[1], -1))
        if self.gaps is None:
            return emitted
        gates = self.gaps.states[:, None].expand(-1, block.shape[1], -1)
        strange = block.max(dim=2, keepdim=True).values - self.gaps.strange
        return emitted.scatter(2, gates, torch.maximum(emitted.gather(2, gates), strange))

    def _jump(self, column: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores `(N', S)` after words were left out, and from which gate `(N', G)` each gate was reached."""
        if self.gaps is None:
            return column, None
        states, costs = self.gaps.states[: len(column)], self.gaps.costs[: len(column)]
        best, source = (column.gather(1, states) + costs).cummax(dim=1)
        return column.scatter(1, states, best - costs), source.int()

    def before_jump(self, state: Tensor, step: _Step) -> Tensor:
        """Where ways that are in `state (N, 1)` after a frame were before words were left out."""
        if step.jump is None:
            return state
        active = len(step.jump)
        gate = self.gate_of[:active].gather(1, state[:active])
        source = self.gaps.states[:active].gather(1, step.jump.gather(1, gate.clamp(min=0)).long())
        return torch.cat((torch.where(gate < 0, state[:active], source), state[active:]))

    def before(self, state: Tensor, step: _Step) -> Tensor:
        """Where ways that are in `state (N, 1)` in a frame were in the one before."""
        active = len(step.one)
        now = state[:active]
        down = torch.where(step.two.gather(1, now), 2, step.one.gather(1, now).long())
        return torch.cat((now - down, state[active:]))

    def end(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """The better of the last two states `(N, 1)`, and its score `(N,)`."""
        token = (self.last - 1).clamp(min=0)
        silent, spoken = column.gather(1, self.last), column.gather(1, token)
        return torch.where(spoken > silent, token, self.last), torch.maximum(spoken, silent)[:, 0].double()


def needed_frames(tokens: list[int]) -> int:
    """The fewest frames that CTC can say `tokens` in: one each, and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))
