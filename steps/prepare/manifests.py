"""Lhotse manifests of a split: read with an error that names the line, recordings and what is said in them together."""

from __future__ import annotations

import marshal
from collections.abc import Container, Iterator
from pathlib import Path

from lhotse import Recording, SupervisionSegment

from steps.prepare.usable import Fault
from utils.errors import UserError, nearest
from utils.files import read_jsonl, require

MADE_BY = "stage 1 (manifests)"
Work = list[tuple[bytes, list[bytes]]]  # recordings, each with its supervisions: packed, as a corpus has millions

NUMBERS = {Recording: ("sampling_rate", "num_samples", "duration"), SupervisionSegment: ("start", "duration")}


def manifest_paths(folder: Path, split: str) -> tuple[Path, Path]:
    """Where a split's recordings and supervisions are; `UserError` where one is missing, or only others are there."""
    names = (f"{split}_recordings.jsonl.gz", f"{split}_supervisions.jsonl.gz")
    there = splits_in(folder)
    if there and not any((folder / name).exists() for name in names):
        told = f"has no split '{split}'{nearest(split, there)} but {', '.join(there)}"
        raise UserError(f"{folder} {told}: correct its name, or run {MADE_BY} for it.")
    return require(folder / names[0], MADE_BY), require(folder / names[1], MADE_BY)


def splits_in(folder: Path) -> list[str]:
    """The splits that a folder has manifests of, those that are trained on first."""
    ending = "_supervisions.jsonl.gz"
    names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    return sorted(names, key=lambda name: not name.startswith("train"))


def read_manifests(folder: Path, split: str) -> tuple[Work, list[dict]]:
    """What `unpack` yields, and quarantine rows for supervisions without a recording or with a used id."""
    recordings_path, supervisions_path = manifest_paths(folder, split)
    work = {row["id"]: (marshal.dumps(row), []) for row in typed_rows(recordings_path, Recording)}
    bad, seen = [], set()
    for row in typed_rows(supervisions_path, SupervisionSegment):
        if fault := link_fault(row, seen, work):
            bad.append({"id": row["id"], "reason": fault[0], "detail": fault[1]})
        else:
            work[row["recording_id"]][1].append(marshal.dumps(row))
        seen.add(row["id"])
    bad += [{"id": i, "reason": "no text", "detail": "no supervision"} for i, item in work.items() if not item[1]]
    with_text = [item for item in work.values() if item[1]]
    if not with_text:
        raise UserError(f"{supervisions_path} has no utterance that has a recording: run {MADE_BY} again.")
    return with_text, bad


def unpack(work: Work) -> Iterator[tuple[dict, list[dict]]]:
    """(recording, its supervisions), as in the manifests."""
    for recording, supervisions in work:
        yield marshal.loads(recording), [marshal.loads(row) for row in supervisions]


def link_fault(row: dict, seen: Container[str], recordings: Container[str]) -> Fault | None:
    """What is wrong with a supervision's ids, given those before it and those of the recordings."""
    if row["id"] in seen:
        return "duplicate id", "an earlier supervision has it"
    if row["recording_id"] not in recordings:
        return "missing file", f"there is no recording {row['recording_id']}"
    return None


def typed_rows(path: Path, kind: type) -> Iterator[dict]:
    """The rows of a manifest, each checked to be a Lhotse object; `UserError` with the line number otherwise."""
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            kind.from_dict(marshal.loads(marshal.dumps(row)))  # from_dict empties what it is given
            if not isinstance(row["id"], str):
                raise TypeError("'id' is not a string")
            _check_values(row, NUMBERS[kind])
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            found = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{path}, entry {number}: not a Lhotse {kind.__name__} ({found}): run the stage that makes it again."
            ) from None
        yield row


def _check_values(row: dict, numbers: tuple[str, ...]) -> None:
    """`TypeError` for a number, text, translation, channel or path that is something else: Lhotse takes it as it is."""
    for name in numbers:
        if not isinstance(row[name], int | float):
            raise TypeError(f"'{name}' is not a number")
    for text in (row.get("text"), *((row.get("custom") or {}).get("translation") or {}).values()):
        if text is not None and not isinstance(text, str):
            raise TypeError("a text is not a string")
    if row.get("channel", 0) in (None, []):
        raise TypeError("'channel' is empty")
    if not all(isinstance(source.get("source"), str) for source in row.get("sources", ())):
        raise TypeError("a 'source' is not a path")
