"""An n-gram model over a head's tokens that scores all of them for many hypotheses at once, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from steps.lang.tables import SOS_EOS, UNK
from steps.lm.backoff import BOS, EOS, BackoffModel
from steps.search.fusion import State
from steps.search.trie import TokenTrie
from utils.errors import UserError

SHOWN = 5  # tokens that a message lists


class NgramScorer:
    """A `TokenScorer`: log p(token | tokens before), of a model whose words are the symbols of `tokens` (by id).

    Tokens that the model lacks are its `<unk>`. Errors: `UserError` naming the model's `source` where it lacks tokens
    and has no `<unk>`, and where most of its words are no tokens.
    """

    def __init__(
        self, model: BackoffModel, tokens: Sequence[str], source: str, device: torch.device | str = "cpu"
    ) -> None:
        self.vocab, self.end_id = len(tokens), tokens.index(SOS_EOS)
        keys, suffix, log_prob, backoff = _arrays(model, tokens, source)
        self.trie = TokenTrie(keys, suffix, self.vocab + 1, device)
        self.log_prob = torch.tensor(log_prob, dtype=torch.float32, device=device)
        self.backoff = torch.tensor(backoff, dtype=torch.float32, device=device)
        unknown = model.orders[0].log_prob[model.ids[UNK]] if UNK in model.ids else -np.inf
        self.base = torch.full((self.vocab + 1,), float(unknown), device=device)

    def begin(self, rows: int) -> tuple[Tensor, State]:
        start = torch.full((rows,), self.vocab, dtype=torch.int64, device=self.base.device)
        return self.extend(start, (torch.zeros_like(start),))

    def extend(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        nodes = self.trie.step(state[0], tokens)
        return self.trie.rows(nodes, self.log_prob, self.base, self.backoff)[:, : self.vocab], (nodes,)


def _arrays(
    model: BackoffModel, tokens: Sequence[str], source: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A trie's `keys` and `suffix`, ln p of each entry, the back-off weight of each node; `<s>` is the last token."""
    vocab, ids = len(tokens) + 1, {token: index for index, token in enumerate(tokens)}
    ids |= {EOS: ids[SOS_EOS], BOS: len(tokens)}
    token = np.array([ids.get(word, -1) for word in model.words])
    _check(model, tokens, source)
    nodes = [np.zeros(1, dtype=np.int64)]  # by order: the trie's node of each n-gram, -1: none
    keys, log_prob, backoff, count = [], [], [np.zeros(1)], 1
    for grams in model.orders:
        parent, last = nodes[-1][grams.prefix], token[grams.word]
        kept = np.flatnonzero((parent >= 0) & (last >= 0))
        order = kept[np.argsort(parent[kept] * vocab + last[kept])]
        place = np.full(len(grams), -1)
        place[order] = count + np.arange(len(order))
        nodes.append(place)
        count += len(order)
        keys.append(parent[order] * vocab + last[order])
        log_prob.append(grams.log_prob[order])
        backoff.append(grams.backoff[order])
    suffix = np.zeros(count, dtype=np.int64)
    for order in range(2, model.order + 1):
        own, ends = model.grams(order), np.zeros(len(nodes[order]), dtype=np.int64)
        for length in range(1, order):
            index = model.index(own[:, -length:])
            found = np.where(index >= 0, nodes[length][index], -1)
            ends = np.where(found >= 0, found, ends)
        suffix[nodes[order][nodes[order] >= 0]] = ends[nodes[order] >= 0]
    return np.concatenate(keys), suffix, np.concatenate(log_prob), np.concatenate(backoff)


def _check(model: BackoffModel, tokens: Sequence[str], source: str) -> None:
    known, own = set(tokens), [word for word in model.words if word not in (BOS, EOS, UNK)]
    if 2 * sum(word in known for word in own) < len(own):
        raise UserError(f"{source} has other words than the head's tokens: train it with steps.lm.ngram --lang.")
    missing = [token for token in tokens[3:] if token not in model.ids]
    if missing and UNK not in model.ids:
        listed = " ".join(missing[:SHOWN]) + (" ..." if len(missing) > SHOWN else "")
        raise UserError(f"{source} has no <unk> and lacks {len(missing)} of the head's tokens: {listed}.")
