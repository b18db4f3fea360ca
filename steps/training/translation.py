"""Training on parallel text: the YAML's keys, what the model folder begins with, the model, and its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from pydantic import model_validator

from steps.lang.pair_tokens import PairTokens
from steps.model_folder import read_elsewhere
from steps.nets.translator import TranslationConfig, Translator
from steps.prepare.dataset import Batch
from steps.prepare.pair_batches import TARGET, PairPlan, PairTable, pair_loader
from steps.prepare.pairs import Pair, ParallelSection, ParallelText, read_pairs, without_copies
from steps.training.config import LoopConfig
from steps.training.folder import TrainFolder
from steps.translator_folder import copy_pretrained, make_translator, pair_tokens
from utils.distributed import World
from utils.errors import UserError

SAMPLE = 800  # tokens of the batch that number formats are measured on


class TranslationTrainConfig(TranslationConfig, LoopConfig):
    """A YAML file for steps.train with a `translator` in place of an encoder and heads."""

    data: ParallelSection

    @model_validator(mode="after")
    def _check_sampling(self) -> TranslationTrainConfig:
        if self.data.sampling and self.translator.name != "transformer":
            raise ValueError("data.sampling: a pretrained translator's tokens have one way to cut a text, leave it out")
        return self


class PairTexts:
    """Training and validation batches of pairs of texts: as `steps.training.trainer.Batches` says.

    `dropped` lists the training pairs that are too long. A pair that is there twice is learned once.
    """

    unit, limit = "tokens", "data.max_tokens"

    def __init__(self, config: TranslationTrainConfig, tokens: PairTokens, longest: int | None, world: World) -> None:
        self.config, self.data, self.pair_tokens, self.world = config, config.data, tokens, world
        self.longest = min(self.data.max_length, longest or self.data.max_length)
        self.source = ", ".join(text.name for text in self.data.train)
        sets = [(without_copies(self._read(text)), text.weight) for text in self.data.train]
        pairs = [pair for found, _ in sets for pair in found]
        self.table = self._table(pairs, self.source, [weight for found, weight in sets for _ in found])
        self.dropped = self.table.dropped
        self.valid_table = None
        if self.data.valid:
            names = ", ".join(text.name for text in self.data.valid)
            self.valid_table = self._table([pair for text in self.data.valid for pair in self._read(text)], names)
        self.total = float((self.table.sizes.sum(axis=1) * self.table.weights).sum())
        self.plan = PairPlan(self.table, self.data, world.rank, world.size)
        self.count = lru_cache(maxsize=4)(lambda epoch: len(self.plan.batches(epoch)))

    def _read(self, text: ParallelText) -> list[Pair]:
        return read_pairs(text, self.config.source, self.config.target)

    def _table(self, pairs: Sequence[Pair], names: str, weights: Sequence[float] | None = None) -> PairTable:
        table = PairTable(pairs, self.pair_tokens, self.longest, weights)
        if not len(table):
            raise UserError(f"{names}: all pairs are longer than {self.longest} tokens: raise data.max_length.")
        return table

    def train(self, epoch: int, start: int) -> Iterable[Batch]:
        """This process's batches of an epoch, from `start` on."""
        return pair_loader(
            self.table, self.pair_tokens, self.data, True, epoch, start, self.world.rank, self.world.size
        )

    def valid(self) -> Iterable[Batch]:
        """This process's share of the validation set."""
        share = self.valid_table and self.world.share(len(self.valid_table))
        if share is None:
            return ()
        return pair_loader(self.valid_table, self.pair_tokens, self.data, False, rank=share[0], world_size=share[1])

    def frames(self, batch: Batch) -> int:
        """Tokens that a batch predicts, by which losses are divided."""
        return int(batch.targets[TARGET].lens.sum()) + self.pair_tokens.ends * len(batch)

    def tokens(self, batch: Batch) -> dict[str, int]:
        """The same, by the name that losses begin with."""
        return {TARGET: self.frames(batch)}

    def worst(self) -> Batch:
        """The largest batch that training can bring."""
        return self._loader().batches.make(self.plan.worst_batch(), 0)

    def sample(self) -> Batch:
        """A small batch of pairs of middling length."""
        order = np.argsort(self.table.lengths, kind="stable")
        middle = order[len(order) // 2 :]
        count = int((self.table.lengths[middle].cumsum() <= SAMPLE).sum())
        return self._loader().batches.make(middle[: max(count, 1)].tolist(), 0)

    def _loader(self):
        return pair_loader(self.table, self.pair_tokens, self.data)

    def size(self, batch: Batch) -> str:
        """How large a batch is, in words."""
        longest = max(batch.features.shape[1], batch.targets[TARGET].tokens.shape[1])
        return f"{len(batch)} pairs of at most {longest} tokens"

    def summary(self) -> list[str]:
        """Sentences for the log on what there is."""
        source, target = (int(count) for count in self.table.sizes.sum(axis=0))
        said = [f"{len(self.table)} pairs, {source} tokens and {target} of their translations"]
        if self.valid_table is not None and self.valid_table.dropped:
            said.append(f"validation leaves out {len(self.valid_table.dropped)} pairs that are too long")
        return said

    def amounts(self, seen: float) -> dict[str, float]:
        """What train.json says of the data; `seen` is in tokens of both sides."""
        return {"data_pairs": len(self.table), "data_tokens": round(self.total), "tokens_seen": round(seen)}

    def fingerprint(self) -> str:
        """Changes when the texts, their tokens or their order change."""
        digest = hashlib.sha256("\n".join(pair.source for pair in self.table.pairs).encode())
        digest.update(self.table.ids.tobytes())
        return digest.hexdigest()[:16]


class TranslationTask:
    """A translator of text, on pairs."""

    def __init__(self, folder: TrainFolder) -> None:
        self.folder = folder

    def prepare(self, config: TranslationTrainConfig, restart: bool) -> dict:
        """Lock the folder and make it a model folder."""
        for text in (*config.data.train, *config.data.valid):
            read_pairs(text, config.source, config.target)  # its mistakes are found before anything is written
        self.folder.begin(restart)
        self.folder.check_config(config)
        copy_pretrained(config, self.folder.path)
        self.folder.copy_langs(config.langs())
        return {}

    def model(self, config: TranslationTrainConfig, state: dict | None = None) -> Translator:
        """The model, what others trained as they left it, also where the `state` to go on from leaves it out."""
        model = make_translator(config, self.folder.path)
        tokens = pair_tokens(config, self.folder.path)
        read_elsewhere(model, state and state["model"], tokens.tokenizers)
        return model

    def batches(self, config: TranslationTrainConfig, model: Translator, world: World) -> PairTexts:
        """The training and validation data."""
        return PairTexts(config, pair_tokens(config, self.folder.path), model.longest, world)
