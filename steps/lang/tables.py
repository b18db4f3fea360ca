"""Symbol tables and lexicons in Kaldi's and icefall's text formats: `symbol id` and `word piece piece ...` a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import open_text, require, write_text

BLANK, SOS_EOS, UNK = "<blk>", "<sos/eos>", "<unk>"
SPECIAL = (BLANK, SOS_EOS, UNK)  # their positions are their ids, as in icefall
UNKNOWN_WORD = "<UNK>"
BOUNDARY = "▁"  # U+2581, sentencepiece's mark for the space before a word
BYTE_BOUNDARY = "Ġ"  # byte-level BPE's (GPT-2, Whisper)
UNKNOWN_SURFACE = "⁇"  # what <unk> decodes to: one character, as in sentencepiece, so that CER counts it as one
_DISAMBIGUATION = re.compile(r"#\d+")


def read_table(path: str | Path) -> list[str]:
    """Symbols of a `symbol id` file by id; `UserError` unless the ids are 0..n-1, each symbol and id once."""
    symbols: dict[int, str] = {}
    seen: dict[str, int] = {}
    try:
        with open_text(require(path, "stage 3 (lang)")) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                fields = line.split()
                if len(fields) != 2 or not fields[1].isdecimal():
                    raise UserError(f"{path}, line {number}: expected 'symbol id', found '{line.strip()[:60]}'.")
                symbol, index = fields[0], int(fields[1])
                if symbol in seen or index in symbols:
                    what = f"symbol '{symbol}'" if symbol in seen else f"id {index}"
                    raise UserError(f"{path}, line {number}: {what} is there twice: make it again with stage 3 (lang).")
                symbols[index], seen[symbol] = symbol, index
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: make it again with stage 3 (lang).") from None
    if not symbols:
        raise UserError(f"{path} is empty: make it again with stage 3 (lang).")
    missing = next((index for index in range(len(symbols)) if index not in symbols), None)
    if missing is not None:
        raise UserError(f"{path}: id {missing} is missing although there are higher ones: make it again (stage 3).")
    return [symbols[index] for index in range(len(symbols))]


def read_tokens(path: str | Path) -> list[str]:
    """Tokens by id, without the disambiguation symbols (`#0` ...) that a graph adds at the end of icefall's tables."""
    tokens = read_table(path)
    while tokens and _DISAMBIGUATION.fullmatch(tokens[-1]):
        tokens.pop()
    if tuple(tokens[:3]) != SPECIAL:
        raise UserError(f"{path} must begin with <blk> 0, <sos/eos> 1, <unk> 2, found {' '.join(tokens[:3])}.")
    return tokens


def write_table(path: str | Path, symbols: Iterable[str]) -> None:
    """Write `symbol id` lines, ids counting from 0."""
    write_text(path, "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols)))


def word_table(words: Iterable[str]) -> list[str]:
    """Symbols of words.txt: `<eps>` (id 0), `<UNK>`, the words in code point order, then `#0`, `<s>`, `</s>`."""
    reserved = ["<eps>", UNKNOWN_WORD, "#0", "<s>", "</s>"]
    return [*reserved[:2], *sorted(set(words) - set(reserved)), *reserved[2:]]


def write_lexicon(path: str | Path, entries: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Write `word piece piece ...` lines."""
    write_text(path, "".join(f"{word} {' '.join(pieces)}\n" for word, pieces in entries))
