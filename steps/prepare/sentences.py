"""Single texts, for language models: from manifests or plain text files, as batches of tokens.

data/train/cuts.jsonl.gz                                 the transcripts
{path: data/train/cuts.jsonl.gz, target: translation.fr}
train.en.gz                                              a sentence a line
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import Field

from steps.lang.corpus import language_of, manifest_texts, plain_texts
from steps.lang.tokenizer import Tokenizer
from steps.prepare.dataset import Batch, EpochBatches, Loader, pad_targets
from steps.prepare.text_batches import SetConfig, TextPlan, TextSection
from steps.prepare.token_store import StoredTexts, Text, store_texts
from utils.files import require
from utils.fingerprint import fingerprint

TOKEN_FILES = ("lang.json", "tokens.txt", "bpe.model", "tokenizer.json")  # of a lang folder, what its tokens hang on


class TextSet(SetConfig):
    """One set of texts."""

    path: str  # cuts or supervisions (.jsonl, .jsonl.gz), or plain text, a sentence a line
    target: str = "text"  # of cuts: text, or translation.<language>
    language: str | None = None  # of plain text; null: the ending of the file's name (train.en.gz)

    @property
    def name(self) -> str:
        """The file, for messages."""
        return self.path


def read_texts(text: TextSet) -> Iterable[Text]:
    """The texts of one set, normalised; `UserError` for a file that is missing, of another kind, or without text."""
    if text.path.removesuffix(".gz").endswith(".jsonl"):
        return manifest_texts([text.path], [text.target], copies=False)
    return ((line, text.language or language) for line, language in plain_texts(text.path))


class TokenCache:
    """Sets of texts as tokens of a lang folder, below `folder`: by what the texts, the tokens and the options are."""

    def __init__(self, folder: Path, lang: Path, longest: int) -> None:
        self.folder, self.lang, self.longest = folder, lang, longest

    def make(self, text: TextSet) -> None:
        """Store a set of texts, unless that was done before."""
        store_texts(self._place(text), lambda: read_texts(text), self.lang, self.longest)

    def open(self, text: TextSet) -> StoredTexts:
        """A set of texts that `make` has stored."""
        return StoredTexts(self._place(text), Path(text.path).name)

    def _place(self, text: TextSet) -> Path:
        tokens = [str(self.lang / name) for name in TOKEN_FILES if (self.lang / name).exists()]
        prints = fingerprint([str(require(text.path)), *tokens])
        made_of = {(Path(path).name, size, digest) for path, (size, _, digest) in prints.items()}
        options = [text.target, text.language or language_of(text.path), self.longest]
        key = hashlib.sha256(json.dumps([sorted(made_of), options]).encode()).hexdigest()[:16]
        return self.folder / f"{Path(text.path).name}-{key}"


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
        places = [self.table.place(index) for index in indices]
        rows = [texts.tokens(row)[0] for texts, row in places]
        if self.sampling:
            seeds = np.random.default_rng([self.seed, self.epoch, number]).integers(1 << 31, size=len(rows))
            pieces = zip(rows, seeds.tolist(), strict=True)
            rows = [self.tokenizer.resample(row, self.sampling, seed) for row, seed in pieces]
        padded = pad_targets(rows)
        names = [texts.name(row) for texts, row in places]
        return Batch(names, padded.tokens, padded.lens, padded.lens.float())


def sentence_loader(plan: TextPlan, tokenizer: Tokenizer, epoch: int = 0, start_batch: int = 0) -> Loader:
    """Batches `start_batch`, `start_batch` + 1, ... of an epoch; without shuffling whole and unchanged."""
    return Loader(SentenceBatches(plan, tokenizer, epoch), plan, start_batch, plan.config.workers)
