"""Somebody's own data in miniature: the same few dozen utterances as a Kaldi directory, Lhotse manifests and a table.

French and Spanish prompts with their English translations, by made-up speakers: WAV at 16 kHz, FLAC at 44.1 kHz, MP3,
M4A, and a telephone call at 8 kHz with a speaker in each channel. `dozen/` has twelve files in English and talks.tsv,
which the README walks through.
"""

from __future__ import annotations

import csv
import json
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from scipy.signal import resample_poly

from local.manifests import make_recording
from local.rows import measure_any
from tests.corpora.prompts import RATE, Prompt, program, read, talk

LANGUAGES = ("fr", "es")
EACH = 5  # utterances a speaker
FORMATS = {"a": ("wav", 16000), "b": ("flac", 44100), "c": ("mp3", 22050), "d": ("m4a", 32000)}
CALL = 8000  # Hz, of the two speakers e and f
DOZEN = 12


class Spoken(NamedTuple):
    """One utterance: `start` and `end` in seconds where it is a part of its file, or None."""

    id: str
    file: str  # below audio/
    speaker: str
    language: str
    text: str
    english: str
    start: float | None = None
    end: float | None = None
    channel: int = 0

    @property
    def recording(self) -> str:
        return self.id if self.start is None else Path(self.file).stem


def write(path: Path, samples: np.ndarray, rate: int) -> None:
    """`samples` (time,) or (time, channels) int16 of `rate` Hz, in the format of the file's ending."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".m4a":
        _write_aac(path, samples, rate)
    else:
        soundfile.write(path, samples, rate)


def _write_aac(path: Path, samples: np.ndarray, rate: int) -> None:
    import av

    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def at(rate: int, samples: np.ndarray) -> np.ndarray:
    """`samples` (time,) int16 of prompts at another rate."""
    common = gcd(rate, RATE)
    return np.clip(resample_poly(samples, rate // common, RATE // common), -32768, 32767).astype(np.int16)


def say(folder: Path, language: str, prompts: list[Prompt]) -> list[Spoken]:
    """Write audio of `EACH` prompts for each of six speakers of a language."""
    spoken, groups = [], [prompts[number : number + EACH] for number in range(0, 6 * EACH, EACH)]
    for (letter, (ending, rate)), group in zip(FORMATS.items(), groups[:4], strict=True):
        who = f"{language}-{letter}"
        for number, prompt in enumerate(group):
            file = f"{who}/{number}.{ending}"
            write(folder / file, at(rate, prompt.samples(language)), rate)
            spoken.append(Spoken(f"{who}-{number}", file, who, language, prompt.raw[language], prompt.raw["en"]))
    sides = [talk(group, language) for group in groups[4:]]
    length = max(len(samples) for samples, _ in sides)
    call = np.stack([np.pad(samples, (0, length - len(samples))) for samples, _ in sides], axis=1)
    file = f"call-{language}.wav"
    write(folder / file, np.stack([at(CALL, side) for side in call.T], axis=1), CALL)
    for channel, ((_, times), group) in enumerate(zip(sides, groups[4:], strict=True)):
        who = f"{language}-{'ef'[channel]}"
        for number, (prompt, (start, end)) in enumerate(zip(group, times, strict=True)):
            texts = prompt.raw[language], prompt.raw["en"]
            spoken.append(
                Spoken(f"{who}-{number}", file, who, language, *texts, round(start, 2), round(end, 2), channel)
            )
    return spoken


def write_kaldi(folder: Path, spoken: list[Spoken]) -> None:
    """A data directory with segments, sorted as Kaldi wants it, paths relative to it."""
    folder.mkdir(parents=True)
    columns = {
        "wav.scp": {item.recording: f"../audio/{item.file}" for item in spoken},
        "segments": {
            item.id: f"{item.recording} {item.start or 0} {-1 if item.end is None else item.end} {item.channel}"
            for item in spoken
        },
        "text": {item.id: item.text for item in spoken},
        "text.en": {item.id: item.english for item in spoken},
        "utt2spk": {item.id: item.speaker for item in spoken},
        "utt2lang": {item.id: item.language for item in spoken},
    }
    for name, lines in columns.items():
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in sorted(lines.items())), "utf-8")


def write_lhotse(folder: Path, spoken: list[Spoken]) -> None:
    """Manifests as Lhotse's own classes write them, in another order than the rest."""
    recordings = {}
    for item in spoken:
        path = folder.parent / "audio" / item.file
        if path.suffix == ".m4a":  # Lhotse reads it with an FFmpeg of the system's only
            recording = make_recording(item.recording, path, *measure_any(path))
        else:
            recording = Recording.from_file(path, recording_id=item.recording)
        recording.sources[0].source = f"../audio/{item.file}"
        recordings[item.recording] = recording
    segments = [
        SupervisionSegment(
            item.id,
            item.recording,
            item.start or 0.0,
            recordings[item.recording].duration if item.end is None else round(item.end - item.start, 8),
            item.channel,
            item.text,
            item.language,
            item.speaker,
            custom={"translation": {"en": item.english}},
        )
        for item in reversed(spoken)
    ]
    folder.mkdir(parents=True)
    RecordingSet.from_recordings(recordings.values()).to_file(folder / "own_recordings_all.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / "own_supervisions_all.jsonl.gz")


def rows_of(spoken: list[Spoken]) -> list[dict[str, str]]:
    """What a table says of each utterance, by column."""
    return [
        {
            "id": item.id,
            "audio": f"../audio/{item.file}",
            "recording": item.recording,
            "start": "" if item.start is None else str(item.start),
            "end": "" if item.end is None else str(item.end),
            "channel": str(item.channel),
            "speaker": item.speaker,
            "language": item.language,
            "text": item.text,
            "translation.en": item.english,
        }
        for item in spoken
    ]


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """`rows` as TSV (no quotes at all), CSV (the standard's quotes) or JSON lines, by the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".tsv":
        path.write_text(
            "".join("\t".join(row) + "\n" for row in ([*rows[0]], *(row.values() for row in rows))), "utf-8"
        )
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def write_dozen(folder: Path, prompts: list[Prompt]) -> None:
    """Twelve files and the simplest table there is."""
    rows = []
    for number, prompt in enumerate(prompts):
        rows.append(
            {"audio": f"{number:02d}.wav", "text": prompt.raw["en"], "speaker": ("ann", "bob", "eve")[number % 3]}
        )
        write(folder / rows[-1]["audio"], prompt.samples("en"), RATE)
    write_table(folder / "talks.tsv", rows)


def make(folder: Path) -> Path:
    """audio/, kaldi/, lhotse/, table/ and dozen/ below `folder`; `folder`."""
    prompts = read(("en", *LANGUAGES))
    spoken = []
    for number, language in enumerate(LANGUAGES):
        spoken += say(folder / "audio", language, prompts[number * 6 * EACH : (number + 1) * 6 * EACH])
    write_kaldi(folder / "kaldi", spoken)
    write_lhotse(folder / "lhotse", spoken)
    write_table(folder / "table" / "own.tsv", rows_of(spoken))
    write_dozen(folder / "dozen", prompts[12 * EACH : 12 * EACH + DOZEN])
    return folder


if __name__ == "__main__":
    program(make, "own")
