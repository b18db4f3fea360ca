"""Lists of words and phrases that are likely in what is recognised: names, a product's terms, a contact list."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from steps.lang.tables import BOUNDARY, BYTE_BOUNDARY
from steps.lang.text import normalize
from steps.lang.tokenizer import Tokenizer
from utils.errors import UserError
from utils.files import read_lines

_BONUS = re.compile(r"(?P<phrase>.*?)\s+:(?P<bonus>\S*)")
SHOWN = 5  # phrases that a message lists


def read_hotwords(path: str | Path) -> dict[str, float]:
    """Phrases of a file with one a line, and their bonus: ` :2.5` behind the phrase (as in sherpa), otherwise 1.

    Blank lines count for nothing. Errors: `UserError` naming the line for a bonus that is no number above zero, and for
    a file without phrases.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(read_lines(path, "save it as UTF-8, a phrase a line"), 1):
        phrase, bonus = line.strip(), 1.0
        if told := _BONUS.fullmatch(phrase):
            phrase = told["phrase"]
            try:
                bonus = float(told["bonus"])
            except ValueError:
                bonus = 0.0
            if not 0 < bonus < float("inf"):
                raise UserError(
                    f"{path}, line {number}: ':{told['bonus']}' is no number above zero: give 'phrase :2.5'."
                )
        if phrase := normalize(phrase):
            found[phrase] = bonus
    if not found:
        raise UserError(f"{path} holds no phrase: give one a line.")
    return found


def spelled_hotwords(path: str | Path, tokenizer: Tokenizer) -> tuple[list[list[int]], list[float], list[bool]]:
    """Token ids of each phrase, its bonus, and which tokens begin a word; phrases that cannot be spelled are told.

    Errors: `UserError` where none can.
    """
    phrases = read_hotwords(path)
    fit = {phrase: bonus for phrase, bonus in phrases.items() if not tokenizer.unknown(phrase)}
    strange = [phrase for phrase in phrases if phrase not in fit]
    listed = ", ".join(strange[:SHOWN]) + (" ..." if len(strange) > SHOWN else "")
    if not fit:
        raise UserError(f"{path}: the tokens can spell none of its phrases ({listed}): check their script and case.")
    if strange:
        print(f"warning: {path}: {len(strange)} phrases have characters that no token has: {listed}", file=sys.stderr)
    ids = {token: index for index, token in enumerate(tokenizer.tokens)}
    begins = [token.startswith((BOUNDARY, BYTE_BOUNDARY)) for token in tokenizer.tokens]
    if not any(begins):  # no spaces between words
        begins = [True] * len(begins)
    return [[ids[piece] for piece in tokenizer.pieces(phrase)] for phrase in fit], list(fit.values()), begins
