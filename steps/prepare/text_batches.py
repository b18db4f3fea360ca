"""Texts as tokens and their batches, a function of (seed, epoch, the batch's number) alone: pairs or single texts."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np
from pydantic import Field, PositiveFloat, field_validator, model_validator

from steps.prepare.sampler import BatchPlan
from utils.errors import UserError
from utils.options import Config

Ids = list[int]
PLANNED = 1 << 20  # texts that are planned at a time (120 MB)
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


class SetConfig(Config):
    """What sets of texts have in common; a path alone stands for `{path: ...}`."""

    weight: PositiveFloat = 1.0  # how often each text comes in an epoch: 2 is twice, 0.05 is in every 20th epoch

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, values: Any) -> Any:
        return {"path": values} if isinstance(values, str) else values


class TokenRows:
    """Texts, or pairs of them, as tokens in a row: side `s` of text `i` begins at `offsets[sides * i + s]`.

    Both arrays may be mapped files. `dropped` lists what is too long.
    """

    dropped: Sequence[dict] = ()

    def __init__(self, ids: np.ndarray, offsets: np.ndarray, sides: int = 1) -> None:
        self.ids, self.offsets, self.sides = ids, offsets, sides

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.sides

    def tokens(self, row: int) -> list[Ids]:
        """Ids of each side."""
        bounds = self.offsets[row * self.sides : (row + 1) * self.sides + 1].tolist()
        return [self.ids[start:end].tolist() for start, end in pairwise(bounds)]

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each side `(rows, sides)`."""
        places = rows[:, None] * self.sides + np.arange(self.sides)
        return self.offsets[places + 1] - self.offsets[places]

    @property
    def totals(self) -> np.ndarray:
        """Tokens of each side `(sides,)` of all texts."""
        starts, step = range(self.sides), self.sides
        return np.array([self.offsets[s + 1 :: step].sum() - self.offsets[s:-1:step].sum() for s in starts])

    @property
    def checksum(self) -> str:
        """Changes with any token."""
        return hashlib.sha256(self.offsets.tobytes() + self.ids.tobytes()).hexdigest()


class ItemRows(TokenRows):
    """`items` in memory that are not too long, as the tokens of the sides that `encode` gives; they have a `name`."""

    def __init__(self, items: Sequence[Any], encode: Callable[[Any], Sequence[Ids]], longest: int) -> None:
        self.items, self.dropped, found = [], [], []
        for item in items:
            sides = encode(item)
            if max(map(len, sides)) > longest:
                lengths = f"{' and '.join(str(len(side)) for side in sides)} tokens, at most {longest} are taken"
                self.dropped.append({"id": item.name, "reason": "too long", "detail": lengths})
                continue
            self.items.append(item)
            found += [np.asarray(side, dtype=np.int32) for side in sides]
        ids, offsets = np.concatenate([*found, np.zeros(0, dtype=np.int32)]), np.cumsum([0, *map(len, found)])
        super().__init__(ids, offsets, max(len(found) // max(len(self.items), 1), 1))


class TextTable:
    """Sets of texts, one behind the other, each with a weight: how often its texts come in an epoch."""

    def __init__(self, sets: Sequence[TokenRows], weights: Sequence[float]) -> None:
        self.sets, self.weights = list(sets), list(weights)
        self.first = np.cumsum([0, *map(len, self.sets)]).tolist()

    def __len__(self) -> int:
        return self.first[-1]

    @property
    def dropped(self) -> list[dict]:
        """What is too long: `id`, `reason`, `detail`."""
        return list(chain.from_iterable(rows.dropped for rows in self.sets))

    def place(self, index: int) -> tuple[Any, int]:
        """The set that has a text, and its row there."""
        number = bisect_right(self.first, index) - 1
        return self.sets[number], index - self.first[number]

    def tokens(self, index: int) -> list[Ids]:
        """Ids of each side."""
        rows, row = self.place(index)
        return rows.tokens(row)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of the longer side, by which batches are made, of texts whose indices rise: `(indices,)` float64."""
        parts = np.split(indices, np.searchsorted(indices, self.first[1:-1]))
        sizes = [rows.sizes(part - first) for rows, part, first in zip(self.sets, parts, self.first, strict=False)]
        return np.concatenate([size.max(axis=1, initial=0) for size in sizes]).astype(np.float64)

    @property
    def totals(self) -> np.ndarray:
        """Tokens of each side `(sides,)` of all texts."""
        return np.sum([rows.totals for rows in self.sets], axis=0)

    def an_epoch(self, amounts: Sequence[float]) -> float:
        """The sum of the sets' amounts, each as often as its texts come in an epoch."""
        return float(np.dot(self.weights, amounts))

    def drawn(self, epoch: int, seed: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """Which texts come in an epoch, in order; of every `parts` texts one, from number `part` on.

        Each comes as often as the whole of its weight. The fraction of it is a share of the set that comes once more:
        the next share in each epoch, so that all texts have their turn.
        """
        found = [np.zeros(0, dtype=np.int64)]
        for number, weight in enumerate(self.weights):
            rows = np.arange(self.first[number] + part, self.first[number + 1], parts)
            found.append(np.repeat(rows, int(weight)))
            if count := round((weight - int(weight)) * len(rows)):
                turns = np.random.default_rng([seed, number, part]).permutation(rows)
                found.append(turns[np.arange(epoch * count, (epoch + 1) * count) % len(rows)])
        return np.sort(np.concatenate(found))

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the texts, their tokens or their order change."""
        return hashlib.sha256("".join(rows.checksum for rows in self.sets).encode()).hexdigest()[:16]


class BatchList(Sequence):
    """Lists of indices, kept as one array."""

    def __init__(self, batches: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
        self._indices, self._ends = np.concatenate(batches), np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> list[int]:
        number = range(len(self))[number]
        return self._indices[self._ends[number] : self._ends[number + 1]].tolist()


class TextPlan:
    """The batches of an epoch as lists of indices: `BatchPlan` over the texts that the epoch has.

    Of more than `PLANNED` texts, parts are planned one by one, each a sample of all lengths: memory stays small, and
    this many texts are shuffled well enough.
    """

    def __init__(self, table: TextTable, config: TextSection, rank: int = 0, world_size: int = 1, shuffle=True):
        self.table, self.config, self.shuffle = table, config, shuffle
        self.rank, self.world_size = rank, world_size
        self.parts = max(1, math.ceil(table.an_epoch([len(rows) for rows in table.sets]) / PLANNED)) if shuffle else 1
        # a part is read off in so many steps, that a small share of a large table is as cheap
        self.steps = max(1, math.ceil(len(table) / (PLANNED * self.parts)))
        self.batches = lru_cache(maxsize=1)(self._batches)

    def _plan(self, indices: np.ndarray) -> BatchPlan:
        config = self.config
        if not len(indices):
            raise UserError("data.train: an epoch has no text: raise a 'weight'.")
        sizes = (config.max_tokens, config.num_buckets, config.seed, self.rank, self.world_size, config.most)
        return BatchPlan(self.table.lengths(indices), *sizes, shuffle=self.shuffle)

    def _drawn(self, epoch: int, part: int) -> np.ndarray:
        seed, steps = self.config.seed, range(part * self.steps, (part + 1) * self.steps)
        return np.sort(np.concatenate([self.table.drawn(epoch, seed, n, self.parts * self.steps) for n in steps]))

    def _batches(self, epoch: int) -> BatchList:
        """This rank's batches of an epoch; every rank gets as many. (`batches` keeps the last epoch's.)"""
        found, sizes, kind = [], [], np.min_scalar_type(len(self.table))
        for number, part in enumerate(np.random.default_rng([self.config.seed, epoch, 1]).permutation(self.parts)):
            indices = self._drawn(epoch, part) if self.shuffle else np.arange(len(self.table))
            batches = self._plan(indices).batches(epoch * self.parts + number)
            found.append(indices[list(chain.from_iterable(batches))].astype(kind))
            sizes += map(len, batches)
        return BatchList(found, sizes)

    def worst_batch(self) -> list[int]:
        """The largest padded batch that any epoch can bring."""
        worst = []
        whole = TextTable(self.table.sets, np.ceil(self.table.weights))
        for number in range(self.parts * self.steps):
            indices = whole.drawn(0, 0, number, self.parts * self.steps)
            batch = (plan := self._plan(indices)).worst_batch()
            worst.append((plan.padded(batch), indices[batch].tolist()))
        return max(worst, key=lambda found: found[0])[1]
