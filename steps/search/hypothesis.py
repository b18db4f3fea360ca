"""What every search returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

NO_PATH = -1e10  # the score where a graph allows nothing; JSON has no -inf


@dataclass
class Hypothesis:
    """One transcription of one utterance.

    `tokens` are token ids; `frames` the encoder frame at which each token was emitted; `score` the log probability
    of the whole (nats); `token_scores` the log probability of each token at its frame (nats); `words` what a graph
    wrote for them, None where the tokens spell the text themselves; `parts` what the score was made of, by name,
    before scales: `am` of the acoustic model, `lm` of a graph, `first` of a search that came
    before, and what hypotheses were rescored with; `word_scores` how probable each of `words` is in a lattice, 0 to 1.
    """

    tokens: list[int]
    frames: list[int]
    score: float
    token_scores: list[float]
    words: list[str] | None = None
    parts: dict[str, float] | None = None
    word_scores: list[float] | None = field(default=None, compare=False)


def from_frames(tokens: Tensor, token_scores: Tensor, scores: Tensor) -> list[list[Hypothesis]]:
    """One hypothesis per utterance from a frame-by-frame decision.

    `tokens (N, T)` holds the token emitted at each frame, -1 where there is none; `token_scores (N, T)`;
    `scores (N,)`.
    """
    table = zip(tokens.cpu().numpy(), token_scores.cpu().numpy(), scores.cpu().tolist(), strict=True)
    return [[emitted(*row)] for row in table]


def emitted(tokens: np.ndarray, token_scores: np.ndarray, score: float) -> Hypothesis:
    """The hypothesis that emits `tokens (T,)` (-1: none) with log probabilities `token_scores (T,)`."""
    frames = np.flatnonzero(tokens >= 0)
    return Hypothesis(tokens[frames].tolist(), frames.tolist(), score, token_scores[frames].tolist())
