"""Texts as tokens and their batches, a function of (seed, epoch, the batch's number) alone: pairs or single texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from steps.prepare.sampler import BatchPlan
from utils.errors import UserError
from utils.options import Config

Ids = list[int]
TARGET = "text"  # what the losses of models of text begin with, and the name of targets in a batch


class TextSection(Config):
    """What the trainer's `data:` sections for text have in common; each has sets of texts, `train` and `valid`."""

    max_tokens: int = Field(3000, ge=1)  # a batch, padding included; of pairs on either side
    max_length: int = Field(250, ge=1)  # tokens of a text; longer ones are left out
    num_buckets: int = Field(30, ge=1)
    # other ways to cut texts into pieces, drawn anew in each epoch (Kudo 2018): 0.1 to 0.5, the lower the wilder
    sampling: float | None = Field(None, gt=0, le=1)
    workers: int = Field(0, ge=0)  # processes that prepare batches; 0: the trainer's own
    seed: int = 0

    @field_validator("train", "valid", mode="before", check_fields=False)
    @classmethod
    def _several(cls, values: Any) -> Any:
        return values if isinstance(values, list) else [values]

    @property
    def most(self) -> int | None:
        """The most texts of a batch; None: as many as `max_tokens` lets in."""
        return None


class TextTable:
    """Items as tokens: `encode` gives an item's sides, one of a text and two of a pair. Items have a `name`.

    `weights` says how often each comes in an epoch; `dropped` lists those with a side that is too long; `lengths`
    (items,): tokens of the longer side, by which batches are made; `sizes` (items, sides).
    """

    def __init__(
        self,
        items: Sequence[Any],
        encode: Callable[[Any], Sequence[Ids]],
        longest: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.items: list[Any] = []
        self.dropped: list[dict] = []
        found, kept = [], []
        for index, item in enumerate(items):
            sides = encode(item)
            if max(map(len, sides)) > longest:
                lengths = f"{' and '.join(str(len(side)) for side in sides)} tokens, at most {longest} are taken"
                self.dropped.append({"id": item.name, "reason": "too long", "detail": lengths})
                continue
            self.items.append(item)
            kept.append(index)
            found += [np.asarray(side, dtype=np.int32) for side in sides]
        self._sides = len(found) // max(len(kept), 1)
        self._offsets = np.cumsum([0, *map(len, found)])
        self.ids = np.concatenate([*found, np.zeros(0, dtype=np.int32)])
        self.sizes = np.diff(self._offsets).reshape(len(kept), self._sides)
        self.lengths = self.sizes.max(axis=1, initial=0).astype(np.float64)
        self.weights = np.ones(len(kept)) if weights is None else np.asarray(weights, dtype=np.float64)[kept]

    def __len__(self) -> int:
        return len(self.items)

    def tokens(self, index: int) -> list[Ids]:
        """Ids of each side."""
        bounds = self._offsets[index * self._sides : (index + 1) * self._sides + 1]
        return [self.ids[start:end].tolist() for start, end in pairwise(bounds)]

    def epoch(self, epoch: int, seed: int) -> np.ndarray:
        """Which items come in an epoch: each as often as the whole of its weight, and a fraction of them once more."""
        whole = np.floor(self.weights).astype(np.int64)
        rng = np.random.default_rng([seed, epoch, 0])
        more = []
        for fraction in np.unique(self.weights - whole):
            among = np.flatnonzero(self.weights - whole == fraction)
            more.append(rng.permutation(among)[: round(fraction * len(among))])
        return np.sort(np.concatenate([np.repeat(np.arange(len(self)), whole), *more]))


class TextPlan:
    """The batches of an epoch as lists of indices; `BatchPlan` over the items that the epoch has."""

    def __init__(self, table: TextTable, config: TextSection, rank: int = 0, world_size: int = 1, shuffle=True):
        self.table, self.config, self.shuffle = table, config, shuffle
        self.rank, self.world_size = rank, world_size

    def _plan(self, indices: np.ndarray) -> BatchPlan:
        config = self.config
        if not len(indices):
            raise UserError("data.train: an epoch has no text: raise a 'weight'.")
        sizes = (config.max_tokens, config.num_buckets, config.seed, self.rank, self.world_size, config.most)
        return BatchPlan(self.table.lengths[indices], *sizes, shuffle=self.shuffle)

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch; every rank gets as many."""
        indices = self.table.epoch(epoch, self.config.seed) if self.shuffle else np.arange(len(self.table))
        return [indices[batch].tolist() for batch in self._plan(indices).batches(epoch)]

    def worst_batch(self) -> list[int]:
        """The largest padded batch that any epoch can bring."""
        indices = np.repeat(np.arange(len(self.table)), np.ceil(self.table.weights).astype(np.int64))
        return indices[self._plan(indices).worst_batch()].tolist()
