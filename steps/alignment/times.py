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

    A token lasts from its first frame to its last, and a word from its first token to its last. The confidence of a
    token is the mean probability that the model gives it in its frames; that of a word the mean over its frames.
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
    tokens = states[frames] // 2
    firsts = np.searchsorted(tokens, np.arange(len(script.tokens)), side="left")
    ends = np.searchsorted(tokens, np.arange(len(script.tokens)), side="right")

    def item(symbol: str, first: int, last: int) -> AlignmentItem | None:
        """Tokens `first` to `last` as one; None where they were left out."""
        own = frames[firsts[first] : ends[last - 1]]
        if not len(own):
            return None
        start, end = max(clock.time(own[0]), 0.0), clock.time(own[-1] + 1)
        return AlignmentItem(symbol, round(start, 4), round(end - start, 4), round(float(probs[own].mean()), 4))

    words = [item(word, *span) for word, span in zip(script.words, script.spans, strict=True)]
    single = [item(symbol, place, place + 1) for place, symbol in enumerate(script.symbols)]
    missing = [place for place, found in enumerate(words) if found is None]
    return Aligned([found for found in single if found], [found for found in words if found], score, missing)
