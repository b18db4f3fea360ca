"""Utterances as people have them, before anything was checked: a row each, and what makes a Lhotse utterance of it.

The readers (`local/kaldi_dir.py`, `local/lhotse_files.py`, `local/tables.py`) give, for each split, a row or what is
wrong with it by the utterance's id. What they do not say (a split, a speaker, a language) is None.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from local.corpus import AudioFiles, Header, Unusable, measure
from local.manifests import Utterance, make_utterance

if TYPE_CHECKING:
    from lhotse import Recording

UNDETERMINED = "und"  # ISO 639's code for a language that nobody named
OVERSHOOT = 0.5  # seconds an utterance may end after its recording, and is cut: as Kaldi's extract-segments
LATIN = "save it as UTF-8 (for instance 'iconv -f latin1 -t utf-8 old > new')"


@dataclass(frozen=True)
class Given:
    """What the command line says of data that does not say it itself."""

    language: str | None = None  # that is spoken
    target: str | None = None  # the translation that is wanted: utterances without it are left out
    base: Path | None = None  # folder that relative audio paths start from
    columns: Mapping[str, str] = field(default_factory=dict)  # of a table: {"text": "my column"}
    keep_output: Callable[[str, str, Path], Path] | None = None  # of commands (see local/pipes.py); None: refused


@dataclass(frozen=True)
class Row:
    """One utterance: `audio` is a file or, where a recording is more than one file, Lhotse's own."""

    id: str
    audio: Path | Recording
    recording: str  # id
    text: str = ""
    translation: Mapping[str, str] = field(default_factory=dict)
    speaker: str | None = None
    language: str | None = None
    start: float = 0.0  # seconds
    end: float | None = None  # None: the recording's end
    channel: int | None = None  # None: the first
    split: str | None = None


Rows = dict[str, "Row | Unusable"]  # by id
Splits = dict[str, Rows]  # by name, "" where there is none


def put(rows: Rows, key: str, row: Row | Unusable, where: str) -> None:
    """Add `row`; where another row has its id, nobody knows which of them is meant, and neither is used."""
    if key in rows and rows[key] != row:
        row = Unusable("duplicate id", f"{where}: the id '{key}' is there more than once.")
    rows[key] = row


def measure_any(path: Path) -> Header:
    """`measure`, or for what libsndfile does not read (M4A, video, G.722 ...) what FFmpeg's decoders give.

    Decoded, since the headers of such files round, or count samples that decoders drop. `Unusable` if it is no audio.
    """
    try:
        return measure(path)
    except Unusable as error:
        if error.reason != "corrupt":
            raise
    import av

    rate = samples = channels = 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            for frame in container.decode(audio=0) if container.streams.audio else ():
                rate, channels = frame.sample_rate, len(frame.layout.channels)
                samples += frame.samples
    except (av.FFmpegError, IndexError):
        pass
    if not samples:
        raise Unusable("corrupt", f"{path} is not audio that libsndfile or FFmpeg reads.")
    return Header(rate, samples, channels)


class Recordings:
    """The recordings that rows name, each file measured once by `jobs` threads."""

    def __init__(self, rows: Iterable[Row], jobs: int, read: Callable[[Path], Header] = measure_any) -> None:
        self._files = AudioFiles((row.audio for row in rows if isinstance(row.audio, Path)), jobs, read=read)

    def of(self, row: Row) -> Recording:
        """The row's recording; `Unusable` where its file is none."""
        return self._files.recording(row.audio, row.recording) if isinstance(row.audio, Path) else row.audio


def to_utterance(row: Row, recording: Recording, given: Given) -> Utterance:
    """The Lhotse utterance of a row whose texts are as they shall be; `Unusable` for one that cannot be used."""
    if not row.text and not row.translation:
        raise Unusable("no text", f"'{row.id}' has neither a transcript nor a translation.")
    if given.target and not row.translation.get(given.target):
        raise Unusable("no translation", f"'{row.id}' has no translation into '{given.target}'.")
    channel = row.channel if row.channel is not None else recording.channel_ids[0]
    if channel not in recording.channel_ids:
        raise Unusable("no channel", f"'{row.id}' is in channel {channel}, {recording.id} has {recording.channel_ids}.")
    end = recording.duration if row.end is None else row.end
    # so written, NaN is none of these
    if not (0 <= row.start < end <= recording.duration + OVERSHOOT and row.start < recording.duration):
        spoken = f"'{row.id}' is said to last from {row.start:g} to {end:g} s of {recording.id}"
        raise Unusable("wrong times", f"{spoken}, which has {recording.duration:.2f} s.")
    start, end = round(row.start, 8), min(end, recording.duration)
    custom = {"translation": dict(row.translation)} if row.translation else {}
    language = row.language or given.language or UNDETERMINED
    whole = row.start == 0 and end == recording.duration
    duration = None if whole else round(end - start, 8)
    return make_utterance(row.id, recording, row.text, language, row.speaker, custom, start, duration, channel)


def seconds(text: str, what: str) -> float:
    """A number of seconds; `Unusable` for what is none."""
    try:
        if math.isfinite(number := float(text)):
            return number
    except ValueError:
        pass
    raise Unusable("wrong times", f"{what}: '{text}' is not a number of seconds.")


def channel_of(text: str, what: str) -> int | None:
    """A channel from 0, also as pandas writes it beside empty cells (1.0), None for no text; `Unusable` for others."""
    try:
        number = float(text or 0)
        if number.is_integer() and number >= 0:
            return int(number) if text else None
    except ValueError:
        pass
    raise Unusable("no channel", f"{what}: '{text}' is not the number of a channel, from 0.")


def find_file(name: str, base: Path | None, near: Path) -> Path:
    """A file that is named relatively to `base` or, if that is None, to `near` or a folder above it, as Kaldi's are."""
    path = Path(name)
    if path.is_absolute() or base:
        return (base or Path()) / path
    places = (place / path for place in (near, *near.resolve().parents[:3]))
    return next((place for place in places if os.path.exists(place)), near / path)  # Path.exists() raises some errors
