"""Where text comes from: supervisions of manifests, and plain text files named by language (`train.en.gz`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lhotse import SupervisionSegment
from lhotse.serialization import deserialize_item

from steps.lang.targets import parse_target, target_language, target_text, targets_of
from steps.lang.text import normalize
from utils.errors import UserError
from utils.files import read_jsonl, read_lines

_COPY = re.compile(r"_sp\d[\d.]*$")  # Lhotse's ending of what is played at another speed
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


def manifest_texts(
    paths: Sequence[str | Path], targets: Sequence[str], same_language: bool = False, copies: bool = True
) -> list[tuple[str, str | None]]:
    """Normalised texts of `targets`, with their languages, of cut or supervision manifests in their order.

    Without `copies`, utterances at other speeds than the one that is there too are left out: counts of n-grams would
    all be multiples of three. Errors: `UserError` for what is no target, and where no utterance has any of them.
    """
    for target in targets:
        parse_target(target)
    texts, available, names = [], Counter(), set()
    for path in paths:
        for supervision in supervisions(path):
            available.update(targets_of(supervision))
            names.add(supervision.id)
            for target in targets:
                if text := target_text(supervision, target, same_language):
                    texts.append((supervision.id, (normalize(text), target_language(supervision, target))))
    if not texts:
        there = f"there are {' '.join(sorted(available))}" if available else "no utterance has any text"
        where = " ".join(map(str, paths))
        raise UserError(f"{where}: no utterance has the target {' or '.join(targets)}: {there}.")
    return [text for name, text in texts if copies or (plain := _COPY.sub("", name)) == name or plain not in names]


def plain_texts(path: str | Path) -> Iterator[tuple[str, str | None]]:
    """Normalised lines of a text file, without empty ones, with the language that its name ends in.

    Errors: `UserError` where the file is not UTF-8, or (at its end) blank.
    """
    language, blank = language_of(path), True
    for line in map(normalize, read_lines(path, "save it as UTF-8, or check the path")):
        if line:
            blank = False
            yield line, language
    if blank:
        raise UserError(f"{path} holds no text: check the path.")
