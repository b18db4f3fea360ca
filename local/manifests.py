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


def make_utterance(
    key: str, audio: Path, rate: int, samples: int, text: str, language: str, speaker: str, custom: dict[str, Any]
) -> Utterance:
    """A mono file of `samples` at `rate` Hz, all of it one supervision; recording and supervision have the id `key`."""
    from lhotse import Recording, SupervisionSegment
    from lhotse.audio import AudioSource

    duration = samples / rate
    recording = Recording(key, [AudioSource("file", [0], str(audio))], rate, samples, duration)
    spoken = SupervisionSegment(key, key, 0.0, duration, 0, text, language, speaker, custom=custom)
    return Utterance(recording, spoken)


def write_manifests(out: Path, splits: Mapping[str, Sequence[Utterance]], left_out: Sequence[dict]) -> None:
    """Write `<split>_{recordings,supervisions}.jsonl.gz` of every split and `left_out.jsonl` (id, reason, detail)."""
    for split, utterances in splits.items():
        write_jsonl(out / f"{split}_recordings.jsonl.gz", (item.recording.to_dict() for item in utterances))
        write_jsonl(out / f"{split}_supervisions.jsonl.gz", (item.supervision.to_dict() for item in utterances))
    write_jsonl(out / "left_out.jsonl", left_out)


def count_by(supervisions: Sequence[SupervisionSegment], key: Callable[[Any], str]) -> dict[str, dict]:
    """Utterances, minutes and words for each value of `key`, in alphabetical order, and for "all"."""
    rows = {}
    for name in [*sorted({key(item) for item in supervisions}), "all"]:
        items = [item for item in supervisions if name in ("all", key(item))]
        rows[name] = {
            "utterances": len(items),
            "minutes": round(sum(item.duration for item in items) / 60, 2),
            "words": sum(len(item.text.split()) for item in items),
        }
    return rows


def spread_of_seconds(supervisions: Sequence[SupervisionSegment]) -> dict[str, float]:
    """Percentiles of the durations: {"p5": 1.2, ..., "p100": 9.8}, in seconds."""
    import numpy as np

    durations = [item.duration for item in supervisions] or [0.0]
    return {f"p{p}": round(float(np.percentile(durations, p)), 2) for p in (5, 25, 50, 75, 95, 100)}


def print_counts(column: str, splits: Mapping[str, Mapping[str, dict]]) -> None:
    """The rows that `count_by` made of each split as a table; `column` says what they are by."""
    width = max(len(name) for rows in splits.values() for name in (column, *rows))
    print(f"{'split':6} {column:{width}} {'utterances':>10} {'minutes':>8} {'words':>7}")
    for split, rows in splits.items():
        for name, row in rows.items():
            print(f"{split:6} {name:{width}} {row['utterances']:10} {row['minutes']:8.1f} {row['words']:7}")
