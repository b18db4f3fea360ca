"""Where text comes from: supervisions of manifests, and plain text files named by language (`train.en.gz`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lhotse import SupervisionSegment
from lhotse.serialization import deserialize_item

from utils.errors import UserError
from utils.files import read_jsonl

_LANGUAGE = re.compile(r"(?!txt$)[a-z]{2,3}")  # ISO 639


def supervisions(path: str | Path) -> Iterator[SupervisionSegment]:
    """Every supervision of a cut or supervision manifest; `UserError` where a line is something else."""
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            item = deserialize_item(row)
            found = [item] if isinstance(item, SupervisionSegment) else list(item.supervisions)
        except (AttributeError, KeyError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"{path}, entry {number}: not a cut or a supervision ({error!r}).") from None
        yield from found


def language_of(path: str | Path) -> str | None:
    """The language that a file is named by: `en` of `train.en` and `train.en.gz`, None of `train.txt`."""
    ending = Path(str(path).removesuffix(".gz")).suffix[1:]
    return ending if _LANGUAGE.fullmatch(ending) else None
