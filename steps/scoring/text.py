"""What is done to references and hypotheses before they are compared: case, punctuation, Unicode."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from steps.lang.text import without_punctuation

CASINGS = ("cased", "lower")


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
