"""Log-probabilities of whole texts, by whatever language model a path holds: n-gram, neural, or transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from steps.lang.chat import end_token
from steps.lang.pretrained import load_backend
from steps.lang.tables import BOUNDARY, UNK
from steps.lang.tokenizer import Tokenizer
from steps.lm.arpa import read_arpa
from steps.lm.backoff import BackoffModel, token_scores
from steps.lm.neural import open_language_model
from steps.lm.text import split
from steps.nets.language_model import LanguageModel, by_length
from steps.pretrained.folder import find_model, read_config
from steps.pretrained.llm import load_llm
from utils.errors import UserError


@dataclass(frozen=True)
class TextScores:
    """Of each text `(N,)`: `tokens`, that is words of a model of words, the end included; `unknown`, how many of them
    the model lacks; ln p of the `known` ones and of the unknown `rest` (-inf where these have no probability).

    `found`, of n-gram models: how many of all known tokens were found as n-grams of which length.
    """

    tokens: np.ndarray
    unknown: np.ndarray
    known: np.ndarray
    rest: np.ndarray
    found: dict[str, int] | None = None

    @property
    def log_probs(self) -> np.ndarray:
        """ln p `(N,)` in nats of the whole text and its end."""
        return self.known + self.rest


class TextScorer(Protocol):
    """A language model to which texts are strings."""

    def score(self, texts: Sequence[str], languages: Sequence[str | None] | None = None) -> TextScores:
        """What each text is worth; `languages` matter to token sets with language tags alone."""

    def lacks(self, word: str) -> bool:
        """Whether a word, or a part of it, is unknown to the model."""


def _with_languages(texts: Sequence[str], languages: Sequence[str | None] | None) -> list[tuple[str, str | None]]:
    return list(zip(texts, [None] * len(texts) if languages is None else languages, strict=True))


class NgramTextScorer:
    """An n-gram model of words, or of a `tokenizer`'s tokens; a word that it lacks is `<unk>`."""

    def __init__(self, model: BackoffModel, tokenizer: Tokenizer | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer

    def score(self, texts: Sequence[str], languages: Sequence[str | None] | None = None) -> TextScores:
        sentences = list(split(_with_languages(texts, languages), self.tokenizer))
        ids, log_prob, matched = token_scores(self.model, sentences)
        tokens = np.array([len(sentence) + 1 for sentence in sentences], dtype=np.int64)
        row = np.repeat(np.arange(len(texts)), tokens)
        lacking = (ids < 0) | (ids == self.model.ids.get(UNK, -1))
        parts = [np.bincount(row, np.where(mask, log_prob, 0.0), len(texts)) for mask in (~lacking, lacking)]
        counts = np.bincount(matched[~lacking], minlength=self.model.order + 1)
        found = {str(order): int(count) for order, count in enumerate(counts[1:], 1)}
        return TextScores(tokens, np.bincount(row[lacking], minlength=len(texts)), *parts, found)

    def lacks(self, word: str) -> bool:
        return bool(self.tokenizer.unknown(word)) if self.tokenizer else word not in self.model.ids


class NeuralTextScorer:
    """A neural model over a `tokenizer`'s tokens, on the device that it is on."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def score(self, texts: Sequence[str], languages: Sequence[str | None] | None = None) -> TextScores:
        rows = [self.tokenizer.encode(*text) for text in _with_languages(texts, languages)]
        known, rest = np.zeros(len(rows)), np.zeros(len(rows))
        for places, tokens, costs in self.model.token_costs(rows):
            lacking = torch.nn.functional.pad(tokens == self.tokenizer.unk_id, (0, 1))
            known[places] = -costs.masked_fill(lacking, 0.0).double().sum(1).cpu().numpy()
            rest[places] = -costs.masked_fill(~lacking, 0.0).double().sum(1).cpu().numpy()
        unknown = np.array([row.count(self.tokenizer.unk_id) for row in rows], dtype=np.int64)
        return TextScores(np.array([len(row) + 1 for row in rows], dtype=np.int64), unknown, known, rest)

    def lacks(self, word: str) -> bool:
        return bool(self.tokenizer.unknown(word))


class HubTextScorer:
    """A causal language model of transformers', from its `folder`.

    A text stands between the tokens that the model's tokenizer puts before it (its beginning of a text, or its end
    where it has none) and its end of a text; the first of these is given, all others are predicted.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        self.folder, config = folder, read_config(folder)
        self.backend = load_backend(folder / "tokenizer.json")
        end = end_token(folder, config)
        self.end = self.backend.token_to_id(end) if isinstance(end, str) else end
        if self.end is None:
            raise UserError(f"{folder} does not say which token ends a text: give config.json an eos_token_id.")
        opening = self.backend.encode("", add_special_tokens=True).ids
        begin = config.get("bos_token_id")
        self.start = [i for i in opening if i != self.end] or [self.end if begin is None else begin]
        self.llm = load_llm(folder, torch.float32).to(device).eval()
        self.device = torch.device(device)
        text_config = self.llm.config.get_text_config()
        self.width, self.positions = text_config.vocab_size, getattr(text_config, "max_position_embeddings", None)

    def _ids(self, text: str) -> list[int]:
        ids = [*self.start, *self.backend.encode(text, add_special_tokens=False).ids, self.end]
        if self.positions and len(ids) > self.positions:
            raise UserError(
                f"A text of {len(ids)} tokens ('{text[:40]} ...') is longer than the {self.positions} that "
                f"{self.folder} takes: cut it."
            )
        return ids

    @torch.no_grad()
    def score(self, texts: Sequence[str], languages: Sequence[str | None] | None = None) -> TextScores:
        rows = [self._ids(text) for text in texts]
        scores, first = np.zeros(len(rows)), len(self.start)
        for places, ids, lens in by_length(rows, self.width, self.device):
            inside = torch.arange(ids.shape[1], device=self.device) < lens[:, None]
            logits = self.llm(input_ids=ids, attention_mask=inside.long(), use_cache=False).logits
            log_probs = logits[:, first - 1 : -1].float().log_softmax(-1).gather(2, ids[:, first:, None])[..., 0]
            scores[places] = log_probs.masked_fill(~inside[:, first:], 0.0).double().sum(1).cpu().numpy()
        tokens = np.array([len(row) - first for row in rows], dtype=np.int64)
        return TextScores(tokens, np.zeros_like(tokens), scores, np.zeros(len(rows)))

    def lacks(self, word: str) -> bool:
        return False  # what is no token is spelled in bytes


def open_text_scorer(
    path: str | Path,
    lang: str | Path | None = None,
    checkpoint: str = "averaged.pt",
    device: str | torch.device = "cpu",
) -> TextScorer:
    """What `path` holds: a model folder of steps.train, a folder or hub name of transformers', or an ARPA file.

    `lang` is the lang folder whose tokens are the words of an ARPA file. Errors: `UserError` for anything else, and
    for an ARPA file that does not fit `lang`.
    """
    folder = Path(path)
    if (folder / "config.yaml").exists():
        return NeuralTextScorer(*open_language_model(folder, checkpoint, device))
    a_file = folder.is_absolute() or folder.suffix in (".arpa", ".gz")  # if it were there
    if folder.is_dir() or not (folder.exists() or a_file):
        return HubTextScorer(find_model(str(path), "the language model"), device)
    model = read_arpa(folder)
    tokens = sum(word.startswith(BOUNDARY) for word in model.words)
    if lang is None and tokens:
        raise UserError(f"{path} is a model of tokens (it has '{BOUNDARY}'): give --lang, the folder that they are of.")
    tokenizer = None if lang is None else Tokenizer.load(lang)
    pieces = tokenizer.tokens[3:] if tokenizer else []
    # some words are tokens too, but none that begins a word
    telling = [piece for piece in pieces if piece.startswith(BOUNDARY)] or pieces
    if tokenizer and not any(piece in model.ids for piece in telling):
        raise UserError(f"{path} has none of the tokens of {lang}: leave out --lang for a model of words.")
    return NgramTextScorer(model, tokenizer)
