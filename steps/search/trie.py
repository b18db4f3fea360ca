"""A trie of token sequences with suffix links as tensors: for many hypotheses at once, on any device (Aho and Corasick
1975; a back-off n-gram model is one as well)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class TokenTrie:
    """Node 0 is the empty sequence, node e + 1 what entry e adds to its parent; tokens are 0 ... `vocab` - 1.

    `keys` (entries,): parent * vocab + token, rising; `suffix` (nodes,): the node of the longest proper ending.
    Errors: `ValueError` where keys do not rise.
    """

    def __init__(self, keys: np.ndarray, suffix: np.ndarray, vocab: int, device: torch.device | str = "cpu") -> None:
        if (np.diff(keys) <= 0).any():
            raise ValueError("keys must rise")
        first = np.searchsorted(keys, np.arange(len(suffix) + 1) * vocab)
        hops, node = np.zeros(len(suffix), dtype=np.int64), np.arange(len(suffix))
        while (node > 0).any():
            hops += node > 0
            node = suffix[node]
        self.vocab, self.links = vocab, int(hops.max())  # suffixes of a node before the empty one, at most
        self.begins = int(first[1])  # children of the first node
        self.width = int(np.diff(first)[1:].max(initial=0))  # children of a node but the first, at most
        self.keys, self.suffix, self.first = (torch.from_numpy(x).to(device) for x in (keys, suffix, first))
        self.tokens = self.keys % vocab

    def chain(self, nodes: Tensor) -> list[Tensor]:
        """`nodes (rows,)`, their suffixes, the suffixes of these ... as long as one of them may not be 0."""
        found = [nodes]
        for _ in range(self.links - 1):
            found.append(self.suffix[found[-1]])
        return found

    def step(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """The nodes of the longest endings of each of `nodes (rows,)` and one more of `tokens (rows,)`."""
        found = torch.zeros_like(nodes)
        if not len(self.keys):
            return found
        for node in (found, *reversed(self.chain(nodes))):
            wanted = node * self.vocab + tokens
            place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
            found = torch.where(self.keys[place] == wanted, place + 1, found)
        return found

    def rows(self, nodes: Tensor, values: Tensor, base: Tensor, added: Tensor | None = None) -> Tensor:
        """What follows each of `nodes (rows,)`: `(rows, vocab)` of each token's value.

        `values` (entries,) of a node's children stand before those of its suffixes' children, plus `added` (nodes,) of
        every node whose children lack the token (node 0's must be 0); `base` (vocab,) for tokens that the empty
        sequence's children lack.
        """
        table = torch.nn.functional.pad(base, (0, 1))  # a column for what is outside
        table[self.tokens[: self.begins]] = values[: self.begins]
        chain = self.chain(nodes)
        sums = [torch.zeros(len(nodes), 1, dtype=values.dtype, device=values.device)]
        for node in chain if added is not None else ():
            sums.append(sums[-1] + added[node][:, None])
        found = table + sums[-1]
        spread = torch.arange(self.width, device=nodes.device)
        for node, passed in zip(reversed(chain), reversed(sums[:-1] or sums * len(chain)), strict=True):
            place = self.first[node][:, None] + spread
            inside = (place < self.first[node + 1][:, None]) & (node > 0)[:, None]
            place = place.clamp(max=len(self.keys) - 1)
            columns = torch.where(inside, self.tokens[place], self.vocab)
            found.scatter_(1, columns, values[place] + passed)
        return found[:, : self.vocab]


def build_trie(sequences: Sequence[Sequence[int]], vocab: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """`keys` and `suffix` of the trie of these sequences, and the node at the end of each."""
    children: dict[tuple[int, int], int] = {}
    level, paths = [0] * len(sequences), []
    for depth in range(max(map(len, sequences), default=0)):
        # nodes are numbered by depth, and there by parent and token, so that keys rise
        wanted = {(level[i], s[depth]) for i, s in enumerate(sequences) if len(s) > depth}
        for edge in sorted(wanted):
            children[edge] = len(children) + 1
        paths.append(sorted(wanted))
        level = [children[level[i], s[depth]] if len(s) > depth else level[i] for i, s in enumerate(sequences)]
    suffix = np.zeros(len(children) + 1, dtype=np.int64)
    for edges in paths[1:]:
        for parent, token in edges:
            node = int(suffix[parent])
            while node and (node, token) not in children:
                node = int(suffix[node])
            suffix[children[parent, token]] = children.get((node, token), 0)
    keys = np.array([parent * vocab + token for parent, token in children], dtype=np.int64)
    return keys, suffix, level
