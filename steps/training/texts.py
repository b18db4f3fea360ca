"""What training on pairs and on single texts have in common: `steps.training.trainer.Batches` over a `TextTable`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from steps.prepare.dataset import Batch, Loader
from steps.prepare.text_batches import TARGET, TextPlan, TextSection, TextTable
from utils.distributed import World
from utils.errors import UserError

SAMPLE = 800  # tokens of the batch that number formats are measured on


class TextBatches:
    """Training and validation batches of texts; `dropped` lists the training texts that are too long.

    `longest` is the most tokens of a text that the model takes (None: any number).
    """

    unit, limit = "tokens", "data.max_tokens"
    things = "texts"  # what the data are, in words

    def __init__(self, data: TextSection, longest: int | None, world: World) -> None:
        self.data, self.world = data, world
        self.longest = min(data.max_length, longest or data.max_length)
        self.source = ", ".join(text.name for text in data.train)
        sets = [(self.learned(self.read(text)), text.weight) for text in data.train]
        items = [item for found, _ in sets for item in found]
        self.table = self._table(items, self.source, [weight for found, weight in sets for _ in found])
        self.dropped = self.table.dropped
        self.valid_table = None
        if data.valid:
            names = ", ".join(text.name for text in data.valid)
            self.valid_table = self._table([item for text in data.valid for item in self.read(text)], names)
        self.total = float((self.table.sizes.sum(axis=1) * self.table.weights).sum())
        self.plan = TextPlan(self.table, data, world.rank, world.size)
        self.count = lru_cache(maxsize=4)(lambda epoch: len(self.plan.batches(epoch)))

    def read(self, text: Any) -> Sequence[Any]:
        """The items of one of the config's sets."""
        raise NotImplementedError

    def learned(self, items: Sequence[Any]) -> Sequence[Any]:
        """Those of a training set's items that are learned."""
        return items

    def table_of(self, items: Sequence[Any], weights: Sequence[float] | None) -> TextTable:
        """Items as tokens."""
        raise NotImplementedError

    def loader(self, plan: TextPlan, epoch: int = 0, start: int = 0) -> Loader:
        """The batches of an epoch of `plan`, from `start` on."""
        raise NotImplementedError

    def frames(self, batch: Batch) -> int:
        """Tokens that a batch predicts, by which losses are divided."""
        raise NotImplementedError

    def _table(self, items: Sequence[Any], names: str, weights: Sequence[float] | None = None) -> TextTable:
        table = self.table_of(items, weights)
        if not len(table):
            raise UserError(f"{names}: all {self.things} are longer than {self.longest} tokens: raise data.max_length.")
        return table

    def train(self, epoch: int, start: int) -> Iterable[Batch]:
        """This process's batches of an epoch, from `start` on."""
        return self.loader(self.plan, epoch, start)

    def valid(self) -> Iterable[Batch]:
        """This process's share of the validation set."""
        share = self.valid_table and self.world.share(len(self.valid_table))
        if share is None:
            return ()
        return self.loader(TextPlan(self.valid_table, self.data, *share, shuffle=False))

    def tokens(self, batch: Batch) -> dict[str, int]:
        """Tokens that a batch predicts, by the name that losses begin with."""
        return {TARGET: self.frames(batch)}

    def worst(self) -> Batch:
        """The largest batch that training can bring."""
        return self.loader(self.plan).batches.make(self.plan.worst_batch(), 0)

    def sample(self) -> Batch:
        """A small batch of texts of middling length."""
        order = np.argsort(self.table.lengths, kind="stable")
        middle = order[len(order) // 2 :]
        count = int((self.table.lengths[middle].cumsum() <= SAMPLE).sum())
        return self.loader(self.plan).batches.make(middle[: max(count, 1)].tolist(), 0)

    def size(self, batch: Batch) -> str:
        """How large a batch is, in words."""
        longest = max(x.shape[1] for x in (batch.features, *(target.tokens for target in batch.targets.values())))
        return f"{len(batch)} {self.things} of at most {longest} tokens"

    def contents(self) -> str:
        """What there is to train on, in words."""
        return f"{len(self.table)} {self.things}, {int(self.table.sizes.sum())} tokens"

    def summary(self) -> list[str]:
        """Sentences for the log on what there is."""
        said = [self.contents()]
        if self.valid_table is not None and self.valid_table.dropped:
            said.append(f"validation leaves out {len(self.valid_table.dropped)} {self.things} that are too long")
        return said

    def amounts(self, seen: float) -> dict[str, float]:
        """What train.json says of the data; `seen` is in tokens, of pairs in those of both sides."""
        return {f"data_{self.things}": len(self.table), "data_tokens": round(self.total), "tokens_seen": round(seen)}

    def fingerprint(self) -> str:
        """Changes when the texts, their tokens or their order change."""
        digest = hashlib.sha256(self.table.sizes.tobytes())
        digest.update(self.table.ids.tobytes())
        return digest.hexdigest()[:16]
