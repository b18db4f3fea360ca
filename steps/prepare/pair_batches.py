"""Pairs of texts to batches of tokens, a function of (seed, epoch, the batch's number) alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from steps.lang.pair_tokens import Ids, PairTokens
from steps.prepare.dataset import Batch, EpochBatches, Loader, pad_targets
from steps.prepare.pairs import Pair, ParallelSection
from steps.prepare.text_batches import TARGET, ItemRows, TextPlan, TextTable


def pair_table(
    pairs: Sequence[Pair], tokens: PairTokens, longest: int, weights: Sequence[float] | None = None
) -> TextTable:
    """Pairs as tokens of source and target; pairs of equal weights (1) that follow each other are a set."""

    def encode(pair: Pair) -> tuple[Ids, Ids]:
        return tokens.source(pair.source, pair.language), tokens.target(pair.target)

    weighted = zip(pairs, weights or [1.0] * len(pairs), strict=True)
    sets = [(weight, [pair for pair, _ in found]) for weight, found in groupby(weighted, key=itemgetter(1))]
    return TextTable([ItemRows(found, encode, longest) for _, found in sets], [weight for weight, _ in sets])


class PairBatches(EpochBatches):
    """Batch `k` of an epoch: sources as features (batch, tokens) int64, padded with zeros, translations as targets.

    With noise, sources are changed anew in each epoch. `durations` are the tokens of both sides.
    """

    def __init__(self, plan: TextPlan, tokens: PairTokens, epoch: int) -> None:
        super().__init__(plan.batches(epoch), epoch, plan.rank, plan.world_size)
        config: ParallelSection = plan.config
        self.table, self.tokens, self.seed = plan.table, tokens, config.seed
        self.noise, self.sampling = (config.noise, config.sampling) if plan.shuffle else (None, None)
        texts = (pair.source for rows in self.table.sets for pair in rows.items) if self.noise else ()
        self.alphabet = sorted(set("".join(texts)) - {" "})

    def make(self, indices: list[int], number: int) -> Batch:
        """The batch of the pairs at `indices`, as batch `number` of the epoch."""
        pairs = [rows.items[row] for rows, row in map(self.table.place, indices)]
        sides = [self.table.tokens(index) for index in indices]
        sources, targets = map(list, zip(*sides, strict=True))
        if self.noise or self.sampling:
            rng = np.random.default_rng([self.seed, self.epoch, number])
            changed = [self._changed(pair, side, rng) for pair, side in zip(pairs, sides, strict=True)]
            sources, targets = map(list, zip(*changed, strict=True))
        read = pad_targets(sources)
        written = pad_targets(targets, [self.tokens.prompt(pair.language) for pair in pairs])
        names = [pair.name for pair in pairs]
        return Batch(names, read.tokens, read.lens, (read.lens + written.lens).float(), {TARGET: written})

    def _changed(self, pair: Pair, sides: tuple[Ids, Ids], rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Ids of both sides with noise in the source, and cut into other pieces."""
        text = self.noise(pair.source, rng, self.alphabet) if self.noise else pair.source
        if self.sampling:
            return self.tokens.sample((text, pair.target), pair.language, self.sampling, int(rng.integers(1 << 31)))
        return (sides[0] if text == pair.source else self.tokens.source(text, pair.language)), sides[1]


def pair_loader(plan: TextPlan, tokens: PairTokens, epoch: int = 0, start_batch: int = 0) -> Loader:
    """Batches `start_batch`, `start_batch` + 1, ... of an epoch; without shuffling whole and unchanged."""
    return Loader(PairBatches(plan, tokens, epoch), plan, start_batch, plan.config.workers)
