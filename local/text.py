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
_NOT_SPELLING_OR_NUMBER = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[^\w'.,-]|_")
_SPELLING = ("L", "M", "N")  # Unicode's letters, their marks (vowels of Indic scripts are such), digits
_JOINERS = "'-\u200c\u200d"  # inside of words; the last two shape Persian and Indic ones
_DOTLESS = str.maketrans({"I": "ı", "İ": "i"})  # Turkish and Azerbaijani
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


def normalise(text: str, language: str, digits: bool = False) -> str:
    """The spoken words of one line of transcript, in the form that the top of this module describes; "" if none.

    With `digits` numbers stay as they are written ("10,000", "2.5", "1990s"), as text for translation has them.
    """
    check_language(language)
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    text = _BRACKETED.sub(" ", text)
    text = _WEB.sub(lambda match: match[0].replace(".", f" {WEB_DOT[language]} "), text)
    for symbol, word in SYMBOLS[language].items():
        text = text.replace(symbol, f" {word} ")
    if not digits:
        text = _NUMBER.sub(lambda match: f" {spell_number(match[0], language)} ", text)
    if language == "it":
        text = re.sub(r"\b[Ee]'(?=\s|$)", "è", text)
    if language == "ru":
        text = _MIXED_SCRIPT.sub(lambda match: match[0].translate(_LATIN_TO_CYRILLIC), text)
    text = text.lower()
    if language == "ru":
        text = text.replace("ё", "е")
    words = (word.strip("'-") for word in (_NOT_SPELLING_OR_NUMBER if digits else _NOT_SPELLING).sub(" ", text).split())
    return unicodedata.normalize("NFC", " ".join(word for word in words if word))


def tidy(text: str) -> str:
    """`text` in NFC with single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def lower(text: str, language: str | None = None) -> str:
    """`text` in lower case, as the language does it."""
    return (text.translate(_DOTLESS) if language in ("tr", "az") else text).lower()


def spelling(text: str, language: str | None = None) -> str:
    """`text` in lower case without punctuation and symbols, in any language and script; digits stay as they are.

    For text that was read aloud as it is, also what is in brackets. Letters, marks and digits are Unicode's.
    """
    text = lower(unicodedata.normalize("NFC", text).translate(_APOSTROPHES), language)
    kept = (c if unicodedata.category(c)[0] in _SPELLING or c in _JOINERS else " " for c in text)
    words = (word.strip(_JOINERS) for word in "".join(kept).split())
    return unicodedata.normalize("NFC", " ".join(word for word in words if word))


def plain(text: str, language: str | None = None) -> str:
    """`normalise` for the languages that have rules; in others `spelling`, but that brackets are remarks here, too."""
    return normalise(text, language) if language in LANGUAGES else spelling(_BRACKETED.sub(" ", text), language)
