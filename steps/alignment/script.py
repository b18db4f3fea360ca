"""What is to be aligned: a text as the tokens of a head, and which of them are whose word."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from steps.lang.tables import BOUNDARY, BYTE_BOUNDARY
from steps.lang.tokenizer import Tokenizer
from steps.lang.words import word_borders

LISTED = 12  # characters that a report names


class Misfit(Exception):
    """An utterance that cannot be aligned: `reason` in a few words, and what was found."""

    def __init__(self, reason: str, detail: str, characters: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.characters = reason, detail, characters


@dataclass(frozen=True)
class Script:
    """Token ids with their symbols, and words with the range of tokens that is each one's own.

    A token that only marks where a word begins (`▁`), a language's tag and a lexicon's silence belong to no word;
    `starts` is where words begin with their marks.
    """

    tokens: list[int]
    symbols: list[str]
    words: list[str]
    spans: list[tuple[int, int]]
    starts: list[int]


def script(text: str | None, tokenizer: Tokenizer, language: str | None) -> Script:
    """The script of a text; `Misfit` where there is none, and for characters outside the token set."""
    if not text or not text.strip():
        raise Misfit("no text", "nothing to align")
    if strange := tokenizer.unknown(text):
        listed = " ".join(dict.fromkeys(strange))[: 2 * LISTED]
        raise Misfit("unknown characters", f"{len(strange)} that the tokens cannot spell: {listed}", strange)
    tokens = tokenizer.encode(text, language)
    tagged = int(bool(tokenizer.tags))
    borders = [tagged + border for border in word_borders(tokens[tagged:], tokenizer)]
    symbols = [tokenizer.token(token) for token in tokens]
    words, spans, starts = [], [], []
    for first, last in pairwise(borders):
        if word := tokenizer.decode(tokens[first:last]):
            words.append(word)
            starts.append(first)
            spans.append((first + int(first < last - 1 and symbols[first] in (BOUNDARY, BYTE_BOUNDARY)), last))
    return Script(tokens, symbols, words, spans, starts)
