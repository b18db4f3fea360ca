"""Text before it becomes tokens."""

from __future__ import annotations

import re
import unicodedata

from steps.lang.tables import BOUNDARY
from utils.errors import UserError, nearest


def normalize(text: str) -> str:
    """Text in NFC (an accent is one character), words separated by single spaces, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).replace(BOUNDARY, " ").split())


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
