"""Miniature corpora: a few seconds of made-up audio with Lhotse manifests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from utils.files import read_jsonl, write_jsonl

torch.set_num_threads(1)


def sound(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """A voice-like noise (time,) float32: low-passed, swelling and falling."""
    rng = np.random.default_rng(seed)
    samples = np.convolve(rng.normal(size=int(seconds * rate)), np.ones(8) / 8, mode="same")
    return (0.3 * samples * (1 + np.sin(np.arange(len(samples)) / 2000))).astype(np.float32)


class Corpus:
    """A folder with audio and manifests that a test adds utterances to."""

    def __init__(self, root: Path) -> None:
        self.root, self.audio, self.manifests = root, root / "audio", root / "manifests"
        self.audio.mkdir(parents=True)
        self.manifests.mkdir()

    def recording(self, name: str, seconds: float = 1.0, rate: int = 16000, seed: int = 0) -> Recording:
        path = self.audio / f"{name}.wav"
        soundfile.write(path, sound(seconds, rate, seed), rate)
        return Recording.from_file(path, recording_id=name)

    @staticmethod
    def supervision(recording: Recording, text: str = "good morning", **more) -> SupervisionSegment:
        values = {"start": 0.0, "duration": recording.duration, "language": "en", "speaker": "a", **more}
        values.setdefault("custom", {"translation": {"fr": "bonjour"}, "prompt": recording.id})
        return SupervisionSegment(id=recording.id, recording_id=recording.id, text=text, channel=0, **values)

    def write(self, split: str, recordings: list[Recording], supervisions: list[SupervisionSegment]) -> None:
        RecordingSet.from_recordings(recordings).to_file(self.manifests / f"{split}_recordings.jsonl.gz")
        SupervisionSet.from_segments(supervisions).to_file(self.manifests / f"{split}_supervisions.jsonl.gz")

    def add_split(self, split: str, count: int, low: float = 0.5, high: float = 2.0) -> None:
        seconds = np.random.default_rng(count).uniform(low, high, count)
        recordings = [self.recording(f"{split}-{i:03d}", round(s, 2), seed=i) for i, s in enumerate(seconds)]
        texts = ["good morning", "no", "yes please", "hello"]
        self.write(split, recordings, [self.supervision(r, texts[i % 4]) for i, r in enumerate(recordings)])


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    return Corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A data folder: train (24 utterances and 0.9 and 1.1 times as fast), dev (6)."""
    from steps.prepare.features import main

    root = tmp_path_factory.mktemp("prepared")
    corpus = Corpus(root / "corpus")
    corpus.add_split("train", 24)
    corpus.add_split("dev", 6)
    options = ["--manifests", str(corpus.manifests), "--out", str(root / "data"), "--splits", "train", "dev"]
    assert main([*options, "--chunk-size", "10", "speed_perturb=[0.9, 1.1]"]) == 0
    return root / "data"


def edit(path: Path, change) -> None:
    """Rewrite a JSON-lines file: `change` takes the list of its rows, and changes it or returns another."""
    rows = list(read_jsonl(path))
    write_jsonl(path, change(rows) or rows)


@pytest.fixture
def validate(capsys):
    """Runs the checks in this process: (arguments) -> (exit status, lines of stderr, stdout)."""
    from steps.prepare.validate import main

    def call(*arguments) -> tuple[int, list[str], str]:
        status = main([*map(str, arguments), "--jobs", "1"])
        captured = capsys.readouterr()
        return status, captured.err.splitlines(), captured.out

    return call
