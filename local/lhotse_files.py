"""Lhotse's manifests by their names: recordings with supervisions, or cuts, of one split or of several.

`<split>_recordings.jsonl.gz` with `<split>_supervisions.jsonl.gz` (ours), `<prefix>_recordings_<split>.jsonl.gz` (what
Lhotse's and icefall's recipes write), `<prefix>_cuts_<split>.jsonl.gz`, `cuts.jsonl.gz`.

A recording that is one file is measured again: manifests from elsewhere may have a rate that somebody guessed or a
length that was rounded (see `local/kaldi_dir.py`). Others (several files, changes of speed) are taken as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.corpus import Unusable
from local.pipes import audio_file
from local.rows import Given, Row, Rows, find_file, put
from utils.errors import UserError
from utils.files import read_jsonl

if TYPE_CHECKING:
    from lhotse import Recording, SupervisionSegment

KINDS = ("recordings", "supervisions", "cuts")
NAME = re.compile(r"(?:(.*?)[-_])?(recordings|supervisions|cuts)(?:[-_](.*))?\.jsonl(\.gz)?")


def find_manifests(folder: Path) -> dict[str, dict[str, Path]]:
    """{split: {"recordings": file, "supervisions": file} or {"cuts": file}} of a folder, by the files' names.

    What stands behind "recordings", "supervisions" or "cuts" is the split, or else what stands before it.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.jsonl*")):
        if match := NAME.fullmatch(path.name):
            before, kind, behind, _ = match.groups()
            files = found.setdefault(behind or before or "", {})
            if kind in files:
                raise UserError(
                    f"{folder} has {files[kind].name} and {path.name}: which is meant? Move one of them away."
                )
            files[kind] = path
    return {split: _complete(folder, files) for split, files in found.items()}


def _complete(folder: Path, files: dict[str, Path]) -> dict[str, Path]:
    if "cuts" in files:
        return {"cuts": files["cuts"]}
    for kind, other in (KINDS[:2], KINDS[1::-1]):
        if other not in files:
            raise UserError(f"{folder} has {files[kind].name} but not its {other}: add them, or give cuts.")
    return files


def read_manifests(files: dict[str, Path], given: Given) -> Rows:
    """Rows of one split's manifests by supervision; `UserError` for what is no manifest, or not of recordings."""
    rows: Rows = {}
    pairs = _in_cuts(files["cuts"]) if "cuts" in files else _in_pairs(files)
    for recording, spoken in pairs:
        path = files.get("cuts") or files["supervisions"]
        try:
            row = _row(recording, spoken, path.parent, given)
        except Unusable as error:
            row = error
        put(rows, spoken.id, row, str(path))
    return rows


def _items(path: Path, kind: Any) -> Iterator:
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            item = kind(json.loads(json.dumps(row)))
            for part in (item, *getattr(item, "supervisions", ())):  # of a cut
                _check(part)
            yield item
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise UserError(
                f"{path}, entry {number}: not Lhotse's ({type(error).__name__}: {error}): write it with its to_file()."
            ) from None


def _check(item: Any) -> None:
    """`TypeError` for a text or a number that is something else, which Lhotse takes as it is."""
    custom = getattr(item, "custom", None) or {}
    translation = custom.get("translation") or custom.get("translated_text") or {}
    said = translation.values() if isinstance(translation, dict) else [translation]
    texts = [getattr(item, name, None) for name in ("text", "language")]
    if not all(isinstance(text, str) for text in (getattr(item, "id", ""), *filter(None, (*texts, *said)))):
        raise TypeError("an id or a text is not a string")
    if not all(isinstance(getattr(item, name, 0), int | float) for name in ("start", "duration")):
        raise TypeError("'start' or 'duration' is not a number")


def _in_pairs(files: dict[str, Path]) -> Iterator[tuple[Recording | Unusable, SupervisionSegment]]:
    """(recording, supervision) of a pair of manifests; a recording without supervisions is of no use and not missed."""
    from lhotse import Recording, SupervisionSegment

    recordings: dict[str, Recording | Unusable] = {}
    for recording in _items(files["recordings"], Recording.from_dict):
        if recordings.setdefault(recording.id, recording) != recording:
            wrong = f"{files['recordings']}: the id '{recording.id}' is there more than once."
            recordings[recording.id] = Unusable("duplicate id", wrong)
    for spoken in _items(files["supervisions"], SupervisionSegment.from_dict):
        lacking = Unusable("no audio", f"{files['recordings']} lacks '{spoken.recording_id}'.")
        yield recordings.get(spoken.recording_id, lacking), spoken


def _in_cuts(path: Path) -> Iterator[tuple[Recording, SupervisionSegment]]:
    """(recording, supervision) of what is said in cuts, its times from the recording's beginning, cut to the cut's."""
    from lhotse.serialization import deserialize_item
    from lhotse.utils import fastcopy

    for cut in _items(path, deserialize_item):
        recording = getattr(cut, "recording", None)
        if recording is None:
            raise UserError(
                f"{path}: {getattr(cut, 'id', 'an entry')} is not a part of one recording (but mixed, padding, "
                "features or no cut at all): give the cuts as they were before."
            )
        for spoken in cut.supervisions:
            inside = spoken.trim(cut.duration)
            yield recording, fastcopy(inside, start=cut.start + inside.start, recording_id=recording.id)


def _row(recording: Recording | Unusable, spoken: SupervisionSegment, folder: Path, given: Given) -> Row:
    if isinstance(recording, Unusable):
        raise recording
    custom = spoken.custom or {}
    translation = custom.get("translation") or custom.get("translated_text") or {}  # ours; Lhotse's iwslt22_ta
    if isinstance(translation, str):
        translation = {given.target: translation} if given.target else {}
    channel = spoken.channel if isinstance(spoken.channel, int) else (spoken.channel or [-1])[0]
    whole = spoken.start == 0 and abs(spoken.duration - recording.duration) < 0.001
    return Row(
        spoken.id,
        _audio(recording, folder, given),
        recording.id,
        spoken.text or "",
        {language: text for language, text in translation.items() if text},
        spoken.speaker,
        spoken.language,
        spoken.start,
        None if whole else round(spoken.start + spoken.duration, 8),
        channel,
    )


def _audio(recording: Recording, folder: Path, given: Given) -> Path | Recording:
    """The one file that the recording is, or the recording."""
    kinds, where = {source.type for source in recording.sources}, f"{folder}: the recording '{recording.id}'"
    if kinds == {"file"} and len(recording.sources) == 1 and not recording.transforms:
        return find_file(recording.sources[0].source, given.base, folder)
    if "command" in kinds:
        if len(recording.sources) > 1 or recording.transforms:
            raise UserError(f"{where} is made by commands and more: write it as a file, and name that.")
        return audio_file(f"{recording.sources[0].source}|", recording.id, where, folder, given)
    if "url" in kinds:
        raise UserError(f"{where} is at {recording.sources[0].source}: fetch it, and name the file.")
    for source in recording.sources:
        if source.type == "file":
            source.source = str(find_file(source.source, given.base, folder).resolve())
    return recording
