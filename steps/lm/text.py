"""The text that language models are made of and held against: options of programs, sentences, words or tokens."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steps.lang.corpus import manifest_texts, plain_texts
from steps.lang.tokenizer import Tokenizer
from utils.errors import UserError

Text = tuple[str, str | None]  # with its language, where that is known


@dataclass
class Texts(Iterable[Text]):
    """Every sentence of files and of manifests, normalised: read anew each time, none of a file's is kept.

    Errors: `UserError` for files that are missing, of another kind, or without any sentence.
    """

    files: list[Path]
    manifests: list[Path]
    target: str

    def __iter__(self) -> Iterator[Text]:
        for path in self.files:
            yield from plain_texts(path)
        if self.manifests:
            yield from manifest_texts(self.manifests, [self.target], copies=False)


def text_options(parser: argparse.ArgumentParser) -> None:
    """`--text`, `--cuts`, `--target` and `--lang`."""
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="files with a sentence a line")
    parser.add_argument("--cuts", type=Path, nargs="+", default=[], help="cuts or supervisions with text")
    parser.add_argument("--target", default="text", help="text, or translation.<language>, of the cuts")
    parser.add_argument("--lang", type=Path, help="lang folder whose tokens are an n-gram model's words")


def read_texts(args: argparse.Namespace) -> Texts:
    """Every sentence of `--text` and `--cuts`; `UserError` where neither is given."""
    if not (args.text or args.cuts):
        raise UserError("Give the text: files with a sentence a line (--text), or cuts (--cuts).")
    return Texts(args.text, args.cuts, args.target)


def split(texts: Iterable[Text], tokenizer: Tokenizer | None) -> Iterator[list[str]]:
    """The words of texts, or the symbols of their tokens."""
    for text, language in texts:
        yield text.split() if tokenizer is None else [tokenizer.tokens[i] for i in tokenizer.encode(text, language)]
