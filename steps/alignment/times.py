"""Frames of a CTC model as times: where its frames lie, which belong to which token, and how sure the model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from lhotse.supervision import AlignmentItem
from torch import Tensor

from steps.alignment.script import Script
from steps.nets.speech import SpeechEncoder
from steps.search.alignment import Gaps, ctc_alignment, ctc_states


@dataclass(frozen=True)
class Clock:
    """Frame `t` of an encoder stands for `frame` seconds of sound from `origin + t * frame` on."""

    frame: float
    origin: float

    @classmethod
    def of(cls, encoder: SpeechEncoder, frame_shift: float) -> Clock:
        """An encoder's, of features that are `frame_shift` seconds apart."""
        return cls(encoder.subsampling_factor * frame_shift, encoder.origin * frame_shift)

    def time(self, frame: float) -> float:
        """When a frame begins."""
        return self.origin + frame * self.frame


@dataclass
class Aligned:
    """Items of Lhotse: symbol, start and duration in seconds, and as score the confidence, from 0 to 1.

    `score`: log probability of the alignment a frame, in nats. `missing`: the places of words that are not there.
    """

    tokens: list[AlignmentItem]
    words: list[AlignmentItem]
    score: float
    missing: list[int] = field(default_factory=list)


def scaled(log_probs: Tensor, prior: Tensor, scale: float) -> Tensor:
    """Log probabilities `(..., V)` without `scale` times those that the tokens have of themselves, `prior (V,)`.

    A CTC model says blank wherever it may, and a token for a frame or two; divided by how often it says each, a token
    lasts as long as it is more probable than usual (Huang et al. 2024, arXiv:2406.02560, there in training as well).
    """
    return (log_probs - scale * prior).log_softmax(dim=-1) if scale else log_probs


def align(
    log_probs: Tensor, lens: Tensor, scripts: Sequence[Script], clock: Clock, gaps: Gaps | None = None
) -> list[Aligned]:
    """Where each script is in `log_probs (N, T, V)`, of which `lens (N,)` frames count, at least `needed_frames`.

    A token lasts from its first frame to its last. A word lasts from its first token to its last and half a frame more
    on either side where a blank or a mark of words comes between: this takes a frame, however short the pause, and
    words would be a frame too short (measured with speech of known times: at 20 ms a frame they began 10 ms late and
    ended 10 ms early, at 40 ms 22 and 20). The confidence of a token is the mean probability that the model gives it in
    its frames; that of a word the mean over its frames.
    """
    counts = torch.tensor([len(script.tokens) for script in scripts])
    tokens = torch.zeros(len(scripts), max(1, int(counts.max())), dtype=torch.int64)
    for row, script in zip(tokens, scripts, strict=True):
        row[: len(script.tokens)] = torch.tensor(script.tokens, dtype=torch.int64)
    tokens = tokens.to(log_probs.device)
    states, scores = ctc_alignment(log_probs, lens, tokens, counts, gaps)
    labels = ctc_states(tokens).gather(1, states.clamp(min=0))
    probs = log_probs.gather(2, labels[..., None])[..., 0].float().exp()
    rows = zip(scripts, states.cpu().numpy(), probs.cpu().numpy(), scores.tolist(), lens.tolist(), strict=True)
    return [
        _aligned(script, path[:length], of[:length], score / max(length, 1), clock)
        for script, path, of, score, length in rows
    ]


def _aligned(script: Script, states: np.ndarray, probs: np.ndarray, score: float, clock: Clock) -> Aligned:
    """One utterance of states and probabilities `(frames,)`."""
    frames = np.flatnonzero(states % 2)
    places = np.arange(len(script.tokens))
    firsts, ends = (np.searchsorted(states[frames] // 2, places, side=side) for side in ("left", "right"))
    said = [place for place, (first, last) in enumerate(script.spans) if firsts[first] < ends[last - 1]]
    spoken = [frames[firsts[first] : ends[last - 1]] for first, last in (script.spans[place] for place in said)]
    edges = _edges([(own[0], own[-1] + 1) for own in spoken], len(states))
    words = [
        _item(script.words[place], *edge, probs[own], clock)
        for place, own, edge in zip(said, spoken, edges, strict=True)
    ]
    tokens = []
    for symbol, first, end in zip(script.symbols, firsts, ends, strict=True):
        if first < end:
            own = frames[first:end]
            tokens.append(_item(symbol, own[0], own[-1] + 1, probs[own], clock))
    return Aligned(tokens, words, score, sorted(set(range(len(script.words))) - set(said)))


def _edges(spans: list[tuple[int, int]], frames: int) -> list[tuple[float, float]]:
    """Spans of words in frames, each half a frame longer on either side if there is a frame that is nobody's."""
    bounds = np.array([0, *(bound for span in spans for bound in span), frames], dtype=np.float64)
    room = np.minimum(np.diff(bounds)[::2], 1.0) / 2
    return [(first - before, last + after) for (first, last), before, after in zip(spans, room, room[1:], strict=False)]


def _item(symbol: str, first: float, last: float, probs: np.ndarray, clock: Clock) -> AlignmentItem:
    """Frames `first` up to `last` with the probabilities of a symbol's own."""
    start, end = max(clock.time(first), 0.0), clock.time(last)
    return AlignmentItem(symbol, round(start, 4), round(end - start, 4), round(float(probs.mean()), 4))
