"""Pairs of texts to batches of tokens, a function of (seed, epoch, the batch's number) alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steps.lang.pair_tokens import Ids, PairTokens
from steps.prepare.dataset import Batch, EpochBatches, Loader, pad_targets
from steps.prepare.pairs import Pair, ParallelSection
from steps.prepare.sampler import BatchPlan
from utils.errors import UserError

TARGET = "text"  # the name of a translator's targets in a batch


class PairTable:
    """Pairs as tokens. `weights` says how often each comes in an epoch; `dropped` lists those that are too long.

    `lengths` (pairs,): tokens of the longer side, by which batches are made.
    """

    def __init__(self, pairs: Sequence[Pair], tokens: PairTokens, longest: int, weights: Sequence[float] | None = None):
        self.pairs: list[Pair] = []
        self.dropped: list[dict] = []
        sides, kept = [], []
        for index, pair in enumerate(pairs):
            source, target = tokens.source(pair.source, pair.language), tokens.target(pair.target)
            if max(len(source), len(target)) > longest:
                found = f"{len(source)} tokens and {len(target)} of its translation, at most {longest} are taken"
                self.dropped.append({"id": pair.name, "reason": "too long", "detail": found})
                continue
            self.pairs.append(pair)
            kept.append(index)
            sides += [np.asarray(source, dtype=np.int32), np.asarray(target, dtype=np.int32)]
        self._offsets = np.cumsum([0, *map(len, sides)])
        self.ids = np.concatenate([*sides, np.zeros(0, dtype=np.int32)])
        self.sizes = np.diff(self._offsets).reshape(-1, 2)  # (pairs, 2): tokens of source and target
        self.lengths = self.sizes.max(axis=1).astype(np.float64)
        self.weights = np.ones(len(kept)) if weights is None else np.asarray(weights, dtype=np.float64)[kept]

    def __len__(self) -> int:
        return len(self.pairs)

    def tokens(self, index: int) -> tuple[list[int], list[int]]:
        """Ids of source and target."""
        start, middle, end = self._offsets[2 * index : 2 * index + 3]
        return self.ids[start:middle].tolist(), self.ids[middle:end].tolist()

    def epoch(self, epoch: int, seed: int) -> np.ndarray:
        """Which pairs come in an epoch: each as often as the whole of its weight, and a fraction of them once more."""
        whole = np.floor(self.weights).astype(np.int64)
        rng = np.random.default_rng([seed, epoch, 0])
        more = []
        for fraction in np.unique(self.weights - whole):
            among = np.flatnonzero(self.weights - whole == fraction)
            more.append(rng.permutation(among)[: round(fraction * len(among))])
        return np.sort(np.concatenate([np.repeat(np.arange(len(self)), whole), *more]))


class PairPlan:
    """The batches of an epoch as lists of indices; `BatchPlan` over the pairs that the epoch has."""

    def __init__(self, table: PairTable, config: ParallelSection, rank: int = 0, world_size: int = 1, shuffle=True):
        self.table, self.config, self.shuffle = table, config, shuffle
        self.rank, self.world_size = rank, world_size

    def _plan(self, indices: np.ndarray) -> BatchPlan:
        config = self.config
        if not len(indices):
            raise UserError("data.train: an epoch has no pair: raise a 'weight'.")
        sizes = (config.max_tokens, config.num_buckets, config.seed, self.rank, self.world_size, config.max_pairs)
        return BatchPlan(self.table.lengths[indices], *sizes, shuffle=self.shuffle)

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch; every rank gets as many."""
        indices = self.table.epoch(epoch, self.config.seed) if self.shuffle else np.arange(len(self.table))
        return [indices[batch].tolist() for batch in self._plan(indices).batches(epoch)]

    def worst_batch(self) -> list[int]:
        """The largest padded batch that any epoch can bring."""
        indices = np.repeat(np.arange(len(self.table)), np.ceil(self.table.weights).astype(np.int64))
        return indices[self._plan(indices).worst_batch()].tolist()


class PairBatches(EpochBatches):
    """Batch `k` of an epoch: sources as features (batch, tokens) int64, padded with zeros, translations as targets.

    With noise, sources are changed anew in each epoch. `durations` are the tokens of both sides.
    """

    def __init__(self, table: PairTable, tokens: PairTokens, config: ParallelSection, plan: PairPlan, epoch: int):
        super().__init__(plan.batches(epoch), epoch, plan.rank, plan.world_size)
        self.table, self.tokens = table, tokens
        self.seed = config.seed
        self.noise, self.sampling = (config.noise, config.sampling) if plan.shuffle else (None, None)
        self.alphabet = sorted(set("".join(pair.source for pair in table.pairs)) - {" "}) if self.noise else []

    def make(self, indices: list[int], number: int) -> Batch:
        """The batch of the pairs at `indices`, as batch `number` of the epoch."""
        pairs = [self.table.pairs[index] for index in indices]
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


def pair_loader(
    table: PairTable,
    tokens: PairTokens,
    config: ParallelSection,
    train: bool = True,
    epoch: int = 0,
    start_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Batches `start_batch`, `start_batch` + 1, ... of an epoch; in evaluation all pairs, longest first, unchanged."""
    plan = PairPlan(table, config, rank, world_size, shuffle=train)
    return Loader(PairBatches(table, tokens, config, plan, epoch), plan, start_batch, config.workers)
