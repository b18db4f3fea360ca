"""Minimum Bayes risk: of several hypotheses the one that most agrees with all of them (Kumar and Byrne, 2004)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import kaldialign
import numpy as np

Utility = Callable[[str, str], float]  # of a hypothesis, if another were the reference


def word_accuracy(hypothesis: str, reference: str) -> float:
    """1 - WER, never below 0; 1 where both are empty."""
    words = reference.split()
    edits = kaldialign.edit_distance(words, hypothesis.split())["total"]
    return max(0.0, 1 - edits / len(words)) if words else float(not hypothesis.split())


def shares(scores: Sequence[float], scale: float) -> np.ndarray:
    """softmax(scale * scores) (hypotheses,): the probabilities of a list's hypotheses; `scale` 0 makes them equal."""
    scaled = scale * np.asarray(scores, dtype=np.float64)
    powers = np.exp(scaled - scaled.max())
    return powers / powers.sum()


def expected(weights: Mapping[str, float], utility: Utility) -> list[tuple[str, float]]:
    """(text, expected utility) of the texts of `weights`, best first; the weights need not sum to 1."""
    texts, total = list(weights), sum(weights.values())
    found = {text: sum(weights[other] * utility(text, other) for other in texts) / total for text in texts}
    return sorted(found.items(), key=lambda entry: -entry[1])


def by_risk(texts: Sequence[str], scores: Sequence[float], scale: float) -> list[int]:
    """Places of the hypotheses of these texts and scores (nats), those of least expected word errors first; `scale`
    sharpens the scores' shares."""
    weights: dict[str, float] = {}
    for text, part in zip(texts, shares(scores, scale) if texts else [], strict=True):
        weights[text] = weights.get(text, 0.0) + float(part)
    rank = {text: place for place, (text, _) in enumerate(expected(weights, word_accuracy))}
    return sorted(range(len(texts)), key=lambda place: (rank[texts[place]], -scores[place]))
