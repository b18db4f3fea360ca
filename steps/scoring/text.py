"""What is done to references and hypotheses before they are compared: case, punctuation, Unicode."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from steps.lang.tables import UNKNOWN_SURFACE

CASINGS = ("cased", "lower")
_INTERNAL = "'’-‐"  # kept between letters: l'hôtel, rendez-vous


@dataclass(frozen=True)
class TextRules:
    """What is done to references and hypotheses alike before they are compared; NFC and single spaces always."""

    lowercase: bool = False
    remove_punctuation: bool = False

    @property
    def casing(self) -> str:
        """The name under which `--casing` asks for it."""
        return CASINGS[self.lowercase]

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if self.lowercase:
            text = text.lower()
        if self.remove_punctuation:
            text = without_punctuation(text)
        return " ".join(text.split())

    def describe(self, references: Sequence[str]) -> dict:
        """What was applied, and what the references then look like (measured, not promised)."""
        return {
            "unicode": "NFC",
            "casing": "lower" if self.lowercase else "as it is",
            "punctuation": "removed" if self.remove_punctuation else "as it is",
            "references": {
                "casing": _casing(references),
                "punctuation": "none" if all(_bare(reference) for reference in references) else "present",
            },
        }


def _casing(texts: Sequence[str]) -> str:
    for name, change in (("lower", str.lower), ("upper", str.upper)):
        if all(change(text) == text for text in texts):
            return name
    return "mixed"


def _bare(text: str) -> bool:
    return " ".join(without_punctuation(text).split()) == text


def without_punctuation(text: str) -> str:
    """`text` with a space for punctuation and symbols, but for apostrophes and hyphens between letters or digits."""

    def letter(index: int) -> bool:
        return 0 <= index < len(text) and unicodedata.category(text[index])[0] in "LNM"

    def keep(index: int, character: str) -> bool:
        if character == UNKNOWN_SURFACE or unicodedata.category(character)[0] not in "PS":
            return True
        return character in _INTERNAL and letter(index - 1) and letter(index + 1)

    return "".join(character if keep(index, character) else " " for index, character in enumerate(text))
