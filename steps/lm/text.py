"""The text that language models are made of and held against: options of programs, sentences, words or tokens."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from steps.lang.corpus import manifest_texts, plain_texts
from steps.lang.tokenizer import Tokenizer
from utils.errors import UserError

Texts = list[tuple[str, str | None]]  # with their languages, where these are known


def text_options(parser: argparse.ArgumentParser) -> None:
    """`--text`, `--cuts`, `--target` and `--lang`."""
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="files with a sentence a line")
    parser.add_argument("--cuts", type=Path, nargs="+", default=[], help="cuts or supervisions with text")
    parser.add_argument("--target", default="text", help="text, or translation.<language>, of the cuts")
    parser.add_argument("--lang", type=Path, help="lang folder whose tokens are an n-gram model's words")


def read_texts(args: argparse.Namespace) -> Texts:
    """Every sentence of `--text` and `--cuts`, normalised; `UserError` where there is none."""
    if not (args.text or args.cuts):
        raise UserError("Give the text: files with a sentence a line (--text), or cuts (--cuts).")
    lines = [line for path in args.text for line in plain_texts(path)]
    return lines + (manifest_texts(args.cuts, [args.target], copies=False) if args.cuts else [])


def split(texts: Iterable[tuple[str, str | None]], tokenizer: Tokenizer | None) -> list[list[str]]:
    """The words of texts, or the symbols of their tokens."""
    if tokenizer is None:
        return [text.split() for text, _ in texts]
    return [[tokenizer.tokens[i] for i in tokenizer.encode(text, language)] for text, language in texts]
