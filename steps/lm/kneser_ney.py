"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman, TR-10-98, section 4.1.6), as KenLM's lmplz does it.

Counts are made order by order in arrays: an n-gram is the index of its first words and its last word. All is in memory;
lmplz, where it is installed, works on disk. Its discounts differ a little where the last n-gram of its sorting has an
adjusted count that is not the plain one: it takes the plain one for the counts of counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from steps.lang.tables import UNK
from steps.lm.backoff import BOS, EOS, SPELLINGS, BackoffModel, Grams, encode
from utils.errors import UserError

FALLBACK = (0.5, 1.0, 1.5)  # lmplz's, for orders whose counts of counts give no discounts


@dataclass
class Counted:
    """The n-grams of one order with their counts; `suffix`: all but the first word, as its index in the order below."""

    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    count: np.ndarray
    begins: np.ndarray  # whether the first word is <s>


@dataclass
class Estimate:
    """A model, and for each order its discounts and whether they are the fallback's."""

    model: BackoffModel
    discounts: list[tuple[float, float, float]]
    fallback: list[bool]


def vocabulary(sentences: Iterable[Sequence[str]], words: Iterable[str] | None = None) -> list[str]:
    """`<unk>`, `<s>`, `</s>` and the words of the text, or those given, in code point order."""
    seen = {word for sentence in sentences for word in sentence} if words is None else set(words)
    return [UNK, BOS, EOS, *sorted(seen - {BOS, EOS, *SPELLINGS})]


def estimate(
    sentences: Iterable[Sequence[str]], order: int, words: Sequence[str], cutoffs: Sequence[int] = ()
) -> Estimate:
    """The model of this order of `sentences`, over `words` (as `vocabulary` has them; others are `<unk>`).

    `cutoffs`: n-grams that were seen so often or less are left out, one number an order from unigrams (0) on, the last
    one also for all higher orders.
    Errors: `UserError` without any sentence, for a sentence with `<s>` or `</s>` in it, and for cutoffs that fall.
    """
    cutoffs = [*cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
    if cutoffs[0] or sorted(cutoffs) != cutoffs:
        raise UserError(f"Cutoffs {' '.join(map(str, cutoffs))}: they begin with 0 and never fall.")
    table = {word: index for index, word in enumerate(words)}
    ids, places = encode(sentences, table)
    if not len(ids):
        raise UserError("There is no sentence to count n-grams of.")
    inside = (places > 0) & ((ids == table[BOS]) | (ids == table[EOS]))
    if inside.sum() != (places == 0).sum():
        raise UserError("The text has <s> or </s> in it: leave them out, every line is a sentence.")
    counted = count(ids, places, order, len(words))
    adjusted = [adjusted_counts(counted, level) for level in range(1, order + 1)]
    adjusted[0][table[BOS]] = 0
    return _estimate(counted, adjusted, words, cutoffs)


def count(ids: np.ndarray, places: np.ndarray, order: int, words: int) -> list[Counted]:
    """The n-grams of every order up to `order`; `ids` and `places` as `encode` gives them."""
    everything, zeros = np.arange(words), np.zeros(words, dtype=np.int64)
    counted = [Counted(zeros, everything, zeros, np.bincount(ids, minlength=words), np.zeros(words, dtype=bool))]
    at = ids
    for level in range(2, order + 1):
        valid = np.flatnonzero(places >= level - 1)
        keys, first, inverse, counts = np.unique(
            at[valid - 1] * words + ids[valid], return_index=True, return_inverse=True, return_counts=True
        )
        first = valid[first]
        counted.append(Counted(keys // words, keys % words, at[first], counts, places[first] == level - 1))
        at = np.full(len(ids), -1)
        at[valid] = inverse.reshape(-1)
    return counted


def adjusted_counts(counted: list[Counted], level: int) -> np.ndarray:
    """How many different words stand before each n-gram; the plain count of the longest, and of those with `<s>`."""
    grams = counted[level - 1]
    if level == len(counted):
        return grams.count.copy()
    different = np.bincount(counted[level].suffix, minlength=len(grams.count))
    return np.where(grams.begins, grams.count, different)


def discounts_of(adjusted: np.ndarray) -> tuple[float, float, float] | None:
    """Discounts of n-grams seen once, twice and more often (equation 26); None where they are no proper numbers."""
    n = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(float)
    if not n[1:4].all():
        return None
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return found if all(0 <= d <= k for k, d in enumerate(found, 1)) else None


def _estimate(counted: list[Counted], adjusted: list[np.ndarray], words: Sequence[str], cutoffs: list[int]) -> Estimate:
    orders, masks, all_discounts, fallback = [], [], [], []
    probs = np.full(1, 1.0 / (len(words) - 1))  # <s> is never predicted
    for grams, a, cutoff in zip(counted, adjusted, cutoffs, strict=True):
        found = discounts_of(a)
        all_discounts.append(found or FALLBACK)
        fallback.append(found is None)
        discount = np.array([0.0, *all_discounts[-1]])[np.minimum(a, 3)]
        kept = (grams.count > cutoff) | (len(orders) == 0)
        contexts = len(orders[-1]) if orders else 1
        total = np.maximum(np.bincount(grams.prefix, a, contexts), 1)
        given_up = np.bincount(grams.prefix, np.where(kept, discount, a), contexts) / total
        probs = (a - discount) / total[grams.prefix] + given_up[grams.prefix] * probs[grams.suffix]
        if orders:
            with np.errstate(divide="ignore"):
                followed = np.bincount(grams.prefix, kept, contexts) > 0
                orders[-1].backoff = np.where(followed, np.log(given_up), 0.0)
        orders.append(Grams(grams.prefix, grams.word, probs, np.zeros(len(a))))
        masks.append(kept)
    for grams in orders:
        with np.errstate(divide="ignore"):
            grams.log_prob = np.log(grams.log_prob)
    orders[0].log_prob[words.index(BOS)] = -np.inf
    return Estimate(BackoffModel(words, orders).keep(masks), all_discounts, fallback)
