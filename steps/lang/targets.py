"""What a head learns: a target names a text of an utterance, `text` (the transcript) or `translation.<language>`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from lhotse import SupervisionSegment

_TRANSLATION = re.compile(r"translation\.([a-z]{2,3}(?:[-_][A-Za-z0-9]+)*)")


def parse_target(target: str) -> str | None:
    """The language of a `translation.<language>` target, None for `text`; `UserError` for any other name."""
    if target == "text":
        return None
    if match := _TRANSLATION.fullmatch(target):
        return match[1]
    raise UserError(
        f"Target '{target}' is not a target: give 'text' (the transcript) or 'translation.<language>', "
        "for instance translation.en."
    )


def target_language(supervision: SupervisionSegment, target: str) -> str | None:
    """Language of the text that `target` names: the utterance's own for `text`, else the translation's."""
    return parse_target(target) or supervision.language


def target_text(supervision: SupervisionSegment, target: str, same_language: bool = False) -> str | None:
    """The text of `supervision` that `target` names, or None where there is none.

    `text` is the transcript, `translation.<language>` is `custom["translation"][language]`. For an utterance that is
    already in the translation's language it is the transcript if `same_language`, else None. A blank text is None.
    """
    language = parse_target(target)
    if language is None:
        text = supervision.text
    elif supervision.language == language:
        text = supervision.text if same_language else None
    else:
        text = ((supervision.custom or {}).get("translation") or {}).get(language)
    return text if text and text.strip() else None


def targets_of(supervision: SupervisionSegment) -> list[str]:
    """Names of the targets that `supervision` has, `text` first, translations in alphabetical order."""
    names = ["text"] if supervision.text and supervision.text.strip() else []
    translations = (supervision.custom or {}).get("translation") or {}
    return names + [f"translation.{language}" for language in sorted(translations) if translations[language]]
