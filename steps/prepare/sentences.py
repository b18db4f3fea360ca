"""Single texts, for language models: from manifests or plain text files, as batches of tokens.

data/train/cuts.jsonl.gz                                 the transcripts
{path: data/train/cuts.jsonl.gz, target: translation.fr}
train.en.gz                                              a sentence a line
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from steps.lang.corpus import manifest_texts, plain_texts
from steps.lang.tokenizer import Tokenizer
from steps.prepare.dataset import Batch, EpochBatches, Loader, pad_targets
from steps.prepare.text_batches import TextPlan, TextSection
from utils.options import Config


class TextSet(Config):
    """One set of texts; a path alone stands for `{path: ...}`."""

    path: str  # cuts or supervisions (.jsonl, .jsonl.gz), or plain text, a sentence a line
    target: str = "text"  # of cuts: text, or translation.<language>
    language: str | None = None  # of plain text; null: the ending of the file's name (train.en.gz)
    weight: PositiveFloat = 1.0  # how often each text comes in an epoch: 2 is twice, 0.5 is half of them

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, values: Any) -> Any:
        return {"path": values} if isinstance(values, str) else values

    @property
    def name(self) -> str:
        """The file, for messages."""
        return self.path


@dataclass(frozen=True)
class Sentence:
    """A text; `language` is None where it is not known."""

    name: str
    text: str
    language: str | None = None


def read_sentences(text: TextSet) -> list[Sentence]:
    """The texts of one set, normalised; `UserError` for a file that is missing, of another kind, or without text."""
    if text.path.removesuffix(".gz").endswith(".jsonl"):
        found = manifest_texts([text.path], [text.target], copies=False)
    else:
        found = plain_texts(text.path)
    stem = Path(text.path).name
    return [Sentence(f"{stem}:{n}", line, text.language or language) for n, (line, language) in enumerate(found, 1)]


class SentenceSection(TextSection):
    """The trainer's `data:` section for single texts."""

    train: list[TextSet] = Field(min_length=1)
    valid: list[TextSet] = Field(default_factory=list)


class SentenceBatches(EpochBatches):
    """Batch `k` of an epoch: texts as features (batch, tokens) int64, padded with zeros; `durations`: their tokens."""

    def __init__(self, plan: TextPlan, tokenizer: Tokenizer, epoch: int) -> None:
        super().__init__(plan.batches(epoch), epoch, plan.rank, plan.world_size)
        self.table, self.tokenizer, self.seed = plan.table, tokenizer, plan.config.seed
        self.sampling = plan.config.sampling if plan.shuffle else None

    def make(self, indices: list[int], number: int) -> Batch:
        """The batch of the texts at `indices`, as batch `number` of the epoch."""
        items = [self.table.items[index] for index in indices]
        if self.sampling:
            seeds = np.random.default_rng([self.seed, self.epoch, number]).integers(1 << 31, size=len(items))
            pieces = zip(items, seeds.tolist(), strict=True)
            rows = [self.tokenizer.sample(item.text, item.language, self.sampling, seed) for item, seed in pieces]
        else:
            rows = [self.table.tokens(index)[0] for index in indices]
        padded = pad_targets(rows)
        return Batch([item.name for item in items], padded.tokens, padded.lens, padded.lens.float())


def sentence_loader(plan: TextPlan, tokenizer: Tokenizer, epoch: int = 0, start_batch: int = 0) -> Loader:
    """Batches `start_batch`, `start_batch` + 1, ... of an epoch; without shuffling whole and unchanged."""
    return Loader(SentenceBatches(plan, tokenizer, epoch), plan, start_batch, plan.config.workers)
