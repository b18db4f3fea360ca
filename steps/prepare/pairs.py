"""Parallel text: pairs of a source and its translation, from manifests, plain text files, JSON lines, or recognition.

data/train/cuts.jsonl.gz                                     the transcript, or a translation, and a translation
{source: train.en.gz, target: train.fr.gz}                   a sentence a line (as Multi30k has it)
{path: pairs.jsonl.gz}                                       {"source": ..., "target": ...} a line
{path: data/train/cuts.jsonl.gz, recognised: .../hyp.jsonl}  what a recogniser heard, and the translation
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from steps.lang.corpus import language_of, supervisions
from steps.lang.pair_tokens import SideConfig
from steps.lang.targets import target_language, target_text, targets_of
from steps.prepare.text_batches import SetConfig, TextSection
from utils.errors import UserError
from utils.files import read_jsonl, read_lines, require
from utils.options import Config

CHECK = "save it as UTF-8, or check the path"


class ParallelText(SetConfig):
    """One set of pairs."""

    path: str | None = None  # cuts or supervisions, or JSON lines with 'source' and 'target'
    source: str | None = None  # plain text, a sentence a line; with `target`
    target: str | None = None
    recognised: str | None = None  # hyp.jsonl or nbest.jsonl of the cuts in `path`: texts instead of the transcripts
    language: str | None = None  # of plain text and JSON lines; null: the ending of the file's name (train.en.gz)

    @model_validator(mode="after")
    def _one_kind(self) -> ParallelText:
        if (self.path is None) == (self.source is None) or (self.source is None) != (self.target is None):
            raise ValueError("give a 'path', or a 'source' and a 'target'")
        if self.recognised and self.path is None:
            raise ValueError("'recognised' takes the translations from the cuts in 'path': give it too")
        return self

    @property
    def name(self) -> str:
        """The file or files, for messages."""
        return self.path or f"{self.source} {self.target}"


@dataclass(frozen=True)
class Pair:
    """A text and its translation; `language` is the source's, where it is known."""

    name: str
    source: str
    target: str
    language: str | None = None


def read_pairs(text: ParallelText, source: SideConfig, target: SideConfig) -> list[Pair]:
    """The pairs of one set, as `source` and `target` write them; those with an empty side are left out.

    Errors: `UserError` for files that are missing or of another kind, texts that the corpus lacks, sides of different
    length, and a set without any pair.
    """
    if text.source:
        found = _from_lines(text.source, str(text.target), text.language)
    elif _has_rows_of_pairs(str(text.path)):
        found = _from_rows(str(text.path), text.language)
    else:
        found = _from_manifest(str(text.path), source.target, target.target)
    if text.recognised:
        found = _recognised(text.recognised, {pair.name: pair for pair in found}, str(text.path))
    pairs = (replace(pair, source=source(pair.source), target=target(pair.target)) for pair in found)
    if not (kept := [pair for pair in pairs if pair.source and pair.target]):
        raise UserError(f"{text.name} holds no pair of texts: check the path.")
    return kept


def without_copies(pairs: Iterable[Pair]) -> list[Pair]:
    """Each (source, target) once: copies of an utterance at other speeds say the same."""
    return list({(pair.source, pair.target): pair for pair in pairs}.values())


def _from_lines(source: str, target: str, language: str | None) -> Iterator[Pair]:
    sides = [list(read_lines(require(path), CHECK)) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{source} has {len(sides[0])} lines, {target} has {len(sides[1])}: give files with a sentence "
            "and its translation on the same line."
        )
    language = language or language_of(source)
    for number, (one, other) in enumerate(zip(*sides, strict=True), 1):
        yield Pair(f"{Path(source).name}:{number}", one, other, language)


def _has_rows_of_pairs(path: str) -> bool:
    first = next(read_jsonl(path), None)
    return isinstance(first, dict) and {"source", "target"} <= first.keys()


def _from_rows(path: str, language: str | None) -> Iterator[Pair]:
    for number, row in enumerate(read_jsonl(path), 1):
        texts = [row.get(key) if isinstance(row, dict) else None for key in ("source", "target")]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path}, entry {number}: 'source' and 'target' must be texts, as in the first entry.")
        name = str(row.get("id", f"{Path(path).name}:{number}"))
        yield Pair(name, *texts, row.get("language") or language or language_of(path.removesuffix(".jsonl")))


def _from_manifest(path: str, source: str, target: str) -> list[Pair]:
    found, available = [], Counter()
    for supervision in supervisions(path):
        available.update(targets_of(supervision))
        texts = target_text(supervision, source), target_text(supervision, target)
        if all(texts):
            found.append(Pair(supervision.id, *texts, target_language(supervision, source)))
    if not found:
        missing = next((name for name in (source, target) if name not in available), f"{source} with {target}")
        there = f"there are {', '.join(sorted(available))}" if available else "no utterance has any text"
        raise UserError(f"{path}: no utterance has {missing}: {there}.")
    return found


def _recognised(path: str, pairs: dict[str, Pair], cuts: str) -> Iterator[Pair]:
    """The pairs with the texts of a hyp.jsonl, or with each of an nbest.jsonl, as sources."""
    found = False
    for number, row in enumerate(read_jsonl(path), 1):
        if not isinstance(row, dict) or "id" not in row or not ("hyp" in row or "nbest" in row):
            raise UserError(f"{path}, entry {number}: no recognised utterance: give a hyp.jsonl or nbest.jsonl.")
        if (pair := pairs.get(row["id"])) is not None:
            found = True
            texts = [entry["hyp"] for entry in row["nbest"]] if "nbest" in row else [row["hyp"]]
            yield from (replace(pair, source=text) for text in texts)
    if not found:
        raise UserError(f"{path} has none of the utterances of {cuts}: give the recognition of these cuts.")


class Noise(Config):
    """Errors made on purpose in sources, so that translation stands those of a recogniser."""

    probability: float = Field(0.5, ge=0, le=1)  # of a source to have any
    words: float = Field(0.05, ge=0, le=1)  # share of words that are left out
    characters: float = Field(0.05, ge=0, le=1)  # share of characters left out or put in place of others

    def __call__(self, text: str, rng: Any, alphabet: Sequence[str]) -> str:
        """`text` with errors drawn from `rng` (numpy's Generator); others are drawn from `alphabet`."""
        if rng.random() >= self.probability:
            return text
        words = [word for word in text.split() if rng.random() >= self.words]
        noisy = " ".join("".join(self._changed(word, rng, alphabet)) for word in words)
        return " ".join(noisy.split()) or text  # something is always said

    def _changed(self, word: str, rng: Any, alphabet: Sequence[str]) -> Iterator[str]:
        for character, drawn, kind in zip(word, rng.random(len(word)), rng.random(len(word)), strict=True):
            if drawn >= self.characters:
                yield character
            elif kind < 0.5:
                yield alphabet[int(2 * kind * len(alphabet))]


class ParallelSection(TextSection):
    """The trainer's `data:` section for pairs."""

    train: list[ParallelText] = Field(min_length=1)
    valid: list[ParallelText] = Field(default_factory=list)
    max_pairs: int | None = Field(None, ge=1)  # a batch
    noise: Noise | None = None

    @property
    def most(self) -> int | None:
        """The most pairs of a batch."""
        return self.max_pairs
