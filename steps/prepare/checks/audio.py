"""Audio files against what manifests say of them: their headers, or all that is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lhotse import Recording

from steps.prepare.checks.faults import Faults, Kind
from steps.prepare.usable import Fault, Rejected, audio_fault, read_declared, single_file

T = TypeVar("T")
BLOCK = 1000  # rows in memory
AGAIN = "make the manifests again (stage 1), after fetching what was cut off"
KINDS = {
    "wrong rate": Kind("recordings", "have audio of another sampling rate than they say", AGAIN),
    "truncated": Kind("recordings", "have audio that is shorter than they say", AGAIN),
    "corrupt": Kind("recordings", "have audio that cannot be read or is not what they say", AGAIN),
    "empty": Kind("recordings", "have audio without samples", AGAIN),
}


def in_threads(function: Callable[[T], Fault | None], rows: Iterable[T], jobs: int) -> Iterator[tuple[T, Fault]]:
    """The rows of which `function` finds a fault, in order; decoders and disks work beside each other."""
    rows = iter(rows)
    with ThreadPoolExecutor(jobs) as pool:
        while block := list(islice(rows, BLOCK)):
            for row, fault in zip(block, pool.map(function, block), strict=True):
                if fault:
                    yield row, fault


def check_audio(rows: Iterable[dict], where: Path, faults: Faults, full: bool, jobs: int) -> None:
    """Rate, length and channels of recordings by their files' headers; with `full` all of them are decoded."""
    for row, (reason, detail) in in_threads(decoded_fault if full else header_fault, rows, jobs):
        faults.add(where, KINDS[reason], row["id"], detail)


def header_fault(row: dict) -> Fault | None:
    """What a file's header says else than the manifest; None also where libsndfile does not know the format."""
    import soundfile

    recording = Recording.from_dict(row)
    path = single_file(recording)
    if path is None or recording.transforms:
        return None
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError:
        return None  # FFmpeg may read it: --full tells
    if info.channels < len(recording.sources[0].channels):
        return "corrupt", f"{path} has {info.channels} channels"
    return audio_fault(path, info.samplerate, info.frames, recording)


def decoded_fault(row: dict) -> Fault | None:
    """What is wrong with a recording's samples."""
    recording = Recording.from_dict(row)
    try:
        samples = read_declared(recording)
    except Rejected as problem:
        return problem.reason, problem.detail
    if samples.shape[0] < recording.num_channels:
        return "corrupt", f"{samples.shape[0]} channels, {recording.num_channels} in the manifest"
    return None
