"""Text before it becomes tokens."""

from __future__ import annotations

import re
import unicodedata

from steps.lang.tables import BOUNDARY, UNKNOWN_SURFACE
from utils.errors import UserError, nearest

_INTERNAL = "'’-‐"  # kept between letters: l'hôtel, rendez-vous


def normalize(text: str) -> str:
    """Text in NFC (an accent is one character), words separated by single spaces, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).replace(BOUNDARY, " ").split())


def without_punctuation(text: str) -> str:
    """`text` with a space for punctuation and symbols, but for apostrophes and hyphens between letters or digits."""

    def letter(index: int) -> bool:
        return 0 <= index < len(text) and unicodedata.category(text[index])[0] in "LNM"

    def keep(index: int, character: str) -> bool:
        if character == UNKNOWN_SURFACE or unicodedata.category(character)[0] not in "PS":
            return True
        return character in _INTERNAL and letter(index - 1) and letter(index + 1)

    return "".join(character if keep(index, character) else " " for index, character in enumerate(text))


def bare(text: str) -> str:
    """`text` in lower case without punctuation, as most recognisers write it."""
    return normalize(without_punctuation(text.lower()))


def prompt_ids(tokens: str, table: dict[str, int]) -> list[int]:
    """Ids of tokens in angle brackets, written one behind the other; `UserError` for one that `table` lacks."""
    found = re.findall(r"<[^<>]+>", tokens)
    if not found or "".join(found) != tokens.replace(" ", ""):
        raise UserError(f"The prompt '{tokens}' must be tokens in angle brackets, such as <sos/eos>.")
    for token in found:
        if token not in table:
            raise UserError(
                f"The prompt '{tokens}' has '{token}', which is no token of this set{nearest(token, table)}: "
                "change the head's prompt, or the language."
            )
    return [table[token] for token in found]
