"""Back-off n-gram models as a trie of arrays: looked up, scored and changed for many n-grams at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steps.lang.tables import UNK

BOS, EOS = "<s>", "</s>"
TINY = 1e-12  # a context that holds all probability has nothing left over but rounding
SPELLINGS = {"<UNK>": UNK, "<unk>": UNK, "<Unk>": UNK}  # tools differ


@dataclass
class Grams:
    """All n-grams of one order, sorted by `prefix` and `word`; each array has one value for each.

    `prefix`: the words before the last, as their index in the order below (0 of unigrams); `word`: the last word's id;
    `log_prob` and `backoff`: natural logarithms (ARPA files have decimal ones), `backoff` 0 where nothing follows.
    """

    prefix: np.ndarray
    word: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.word)

    def select(self, rows: np.ndarray) -> Grams:
        """The n-grams of these rows (a mask or indices that rise)."""
        return Grams(self.prefix[rows], self.word[rows], self.log_prob[rows], self.backoff[rows])


def encode(sentences: Iterable[Sequence[str]], ids: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of `<s> words </s>` of all sentences in one array, and each token's place in its sentence.

    A word that `ids` lacks is `<unk>`, and -1 where they lack that too.
    """
    begin, end, spare = (ids.get(symbol, -1) for symbol in (BOS, EOS, UNK))
    lens: list[int] = []

    def tokens() -> Iterator[int]:
        for sentence in sentences:
            lens.append(len(sentence) + 2)
            yield begin
            for word in sentence:
                yield ids.get(word, spare)
            yield end

    found, sizes = np.fromiter(tokens(), dtype=np.int64), np.array(lens, dtype=np.int64)
    return found, np.arange(len(found)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


@dataclass
class Scores:
    """`log_prob` (nats; -inf: no probability) and `matched` (words of the longest n-gram found) of each token."""

    log_prob: np.ndarray
    matched: np.ndarray


class BackoffModel:
    """A model over `words` (ids are their places; `<s>` and `</s>` are among them) with `orders[k - 1]` its k-grams.

    Every word has a unigram, in the words' order; the first words of every n-gram are an n-gram too.
    """

    def __init__(self, words: Sequence[str], orders: Sequence[Grams]) -> None:
        self.words, self.orders = list(words), list(orders)
        self.ids = {word: index for index, word in enumerate(self.words)}
        self._keys = [grams.prefix * len(self.words) + grams.word for grams in self.orders]

    @property
    def order(self) -> int:
        """The longest n-grams' number of words."""
        return len(self.orders)

    @property
    def counts(self) -> list[int]:
        """How many n-grams there are of each order."""
        return [len(grams) for grams in self.orders]

    def find(self, order: int, prefix: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Indices of the n-grams of this order with these prefixes and last words (-1 in either: unknown); -1: none."""
        keys = self._keys[order - 1]
        wanted = prefix * len(self.words) + word
        place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        there = (prefix >= 0) & (word >= 0)
        if not len(keys):
            return np.full(np.shape(wanted), -1)
        return np.where(there & (keys[place] == wanted), place, -1)

    def grams(self, order: int) -> np.ndarray:
        """The n-grams of this order as ids `(n, order)`."""
        if order == 1:
            return self.orders[0].word[:, None]
        grams = self.orders[order - 1]
        return np.concatenate((self.grams(order - 1)[grams.prefix], grams.word[:, None]), axis=1)

    def conditional(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """ln p(word | context) for ids `contexts (n, m)` and `words (n,)`; -inf for words without any probability."""
        contexts = contexts[:, max(contexts.shape[1] - self.order + 1, 0) :]
        known, log_prob = self.find(1, np.zeros_like(words), words), np.full(len(words), -np.inf)
        log_prob[known >= 0] = self.orders[0].log_prob[known[known >= 0]]
        for length in range(1, contexts.shape[1] + 1):
            inside = self.index(contexts[:, -length:])
            log_prob += np.where(inside >= 0, self.orders[length - 1].backoff[inside], 0.0)
            found = self.find(length + 1, inside, words)
            log_prob = np.where(found >= 0, self.orders[length].log_prob[found], log_prob)
        return log_prob

    def index(self, grams: np.ndarray) -> np.ndarray:
        """Indices, in their order, of the n-grams of these ids `(n, order)`; -1 where there is none."""
        index = np.zeros(len(grams), dtype=np.int64)
        for order in range(1, grams.shape[1] + 1):
            index = self.find(order, index, grams[:, order - 1])
        return index

    def score(self, ids: np.ndarray, places: np.ndarray) -> Scores:
        """Of each token given those before it, as `encode` has them; `<s>` itself is worth 0."""
        log_prob, matched = np.full(len(ids), -np.inf), np.zeros(len(ids), dtype=np.int64)
        here, before = self.find(1, np.zeros_like(ids), ids), None
        for order in range(1, self.order + 1):
            grams = self.orders[order - 1]
            if order > 1:
                before = np.concatenate(([-1], here[:-1]))
                before[places < order - 1] = -1
                log_prob += np.where(before >= 0, self.orders[order - 2].backoff[before], 0.0)
                here = self.find(order, before, ids)
            log_prob = np.where(here >= 0, grams.log_prob[here] if len(grams) else 0.0, log_prob)
            matched[here >= 0] = order
        log_prob[places == 0] = 0.0
        return Scores(log_prob, matched)

    def keep(self, masks: Sequence[np.ndarray]) -> BackoffModel:
        """The model without the n-grams that `masks` (one an order) leave out; longer ones that need these go too."""
        orders, renumbered = [], np.zeros(1, dtype=np.int64)
        for grams, mask in zip(self.orders, masks, strict=True):
            rows = mask & (renumbered[grams.prefix] >= 0)
            kept = grams.select(rows)
            kept.prefix = renumbered[kept.prefix]
            renumbered = np.where(rows, np.cumsum(rows) - 1, -1)
            orders.append(kept)
        while len(orders) > 1 and not len(orders[-1]):
            orders.pop()
        return BackoffModel(self.words, orders)

    def lower(self, order: int) -> np.ndarray:
        """ln p of each n-gram's last word given all its words but the first and the last."""
        grams = self.grams(order)
        return self.conditional(grams[:, 1:-1], grams[:, -1])

    def left_over(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """What no n-gram of this order holds: 1 - Σ p(w | h) and 1 - Σ p(w | shorter h), of each context h.

        Both sums are over the words w that the model has behind h; the back-off weight of h is the quotient.
        """
        grams, contexts = self.orders[order - 1], len(self.orders[order - 2])
        held = np.bincount(grams.prefix, np.exp(grams.log_prob), contexts)
        return 1.0 - held, 1.0 - np.bincount(grams.prefix, np.exp(self.lower(order)), contexts)

    def set_backoffs(self) -> None:
        """Make every context's probabilities sum to one by its back-off weight, from the shortest contexts on."""
        for order in range(2, self.order + 1):
            above, below = self.left_over(order)
            has = np.bincount(self.orders[order - 1].prefix, minlength=len(above)) > 0
            weights = np.log(np.maximum(above, TINY)) - np.log(np.maximum(below, TINY))
            self.orders[order - 2].backoff = np.where(has, weights, 0.0)
        self.orders[-1].backoff = np.zeros(len(self.orders[-1]))


def token_scores(model: BackoffModel, sentences: Iterable[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, ln p and length of the longest n-gram found, of every token but the sentences' beginnings."""
    ids, places = encode(sentences, model.ids)
    scores, said = model.score(ids, places), places > 0
    return ids[said], scores.log_prob[said], scores.matched[said]
