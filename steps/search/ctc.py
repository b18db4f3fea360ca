"""Searches for a CTC head's output (Graves et al. 2006): the best path, and the most probable labelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steps.search.beams import NEG_INF, Prefixes, Trace, top_k
from steps.search.fusion import Fused, TokenScorer
from steps.search.hypothesis import Hypothesis, from_frames


def ctc_greedy(log_probs: Tensor, lens: Tensor, blank: int = 0) -> list[list[Hypothesis]]:
    """The most probable alignment's labelling: argmax per frame, repetitions merged, blanks removed.

    `log_probs (N, T, V)` in nats, `lens (N,)` frames. `score` is the alignment's log probability; a token's frame is
    the first of its run. One hypothesis per utterance.
    """
    scores, best = log_probs.float().max(dim=2)
    valid = torch.arange(best.shape[1], device=best.device) < lens.to(best.device).unsqueeze(1)
    before = torch.nn.functional.pad(best, (1, 0), value=blank)[:, :-1]
    starts = valid & (best != blank) & (best != before)
    tokens = best.masked_fill(~starts, -1)
    return from_frames(tokens, scores, scores.masked_fill(~valid, 0.0).sum(dim=1, dtype=torch.float64))


@dataclass
class _Beams:
    """Log probabilities `(N, beam)` of each prefix over the alignments that end in a blank, and in its last token."""

    prefixes: Prefixes
    blank: Tensor
    token: Tensor
    fused: Fused | None = None

    def head(self, batch: int) -> _Beams:
        fused = self.fused and self.fused.head(batch)
        return _Beams(self.prefixes.head(batch), self.blank[:batch], self.token[:batch], fused)

    def ended(self) -> Tensor:
        """Log probabilities `(N, beam)` of the prefixes as whole texts."""
        total = torch.logaddexp(self.blank, self.token)
        return total if self.fused is None else total + self.fused.ends


def ctc_prefix_beam(
    log_probs: Tensor,
    lens: Tensor,
    beam: int = 8,
    nbest: int = 1,
    blank: int = 0,
    scorers: Sequence[tuple[TokenScorer, float]] = (),
) -> list[list[Hypothesis]]:
    """The `nbest` most probable labellings by prefix beam search (Hannun et al. 2014), best first.

    `log_probs (N, T, V)` in nats, `lens (N,)` frames. `score` sums over all alignments of the labelling that stayed
    in the beam: over all there are where the beam holds every prefix. A token's frame is the one that contributed
    most when its prefix was entered. `scorers` with their scales add to the scores of tokens, and to that of the end
    (`steps.search.fusion`).
    """
    log_probs = log_probs.float()
    lens, order = lens.cpu().sort(descending=True, stable=True)
    log_probs = log_probs[order.to(log_probs.device)]
    state = _start(log_probs, beam, blank, scorers)
    total, trace = state.ended(), Trace()
    for t in range(int(lens.max()) if len(lens) else 0):
        active = int((lens > t).sum())
        state = state.head(active)
        state = _step(state, log_probs[:active, t], blank, trace)
        total[:active] = state.ended()
    scores, slots = top_k(total, min(nbest, beam))
    found = trace.hypotheses(scores, slots)
    return [found[i] for i in order.argsort().tolist()]


def _start(log_probs: Tensor, beam: int, blank: int, scorers: Sequence[tuple[TokenScorer, float]] = ()) -> _Beams:
    batch = len(log_probs)
    dead = log_probs.new_full((batch, beam), NEG_INF)
    empty = dead.clone()
    empty[:, :1] = 0.0
    fused = Fused.start(scorers, batch, beam, blank) if scorers else None
    return _Beams(Prefixes.start(batch, beam, blank, log_probs.device), empty, dead, fused)


def _candidates(frame: Tensor, beam: int, blank: int, fused: Fused | None) -> Tensor:
    """The tokens `(N, C)` that can extend a prefix into the next beam: the 2 * beam most probable are enough, but all
    where others have their say.

    Of one prefix's extensions at most beam - 1 are in the beam already and at most one (a repetition) scores lower
    than its token's probability says, so the best `beam` of the others are among them.
    """
    without_blank = frame.index_fill(1, torch.tensor([blank], device=frame.device), NEG_INF)
    return top_k(without_blank, frame.shape[1] - 1 if fused else min(2 * beam, frame.shape[1] - 1))[1]


def _step(state: _Beams, frame: Tensor, blank: int, trace: Trace) -> _Beams:
    """The beams after one more frame with log probabilities `(N, V)`."""
    prefixes, last = state.prefixes, state.prefixes.last
    total = torch.logaddexp(state.blank, state.token)
    stay_blank = total + frame[:, blank : blank + 1]
    stay_token = state.token + frame.gather(1, last)  # an empty prefix has -inf here
    # A prefix that is another one plus a token is reached from that one too.
    found, source = prefixes.continuations()
    repeats = last == last.gather(1, source)
    entry = torch.where(repeats, state.blank.gather(1, source), total.gather(1, source)) + frame.gather(1, last)
    if state.fused is not None:
        rows = torch.arange(len(last), device=last.device)[:, None]
        entry = entry + state.fused.scores[rows, source, last]
    entry = entry.masked_fill(~found, NEG_INF)
    stay = torch.logaddexp(stay_blank, stay_token)
    moved = entry > stay
    here = torch.arange(last.shape[1], device=last.device).expand_as(last)

    tokens = _candidates(frame, last.shape[1], blank, state.fused)
    extension = _extensions(state, total, frame, tokens, found, source)
    beam, width = last.shape[1], tokens.shape[1]
    new_token = torch.cat([torch.logaddexp(stay_token, entry), extension.flatten(1)], dim=1)
    new_blank = torch.cat([stay_blank, torch.full_like(extension.flatten(1), NEG_INF)], dim=1)
    scores, chosen = top_k(torch.logaddexp(new_blank, new_token), beam)

    came_from = torch.cat([torch.where(moved, source, here), here.unsqueeze(2).expand(-1, -1, width).flatten(1)], dim=1)
    emitted = torch.cat([torch.where(moved, last, -1), tokens.repeat(1, beam)], dim=1)
    came_from, emitted = came_from.gather(1, chosen), emitted.gather(1, chosen)
    trace.append(came_from, emitted, frame.gather(1, emitted.clamp(min=0)))
    extended, alive = emitted >= 0, scores > NEG_INF
    prefixes = prefixes.advance(came_from, emitted, extended, alive)
    fused = state.fused and state.fused.advance(came_from, emitted, extended)
    return _Beams(prefixes, new_blank.gather(1, chosen), new_token.gather(1, chosen), fused)


def _extensions(state: _Beams, total: Tensor, frame: Tensor, tokens: Tensor, found: Tensor, source: Tensor) -> Tensor:
    """Log probabilities `(N, beam, C)` of each prefix plus each candidate token, -inf where the beam has it already."""
    last = state.prefixes.last
    repeats = tokens.unsqueeze(1) == last.unsqueeze(2)
    scores = torch.where(repeats, state.blank.unsqueeze(2), total.unsqueeze(2))
    scores = scores + frame.gather(1, tokens).unsqueeze(1)
    if state.fused is not None:
        scores = scores + state.fused.scores.gather(2, tokens[:, None].expand_as(scores))
    # taken[n, k, c]: some prefix j of the beam is prefix k plus candidate c
    from_source = found.unsqueeze(1) & (source.unsqueeze(1) == torch.arange(last.shape[1], device=last.device)[:, None])
    taken = (from_source.unsqueeze(3) & (last.unsqueeze(1).unsqueeze(3) == tokens[:, None, None, :])).any(dim=2)
    return scores.masked_fill(taken, NEG_INF)
