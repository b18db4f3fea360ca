"""Transcript normalisation, one function for every corpus and language: what recognisers learn and WER is scored on.

Lower case, Unicode NFC, digits as words, and no punctuation but the apostrophe and hyphen inside a word ("d'agent",
"re-enter", "dix-sept", "что-то"): those two are spelling, everything else is layout. Per language:

- Russian ё becomes е (writers use either for the same word); Latin look-alikes inside Cyrillic words become Cyrillic.
- Italian "E'" is how typists without È write "è".
- `*` and `#` are read as the keys of a telephone, `%`, `&`, `@` by their names; the dots of a web address are spoken.
- Anything in square, round or angle brackets is a remark, not speech: a line of only that has the empty text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from num2words import num2words

from utils.errors import UserError, nearest

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}

SYMBOLS = {
    "en": {"*": "star", "#": "pound", "%": "percent", "&": "and", "@": "at"},
    "es": {"*": "asterisco", "#": "numeral", "%": "por ciento", "&": "y", "@": "arroba"},
    "fr": {"*": "étoile", "#": "dièse", "%": "pour cent", "&": "et", "@": "arobase"},
    "it": {"*": "asterisco", "#": "cancelletto", "%": "per cento", "&": "e", "@": "chiocciola"},
    "ru": {"*": "звездочка", "#": "решетка", "%": "процент", "&": "и", "@": "собака"},
}
WEB_DOT = {"en": "dot", "es": "punto", "fr": "point", "it": "punto", "ru": "точка"}

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'") | dict.fromkeys("‐‑", "-"))
_LATIN_TO_CYRILLIC = str.maketrans("aceopxykABCEHKMOPTX", "асеорхукАВСЕНКМОРТХ")
_BRACKETED = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")
_WEB = re.compile(r"\bwww(?:\.\w+)+", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_NOT_SPELLING = re.compile(r"[^\w'-]|_")
_MIXED_SCRIPT = re.compile(r"\b(?=\w*[А-Яа-яЁё])(?=\w*[A-Za-z])\w+\b")


def check_language(language: str) -> str:
    """`language` if it is known, else a `UserError` with the nearest known one."""
    if language not in LANGUAGES:
        by_name = [code for code, name in LANGUAGES.items() if name.lower() == language.lower()]
        hint = f" (did you mean '{by_name[0]}'?)" if by_name else nearest(language, LANGUAGES)
        raise UserError(f"Unknown language '{language}'{hint}: choose from {' '.join(LANGUAGES)}.")
    return language


@lru_cache(maxsize=4096)
def spell_number(digits: str, language: str) -> str:
    """`digits` ("28", "28.8" or "28,8") in words: "twenty-eight point eight"."""
    whole, _, fraction = digits.replace(",", ".").partition(".")
    return num2words(float(f"{whole}.{fraction}") if fraction else int(whole), lang=language)


def normalise(text: str, language: str) -> str:
    """The spoken words of one line of transcript, in the form that the top of this module describes; "" if none."""
    check_language(language)
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    text = _BRACKETED.sub(" ", text)
    text = _WEB.sub(lambda match: match[0].replace(".", f" {WEB_DOT[language]} "), text)
    for symbol, word in SYMBOLS[language].items():
        text = text.replace(symbol, f" {word} ")
    text = _NUMBER.sub(lambda match: f" {spell_number(match[0], language)} ", text)
    if language == "it":
        text = re.sub(r"\b[Ee]'(?=\s|$)", "è", text)
    if language == "ru":
        text = _MIXED_SCRIPT.sub(lambda match: match[0].translate(_LATIN_TO_CYRILLIC), text)
    text = text.lower()
    if language == "ru":
        text = text.replace("ё", "е")
    words = (word.strip("'-") for word in _NOT_SPELLING.sub(" ", text).split())
    return unicodedata.normalize("NFC", " ".join(word for word in words if word))
