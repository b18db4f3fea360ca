"""G: a back-off n-gram model as a graph over the words of a lang folder, as Kaldi's arpa2fst makes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steps.lang.arcs import FINAL, Arcs
from steps.lang.lexicon import BACKOFF, EPSILON
from steps.lm.backoff import BOS, EOS, BackoffModel
from utils.errors import UserError


def grammar(model: BackoffModel, words: Sequence[str]) -> tuple[Arcs, list[str]]:
    """The graph whose labels are places in `words`, and the model's words that it lacks, whose n-grams are left out.

    A state for every context that something follows; its arcs are the words behind it, and one labelled `#0` to the
    context without its first word. Labels and aux labels are the same, but that `#0` writes nothing.
    Errors: `UserError` where `words` has no `#0`, or none of the model's words.
    """
    table = {word: index for index, word in enumerate(words)}
    if BACKOFF not in table:
        raise UserError(f"words.txt has no {BACKOFF}: make it again with stage 3 (lang).")
    spoken = [word not in (BOS, EOS) for word in model.words]
    missing = [word for word, said in zip(model.words, spoken, strict=True) if said and word not in table]
    if len(missing) == sum(spoken):
        raise UserError(f"The language model has none of the words of words.txt (but {' '.join(missing[:3])} ...).")
    labels = np.array([table.get(word, -1) if said else -1 for word, said in zip(model.words, spoken, strict=True)])
    states = _States(model)
    parts = [states.backoffs(table[BACKOFF])]
    for order in range(1, model.order + 1):
        parts += [states.words(order, labels), states.ends(order)]
    return Arcs(*(np.concatenate(values) for values in zip(*parts, strict=True))).sorted(), missing


class _States:
    """Contexts that something follows, numbered through all orders: `<s>`, the empty one, the others, then the end."""

    def __init__(self, model: BackoffModel) -> None:
        self.model = model
        self.numbers = [np.array([1])]  # of the empty context
        count = 2
        for order in range(1, model.order):
            followed = np.bincount(model.orders[order].prefix, minlength=len(model.orders[order - 1])) > 0
            if order == 1:
                followed[model.ids[EOS]] = False
                followed[model.ids[BOS]] = False
            self.numbers.append(np.where(followed, np.cumsum(followed) - 1 + count, -1))
            count += int(followed.sum())
        if model.order > 1:
            self.numbers[1][model.ids[BOS]] = 0
        self.end = count

    def _target(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The state of the longest ending of each n-gram of ids that is one, and the back-off weights on the way."""
        state, weight = np.full(len(grams), -1), np.zeros(len(grams))
        for length in range(min(grams.shape[1], self.model.order - 1), 0, -1):
            index = self.model.index(grams[:, -length:])
            found = np.where(index >= 0, self.numbers[length][index], -1)
            open_ = state < 0
            weight += np.where(open_ & (found < 0) & (index >= 0), self.model.orders[length - 1].backoff[index], 0.0)
            state = np.where(open_, found, state)
        return np.where(state < 0, 1, state), weight

    def words(self, order: int, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Arcs of the n-grams of this order that end in a word with a label."""
        grams, source = self.model.orders[order - 1], self.source(order)
        rows = np.flatnonzero((labels[grams.word] >= 0) & np.isfinite(grams.log_prob) & (source >= 0))
        target, weight = self._target(self.model.grams(order)[rows])
        label = labels[grams.word[rows]]
        return source[rows], target, label, label, grams.log_prob[rows] + weight

    def ends(self, order: int) -> tuple[np.ndarray, ...]:
        """Arcs of the n-grams of this order that end in `</s>`."""
        grams, source = self.model.orders[order - 1], self.source(order)
        rows = np.flatnonzero((grams.word == self.model.ids[EOS]) & np.isfinite(grams.log_prob) & (source >= 0))
        same = np.full(len(rows), FINAL)
        return source[rows], np.full(len(rows), self.end), same, same, grams.log_prob[rows]

    def source(self, order: int) -> np.ndarray:
        """The state that each n-gram of this order leaves."""
        return self.numbers[order - 1][self.model.orders[order - 1].prefix]

    def backoffs(self, label: int) -> tuple[np.ndarray, ...]:
        """Arcs from every context to the one without its first word."""
        sources, targets, scores = [], [], []
        for order in range(1, self.model.order):
            rows = np.flatnonzero(self.numbers[order] >= 0)
            target, weight = self._target(self.model.grams(order)[rows, 1:])
            sources.append(self.numbers[order][rows])
            targets.append(target)
            scores.append(self.model.orders[order - 1].backoff[rows] + weight)
        if not sources:  # unigrams have one context only; the beginning goes to it
            sources, targets, scores = [np.array([0])], [np.array([1])], [np.zeros(1)]
        source = np.concatenate(sources)
        label_, aux = np.full(len(source), label), np.full(len(source), EPSILON)
        return source, np.concatenate(targets), label_, aux, np.concatenate(scores)
