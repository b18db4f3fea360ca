"""What every corpus module ends with: Lhotse manifests of its splits, the list of what was left out, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.files import write_jsonl

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from lhotse import Recording, SupervisionSegment


class Utterance(NamedTuple):
    """A recording and what is said in it."""

    recording: Recording
    supervision: SupervisionSegment


def make_recording(key: str, audio: Path, rate: int, samples: int, channels: int = 1) -> Recording:
    """A whole file of `samples` (of one channel) at `rate` Hz."""
    from lhotse import Recording
    from lhotse.audio import AudioSource

    source = AudioSource("file", list(range(channels)), str(audio))
    return Recording(key, [source], rate, samples, samples / rate, channel_ids=source.channels)


def make_utterance(
    key: str,
    recording: Recording,
    text: str,
    language: str,
    speaker: str | None,
    custom: dict[str, Any],
    start: float = 0.0,
    duration: float | None = None,
    channel: int = 0,
) -> Utterance:
    """What is said in `recording`, or in `duration` seconds of it from `start` on."""
    from lhotse import SupervisionSegment

    duration = recording.duration - start if duration is None else duration
    spoken = SupervisionSegment(key, recording.id, start, duration, channel, text, language, speaker, custom=custom)
    return Utterance(recording, spoken)


def write_manifests(out: Path, splits: Mapping[str, Sequence[Utterance]], left_out: Sequence[dict]) -> None:
    """Write `<split>_{recordings,supervisions}.jsonl.gz` of every split and `left_out.jsonl` (id, reason, detail).

    A recording with several utterances is written once.
    """
    for split, utterances in splits.items():
        recordings = {item.recording.id: item.recording for item in utterances}
        write_jsonl(out / f"{split}_recordings.jsonl.gz", (item.to_dict() for item in recordings.values()))
        write_jsonl(out / f"{split}_supervisions.jsonl.gz", (item.supervision.to_dict() for item in utterances))
    write_jsonl(out / "left_out.jsonl", left_out)


def count_by(supervisions: Sequence[SupervisionSegment], key: Callable[[Any], str]) -> dict[str, dict]:
    """Utterances, minutes and words for each value of `key`, in alphabetical order, and for "all"."""
    names = [*sorted({key(item) for item in supervisions}), "all"]
    return {name: count_utterances([item for item in supervisions if name in ("all", key(item))]) for name in names}


def count_utterances(supervisions: Sequence[SupervisionSegment]) -> dict[str, float]:
    """How many utterances, minutes and words these are."""
    return {
        "utterances": len(supervisions),
        "minutes": round(sum(item.duration for item in supervisions) / 60, 2),
        "words": sum(len((item.text or "").split()) for item in supervisions),
    }


def spread_of_seconds(supervisions: Sequence[SupervisionSegment]) -> dict[str, float]:
    """Percentiles of the durations: {"p5": 1.2, ..., "p100": 9.8}, in seconds."""
    import numpy as np

    durations = [item.duration for item in supervisions] or [0.0]
    return {f"p{p}": round(float(np.percentile(durations, p)), 2) for p in (5, 25, 50, 75, 95, 100)}


def print_counts(column: str, splits: Mapping[str, Mapping[str, dict]]) -> None:
    """The rows that `count_by` made of each split as a table; `column` says what they are by."""
    width = max(len(name) for rows in splits.values() for name in (column, *rows))
    first = max(len(name) for name in ("split", *splits))
    print(f"{'split':{first}} {column:{width}} {'utterances':>10} {'minutes':>8} {'words':>7}")
    for split, rows in splits.items():
        for name, row in rows.items():
            print(f"{split:{first}} {name:{width}} {row['utterances']:10} {row['minutes']:8.1f} {row['words']:7}")
