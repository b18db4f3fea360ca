"""Contextual biasing: words that are likely here get a bonus while they are written (Aho and Corasick 1975).

As icefall's context graph, but that a bonus lasts only where the word ends: `cat` is not rewarded in `category`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from steps.search.fusion import State
from steps.search.trie import TokenTrie, build_trie


class Hotwords:
    """A `TokenScorer` that gives each token of a listed word the word's bonus (nats a token), taken back where the
    word goes on otherwise; a listed word that is the beginning of another counts as well.

    `words`: token ids; `bonus`: one a word; `begins_word` (vocab,) bool: tokens that a word can begin with (all of
    them in languages without spaces). Of a word that is listed twice the last counts; one without tokens does nothing.
    """

    end_id: int

    def __init__(
        self,
        words: Sequence[Sequence[int]],
        bonus: Sequence[float],
        begins_word: Sequence[bool],
        end_id: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        vocab = len(begins_word)
        keys, suffix, nodes = build_trie(words, vocab)
        pending, done = _values(keys, suffix, vocab, nodes, [b * len(w) for b, w in zip(bonus, words, strict=True)])
        self.trie, self.end_id = TokenTrie(keys, suffix, vocab, device), end_id
        self.pending = torch.tensor(pending, dtype=torch.float32, device=device)
        self.done = torch.tensor(done, dtype=torch.float32, device=device)
        self.begins_word = torch.tensor(begins_word, dtype=torch.float32, device=device)
        self.is_end = torch.arange(vocab, device=device) == end_id

    def begin(self, rows: int) -> tuple[Tensor, State]:
        nodes = torch.zeros(rows, dtype=torch.int64, device=self.pending.device)
        return self._scores(nodes), (nodes,)

    def extend(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        nodes = self.trie.step(state[0], tokens)
        return self._scores(nodes), (nodes,)

    def _scores(self, nodes: Tensor) -> Tensor:
        """`(rows, vocab)`: how each token changes what is pending, and what it makes sure of."""
        base = torch.zeros_like(self.begins_word)
        after = self.trie.rows(nodes, self.pending[1:], base)
        pending, done = self.pending[nodes][:, None], self.done[nodes][:, None]
        scores = after - pending + done * self.begins_word
        return torch.where(self.is_end, done - pending, scores)


def _values(
    keys: np.ndarray, suffix: np.ndarray, vocab: int, nodes: Sequence[int], bonus: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """What is pending at each node, and what is sure where a word ends at it.

    The share of the best of the words that a node is on the way to; a node that ends words has their bonuses.
    """
    count = len(suffix)
    parent, depth = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    parent[1:] = keys // vocab
    for node in range(1, count):  # parents come first
        depth[node] = depth[parent[node]] + 1
    own, best = np.zeros(count), np.zeros(count)
    length = depth.copy()
    for node, value in zip(nodes, bonus, strict=True):
        own[node] = value
    best[:] = own / np.maximum(depth, 1)
    for node in range(count - 1, 0, -1):  # a token's bonus of the best word below
        best[parent[node]] = max(best[parent[node]], best[node])
    done = own.copy()
    for node in range(1, count):  # suffixes are shorter, and come before
        done[node] += done[suffix[node]]
    pending = best * length
    return pending, done
