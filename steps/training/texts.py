"""What training on pairs and on single texts have in common: `steps.training.trainer.Batches` over a `TextTable`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from steps.prepare.dataset import Batch, Loader
from steps.prepare.text_batches import PLANNED, TARGET, TextPlan, TextTable
from steps.training.config import TextLoopConfig
from steps.training.step_size import StepSize
from utils.distributed import World
from utils.errors import UserError

SAMPLE = 800  # tokens of the batch that number formats are measured on


class TextBatches:
    """Training and validation batches of texts; `dropped` lists the training texts that are too long.

    `longest` is the most tokens of a text that the model takes (None: any number).
    """

    unit, limit = TextLoopConfig.unit, TextLoopConfig.limit
    things = "texts"  # what the data are, in words

    def __init__(self, config: TextLoopConfig, longest: int | None, world: World) -> None:
        data = self.data = config.data
        self.world = world
        self.longest = min(data.max_length, longest or data.max_length)
        self.source = _names(data.train)
        self.table = self._table(data.train, learned=True)
        self.dropped = self.table.dropped
        self.valid_table = self._table(data.valid, learned=False) if data.valid else None
        self.total = self.table.an_epoch([rows.totals.sum() for rows in self.table.sets])
        self.resize(StepSize.of(config, world.size))

    def resize(self, step: StepSize) -> None:
        """Make steps and batches of this size from here on."""
        self.step, self.data = step, self.data.model_copy(update={"max_tokens": step.most})
        self.plan = TextPlan(self.table, self.data, self.world.rank, self.world.size)
        self.count = lru_cache(maxsize=4)(lambda epoch: len(self.plan.batches(epoch)))

    def table_of(self, sets: Sequence[Any], learned: bool) -> TextTable:
        """The config's sets as tokens, to be `learned` or to validate on."""
        raise NotImplementedError

    def loader(self, plan: TextPlan, epoch: int = 0, start: int = 0) -> Loader:
        """The batches of an epoch of `plan`, from `start` on."""
        raise NotImplementedError

    def frames(self, batch: Batch) -> int:
        """Tokens that a batch predicts, by which losses are divided."""
        raise NotImplementedError

    def _table(self, sets: Sequence[Any], learned: bool) -> TextTable:
        table = self.table_of(sets, learned)
        if not len(table):
            too_long = f"all {self.things} are longer than {self.longest} tokens: raise data.max_length."
            raise UserError(f"{_names(sets)}: {too_long}")
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
        lengths = self.table.lengths(np.arange(min(len(self.table), PLANNED)))
        order = np.argsort(lengths, kind="stable")
        middle = order[len(order) // 2 :]
        count = int((lengths[middle].cumsum() <= SAMPLE).sum())
        return self.loader(self.plan).batches.make(middle[: max(count, 1)].tolist(), 0)

    def size(self, batch: Batch) -> str:
        """How large a batch is, in words."""
        longest = max(x.shape[1] for x in (batch.features, *(target.tokens for target in batch.targets.values())))
        return f"{len(batch)} {self.things} of at most {longest} tokens"

    def contents(self) -> str:
        """What there is to train on, in words."""
        return f"{len(self.table)} {self.things}, {self.table.totals.sum()} tokens"

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
        return self.table.fingerprint


def _names(sets: Sequence[Any]) -> str:
    return ", ".join(text.name for text in sets)
