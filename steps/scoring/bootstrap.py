"""Bootstrap over utterances from per-utterance sufficient statistics: intervals and paired differences."""

from __future__ import annotations

import numpy as np

_CHUNK = 1 << 22  # indices drawn at once: 32 MB


def resampled_sums(statistics: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Sums of `statistics` (utterances, k) over `replicates` samples with replacement: (replicates, k).

    The draws are sacrebleu's for the same seed, and depend on nothing but the number of utterances: two systems on the
    same utterances, in the same order, are resampled alike (a paired bootstrap; Koehn, EMNLP 2004).
    """
    utterances = len(statistics)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // utterances)
    sums = []
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        drawn = generator.integers(utterances, size=(count, utterances))
        drawn += np.arange(count)[:, None] * utterances
        weights = np.bincount(drawn.ravel(), minlength=count * utterances).reshape(count, utterances)
        sums.append(weights.astype(np.float64) @ statistics)
    return np.concatenate(sums)


def interval(scores: np.ndarray) -> tuple[float, float]:
    """The 95 % interval: scores with a fortieth of the replicates below and above (as sacrebleu has it)."""
    ordered = np.sort(scores)
    outside = len(ordered) // 40
    return float(ordered[outside]), float(ordered[len(ordered) - 1 - outside])


def paired_p_value(first: np.ndarray, second: np.ndarray, difference: float) -> float:
    """Two-sided p-value of the score `difference` second - first, from paired replicates (replicates,) of the two.

    The share of replicates whose difference is as far from the replicates' mean difference as the observed one is
    from zero, with one added to both counts, so never 0 (Efron and Tibshirani, An Introduction to the Bootstrap, 16.4).
    """
    differences = second - first
    extreme = int(np.sum(np.abs(differences - differences.mean()) >= abs(difference)))
    return (extreme + 1) / (len(differences) + 1)
