"""A few seconds of made-up speech in three languages, prepared, and an untrained model folder with two heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

TEXTS = {
    "en": ["good morning", "no thank you", "yes"],
    "fr": ["bonjour à tous", "non merci", "oui"],
    "it": ["buongiorno", "no grazie", "sì"],
}
HEADS = {
    "ctc": {"target": "text", "lang": "unused"},
    "speech": {"name": "transducer", "target": "translation.en", "lang": "unused", "decoder_dim": 16, "joiner_dim": 16},
}
ENCODER = {
    "name": "zipformer",
    "downsampling_factor": [1, 2],
    "encoder_dim": [16, 24],
    "encoder_unmasked_dim": [16, 16],
    "num_encoder_layers": [1, 1],
    "num_heads": [2, 2],
    "feedforward_dim": [32, 32],
    "cnn_module_kernel": [15, 15],
}


def speech(seconds: float, seed: int) -> np.ndarray:
    """Something that changes as speech does, (time,) at 16 kHz: tones and noise with pauses."""
    rng = np.random.default_rng(seed)
    parts, total = [], int(16000 * seconds)
    while sum(map(len, parts)) < total:
        time = np.arange(int(rng.uniform(1000, 4000)))
        tone = np.sin(time * rng.uniform(0.02, 1.0)) + rng.normal(size=len(time)) * rng.uniform(0, 1)
        parts.append(tone * rng.choice([0.002, 0.1, 0.3]))
    return np.concatenate(parts)[:total].astype(np.float32)


@dataclass
class World:
    """Where things are: `cuts` of nine utterances (one has no translation), `audio` (their files), `model`."""

    root: Path
    cuts: Path
    audio: Path
    model: Path
    texts = TEXTS
    speech = staticmethod(speech)


def _write_manifests(root: Path) -> Path:
    audio, manifests = root / "audio", root / "manifests"
    audio.mkdir()
    manifests.mkdir()
    recordings, supervisions = [], []
    for i, (language, number) in enumerate((language, number) for number in range(3) for language in TEXTS):
        name = f"{language}-{number}"
        soundfile.write(audio / f"{name}.wav", speech(0.4 + 0.25 * (i * 4 % 9), i), 16000)
        recording = Recording.from_file(audio / f"{name}.wav", recording_id=name)
        translation = {other: TEXTS[other][number] for other in TEXTS if other != language and name != "it-2"}
        common = {"channel": 0, "language": language, "speaker": language, "custom": {"translation": translation}}
        text = TEXTS[language][number]
        recordings.append(recording)
        supervisions.append(SupervisionSegment(name, name, 0.0, recording.duration, text=text, **common))
    RecordingSet.from_recordings(recordings).to_file(manifests / "test_recordings.jsonl.gz")
    SupervisionSet.from_segments(supervisions).to_file(manifests / "test_supervisions.jsonl.gz")
    return manifests


def _write_lang(folder: Path) -> None:
    characters = sorted(set("".join(text for texts in TEXTS.values() for text in texts)) - {" "})
    tokens = ["<blk>", "<sos/eos>", "<unk>", "▁", *characters]
    folder.mkdir(parents=True)
    (folder / "tokens.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), "utf-8")
    (folder / "lang.json").write_text('{"type": "char", "languages": ["en", "fr", "it"], "tags": false}', "utf-8")


def _write_model(folder: Path, features: Path) -> None:
    from steps.lang.tokenizer import Tokenizer
    from steps.nets.model import Model, ModelConfig
    from utils.checkpoint import save_checkpoint

    for head in HEADS:
        _write_lang(folder / "lang" / head)
    config = {"encoder": ENCODER, "heads": HEADS, "feature_dim": 80}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (folder / "features.yaml").write_text(features.read_text("utf-8"), "utf-8")
    torch.manual_seed(1)
    vocab = {head: Tokenizer.load(folder / "lang" / head).vocab_size for head in HEADS}
    model = Model(ModelConfig.model_validate(config), vocab)
    with torch.no_grad():  # an untrained model says the same everywhere; this one has opinions
        model.heads["ctc"].ctc_output[1].weight.mul_(20)
        model.heads["speech"].joiner.encoder_proj.weight.mul_(40)
        model.heads["speech"].joiner.output_linear.weight.mul_(20)
        model.heads["speech"].joiner.output_linear.bias[0] += 5
    save_checkpoint(folder / "averaged.pt", {"model": model.state_dict()})


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Read-only; copy what a test changes."""
    from steps.prepare.features import main

    root = tmp_path_factory.mktemp("world")
    manifests = _write_manifests(root)
    assert main(["--manifests", str(manifests), "--out", str(root / "data"), "--splits", "test"]) == 0
    _write_model(root / "exp" / "tiny", root / "data" / "features.yaml")
    return World(root, root / "data" / "test" / "cuts.jsonl.gz", root / "audio", root / "exp" / "tiny")
