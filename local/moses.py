"""French that Moses' scripts tokenised and lower-cased, back in the form that people write and metrics expect."""

from __future__ import annotations

import html
import re
import unicodedata
from difflib import SequenceMatcher


def detokenise_french(text: str) -> str:
    """`text` with entities as characters (NFC) and without the spaces that Moses' tokeniser put in.

    "l&apos; os , c&apos; est" becomes "l'os, c'est": as Moses' detokenizer.perl -l fr has it, but that an apostrophe
    between words is elision wherever the spaces are ("n ' y", which Moses would leave) and quotes close up.
    """
    text = " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
    text = re.sub(r"(?<=\w) ?'[ ']*(?=\w)", "'", text)
    text = re.sub(r'" ([^"]*) "', r'"\1"', text)
    return re.sub(r" ([.,:;])", r"\1", text)


def restore_case(lowered: str, original: str) -> str:
    """`lowered` with the capitals of `original`, a text that may be spelt and spaced otherwise in places.

    The letters are `lowered`'s: in lower case the result is `lowered` again.
    """
    letters = list(lowered)
    matcher = SequenceMatcher(None, lowered, "".join(map(_lower, original)), autojunk=False)
    for start, found, size in matcher.get_matching_blocks():
        letters[start : start + size] = original[found : found + size]
    return "".join(letters)


def _lower(letter: str) -> str:
    return letter.lower() if len(letter.lower()) == 1 else letter
