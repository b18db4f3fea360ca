"""Where words begin among tokens."""

from __future__ import annotations

from collections.abc import Sequence

from steps.lang.tables import BOUNDARY, BYTE_BOUNDARY
from steps.lang.tokenizer import Tokenizer


def word_borders(tokens: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Where words begin, and the end; each token is a word where words are not marked (Chinese)."""
    starts = [i for i, token in enumerate(tokens) if tokenizer.token(token).startswith((BOUNDARY, BYTE_BOUNDARY))]
    starts = starts or list(range(len(tokens)))
    return [0, *(i for i in starts if i > 0), len(tokens)]
