"""Lexicons: words and what they are spelled with, disambiguation symbols, and L as a graph (Mohri et al. 2008)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from steps.lang.arcs import FINAL, Arcs
from steps.lang.tables import BLANK
from utils.errors import UserError
from utils.files import read_lines

EPSILON = 0
BACKOFF = "#0"  # what G reads where it backs off
Entry = tuple[str, tuple[str, ...]]  # a word and its tokens


def read_lexicon(path: str | Path) -> list[Entry]:
    """Entries of a file with `word token token ...` a line; a word may have several, each once.

    Errors: `UserError` naming the line for a word without tokens, and for a file without words.
    """
    entries: dict[Entry, None] = {}
    for number, line in enumerate(read_lines(path, "save it as UTF-8"), 1):
        word, *tokens = line.split() or [""]
        if not word:
            continue
        if not tokens:
            raise UserError(f"{path}, line {number}: '{word}' has no tokens: give 'word token token ...'.")
        entries[word, tuple(tokens)] = None
    if not entries:
        raise UserError(f"{path} is empty: give 'word token token ...' a line.")
    return list(entries)


def disambiguated(entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """`entries` with `#1`, `#2` ... behind tokens that are also another's, or another's beginning; the highest number.

    As Kaldi's add_lex_disambig.pl: words of the same tokens get different symbols.
    """
    count = Counter(tokens for _, tokens in entries)
    beginnings = {tokens[:end] for tokens in count for end in range(1, len(tokens))}
    used: Counter[tuple[str, ...]] = Counter()
    found: list[Entry] = []
    for word, tokens in entries:
        if count[tokens] > 1 or tokens in beginnings:
            used[tokens] += 1
            found.append((word, (*tokens, f"#{used[tokens]}")))
        else:
            found.append((word, tokens))
    return found, max(used.values(), default=0)


def lexicon_graph(
    entries: Sequence[Entry],
    tokens: Sequence[str],
    words: Sequence[str],
    silence: str | None = None,
    silence_prob: float = 0.5,
    loops: bool = False,
) -> Arcs:
    """L: reads tokens, writes words; labels are places in `tokens` and `words` (0: nothing).

    With `silence`, that token may stand before, between and behind words, each time with `silence_prob`. `loops`: read
    and write `#0` between words, for a G that has it.
    Errors: `UserError` for an entry with a token or word that the tables lack.
    """
    token_ids, word_ids = ({s: i for i, s in enumerate(table)} for table in (tokens, words))
    _check(entries, token_ids, word_ids, [*([silence] if silence else []), *([BACKOFF] if loops else [])])
    start, loop, pause = (0, 1, 2) if silence else (0, 0, 0)
    stay, rest = (math.log(1 - silence_prob), math.log(silence_prob)) if silence else (0.0, 0.0)
    rows = []
    if silence:
        rows += [(start, loop, EPSILON, EPSILON, stay), (start, pause, EPSILON, EPSILON, rest)]
        rows += [(pause, loop, token_ids[silence], EPSILON, 0.0)]
    fresh = pause + 1
    for word, spelled in entries:
        state, written = loop, word_ids[word]
        for token in spelled[:-1]:
            rows.append((state, fresh, token_ids[token], written, 0.0))
            state, written, fresh = fresh, EPSILON, fresh + 1
        rows.append((state, loop, token_ids[spelled[-1]], written, stay))
        if silence:
            rows.append((state, pause, token_ids[spelled[-1]], written, rest))
    if loops:
        rows.append((loop, loop, token_ids[BACKOFF], word_ids[BACKOFF], 0.0))
    rows.append((loop, fresh, FINAL, FINAL, 0.0))
    return Arcs.of_rows(rows).sorted()


def _check(entries: Sequence[Entry], token_ids: dict, word_ids: dict, special: list[str]) -> None:
    for symbol in special:
        if symbol not in token_ids:
            raise UserError(f"The tokens lack '{symbol}': make the lang folder again (stage 3).")
    for word, spelled in entries:
        if word not in word_ids:
            raise UserError(f"The lexicon has '{word}', which words.txt lacks: make the lang folder again (stage 3).")
        for token in spelled:
            if token not in token_ids or token == BLANK:
                raise UserError(f"The lexicon spells '{word}' with '{token}', which is no token: mend its line.")
