"""A few seconds of made-up speech in three languages, prepared, and an untrained model folder with two heads; decode
folders as steps.decode leaves them, and steps.score in this process."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from functools import partial
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


SENTENCES = {
    "en": ["please hold the line", "you have no new messages", "that is not a valid extension"],
    "fr": ["ne quittez pas", "vous n'avez pas de nouveau message", "ce n'est pas un poste valide"],
    "ru": ["не кладите трубку", "у вас нет новых сообщений", "это неверный добавочный номер"],
}


def worsen(text: str, rng: random.Random, rate: float) -> str:
    words = [word[::-1] if rng.random() < rate else word for word in text.split()]
    return " ".join(word for word in words if rng.random() > rate / 2)


def utterances(target: str, rng: random.Random, rate: float):
    """Rows of `hyp.jsonl`, twelve a language."""
    into = target.partition(".")[2]
    for language, lines in SENTENCES.items():
        for number, line in enumerate(lines * 4):
            reference = line if not into else SENTENCES[into][number % 3] if into != language else None
            hypothesis = worsen(reference or "ok", rng, rate)
            row = {"id": f"{language}_{number}", "language": language, "target": target, "ref": reference}
            yield {**row, "hyp": hypothesis, "score": -1.5, "tokens": [], "duration": 2.0}


@pytest.fixture
def decode_folder(tmp_path):
    """Writes `exp/<model>/decode/<split>.<head>.<method>` and returns it; `rows` and `about` replace what is usual."""

    def write(model="joint", split="test", target="text", method="greedy", rate=0.3, rows=None, about=None) -> Path:
        head = "ctc" if target == "text" else "transducer"
        folder = tmp_path / "exp" / model / "decode" / f"{split}.{head}.{method}"
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(f"{model} {split} {method}")
        rows = list(utterances(target, rng, rate)) if rows is None else rows
        record = {
            **{"model": f"exp/{model}", "head": head, "method": method, "target": target, "split": split},
            **{"options": {"beam": 4} if method != "greedy" else {}, "checkpoint": f"exp/{model}/averaged.pt"},
            **{"seconds": 2.5, "audio_seconds": 72.0, "rtf": 0.0347, "utterances": len(rows), "commit": "abc1234"},
            "peak_memory_mb": 1234,
            **{"command": f"python -m steps.decode --model exp/{model} --cuts data/{split}/cuts.jsonl.gz"},
            **{"date": f"2026-11-22 04:0{len(method) % 10}:00", "hardware": {"cpu": "Sim | 9000", "cores": 2}},
            "versions": {"torch": "1.13.1", "k2": None},
        }
        (folder / "hyp.jsonl").write_text(
            "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows),
            encoding="utf-8",
        )
        (folder / "decode.json").write_text(json.dumps({**record, **(about or {})}), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def program(monkeypatch, capsys):
    """Runs a program in this process: (module, arguments ...) -> (exit status, stdout, stderr)."""
    from utils.errors import run

    def call(module, *arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run(module.main)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


@pytest.fixture
def score(program):
    """Runs `steps.score`: (arguments ...) -> (exit status, stdout, stderr)."""
    from steps import score

    return partial(program, score)


@pytest.fixture
def train_conf(monkeypatch):
    """Runs `steps.train`: (YAML file, folder, overrides ...) -> status."""
    from steps.train import main

    def call(conf, out, *overrides) -> int:
        monkeypatch.setattr(sys, "argv", ["steps.train", str(conf), "--out", str(out), *overrides])
        return main()

    return call


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    """(folder, transformers' model) of a tiny random Whisper for the texts above (read-only)."""
    from tests.steps.tiny_models import make_whisper

    folder = tmp_path_factory.mktemp("pretrained") / "whisper"
    return folder, make_whisper(folder, [text for texts in TEXTS.values() for text in texts])
