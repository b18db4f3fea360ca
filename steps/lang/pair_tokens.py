"""Tokens of both sides of a translation: what a model reads and what it writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pydantic import Field

from steps.lang.pretrained import PretrainedTokenizer
from steps.lang.prompts import Request
from steps.lang.text import bare, normalize
from steps.lang.tokenizer import Tokenizer
from utils.options import Config

Ids = list[int]


class SideConfig(Config):
    """The source or the target side: which text of an utterance it is, and its tokens."""

    target: str = Field("text", pattern=r"^(text|translation\.[a-z]{2,3})$")
    lang: str | None = None  # the lang folder; null where a pretrained model has tokens of its own
    strip: bool = False  # in lower case and without punctuation, as recognisers write it

    def __call__(self, text: str) -> str:
        """The text as the model reads it: NFC, single spaces."""
        return normalize(bare(text) if self.strip else text)


class PairTokens(Protocol):
    """Text to the ids that a translator reads and writes, and back."""

    tokenizers: dict  # of our own lang folders, by side
    sizes: dict[str, int]  # numbers of tokens: "source" and "target"
    start: list[int]  # what each text that the model writes begins with
    ends: int  # tokens that the model itself puts behind a text

    def source(self, text: str, language: str | None = None) -> list[int]:
        """Ids of a text to be translated, which is in `language`."""

    def target(self, text: str) -> list[int]:
        """Ids of its translation."""

    def sample(
        self, pair: tuple[str, str], language: str | None, alpha: float, seed: int
    ) -> tuple[list[int], list[int]]:
        """Ids of a text in `language` and of its translation, cut into pieces in another way than the best."""

    def prompt(self, language: str | None = None) -> list[int]:
        """What the decoder is given before the first token of a translation from `language`."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids that the model wrote."""


class LangPair:
    """Tokens of two lang folders (of one where both sides share it); `language` is that of the target."""

    ends = 1

    def __init__(self, source: Tokenizer, target: Tokenizer, language: str | None) -> None:
        self.tokenizers = {"source": source, "target": target}
        self.sizes = {side: tokenizer.vocab_size for side, tokenizer in self.tokenizers.items()}
        self.start: list[int] = []
        self.language = language

    def sample(
        self, pair: tuple[str, str], language: str | None, alpha: float, seed: int
    ) -> tuple[list[int], list[int]]:
        """Ids of both sides, each cut in a way drawn with `seed`."""
        source, target = self.tokenizers["source"], self.tokenizers["target"]
        read = [*source.sample(pair[0], language, alpha, seed), source.eos_id]
        return read, target.sample(pair[1], self.language, alpha, seed)

    def prompt(self, language: str | None = None) -> list[int]:
        """The token that begins every text."""
        return [self.tokenizers["target"].sos_id]

    def source(self, text: str, language: str | None = None) -> list[int]:
        """Ids of a text, with its end: a text without any token is still one."""
        tokenizer = self.tokenizers["source"]
        return [*tokenizer.encode(text, language), tokenizer.eos_id]

    def target(self, text: str) -> list[int]:
        """Ids of a translation, without its end."""
        return self.tokenizers["target"].encode(text, self.language)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids of the target side."""
        return self.tokenizers["target"].decode(ids)


class RequestPair:
    """Tokens of a language model, for both sides; the text stands in a request (`steps.lang.prompts`)."""

    ends = 1

    def __init__(self, tokenizer: PretrainedTokenizer, request: Request) -> None:
        self.tokenizers, self.request = {"target": tokenizer}, request
        self.sizes = dict.fromkeys(("source", "target"), tokenizer.vocab_size)
        self.start: list[int] = []

    def source(self, text: str, language: str | None = None) -> list[int]:
        """Ids of a text inside of the request."""
        return self.tokenizers["target"].spell(normalize(text))

    def target(self, text: str) -> list[int]:
        """Ids of a translation, without its end."""
        return self.tokenizers["target"].encode(text)

    def prompt(self, language: str | None = None) -> list[int]:
        """The request, with a slot for a text in `language`."""
        return self.request(language)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids that the model wrote."""
        return self.tokenizers["target"].decode(ids)
