"""Features that a frozen encoder makes in stage 2: what it gives for each utterance alone, at its frame rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, validate

from steps.decode import stored_encoder_seconds
from steps.nets.encoders import build_encoder, pretrained_config
from steps.prepare.audio import compute_features
from steps.prepare.config import FeatureConfig
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import DataConfig, make_loader
from steps.prepare.encoder_features import encoder_extractor
from steps.prepare.features import main
from steps.prepare.usable import cut_samples
from tests.steps.tiny_models import make_speech_model
from utils.checkpoint import save_checkpoint
from utils.errors import UserError
from utils.files import read_json, read_jsonl
from utils.options import load_config


@pytest.fixture(scope="module")
def models(tiny_whisper, tmp_path_factory) -> dict[str, Path]:
    """The folders of a tiny Whisper and of a tiny wav2vec2."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    make_speech_model(folder, "wav2vec2")
    return {"whisper": tiny_whisper[0], "wav2vec2": folder}


def section(models, name: str, **more) -> str:
    values = {"name": name, "path": str(models[name]), **more}
    return f"encoder={{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def prepare(world, out: Path, *overrides: str) -> Path:
    """The folder that stage 2 writes."""
    options = ["--manifests", str(world.root / "manifests"), "--out", str(out), "--splits", "test"]
    assert main([*options, "type=encoder", *overrides]) == 0
    return out


KINDS = [
    ("whisper", {}),
    ("whisper", {"layer": 1, "downsample": 3}),
    ("wav2vec2", {"downsample": 2}),
    ("wav2vec2", {"layer": "all"}),
]


@pytest.mark.parametrize(("name", "more"), KINDS)
def test_stored_is_what_the_encoder_gives(world, models, tmp_path, name, more):
    data = prepare(world, tmp_path, section(models, name, **more), "speed_perturb=[0.9]", "train_splits=[test]")
    config = load_config(data / "features.yaml", FeatureConfig)
    layers = [1, 2] if more.get("layer") == "all" else [more.get("layer")]
    dim = 16 * len(layers)
    shift = 0.02 * more.get("downsample", 1)
    assert config.frame_shift == pytest.approx(shift) and config.feature_dim == dim
    options = {"path": str(models[name]), "downsample": more.get("downsample", 1)}
    encoder = build_encoder(pretrained_config(name, **options), 8 if name == "whisper" else 160).eval()
    encoder.load_pretrained()
    inputs = FeatureConfig(type="whisper" if name == "whisper" else "waveform", num_mel_bins=8)
    cuts = Cuts.load(data / "test" / "cuts.jsonl.gz")
    validate(CutSet.from_file(data / "test" / "cuts.jsonl.gz"))
    assert len(cuts) == 18
    for cut, frames in zip(cuts, cuts.num_frames, strict=True):
        stored, samples = cut.load_features(), cut_samples(cut)
        assert stored.shape == (frames, dim) and frames == round(cut.duration / shift + 1e-6) == cut.num_frames
        features = torch.from_numpy(compute_features(samples, inputs))
        with torch.no_grad():
            encoded = encoder(features[None], torch.tensor([len(features)]), [1, 2])
        expected = np.concatenate([encoded.at(layer)[0].numpy() for layer in layers], axis=1)
        shared = min(len(stored), len(expected))
        assert abs(len(stored) - len(expected)) <= 1
        np.testing.assert_allclose(stored[:shared], expected[:shared], atol=0.03)  # lilcom's steps of 1/32
        # what transcription computes is what was stored
        np.testing.assert_allclose(compute_features(samples, config), stored, atol=0.03)


def test_an_encoder_that_was_trained_here(world, models, tmp_path):
    """Features of the checkpoint's encoder; another checkpoint is another encoder."""
    encoder = build_encoder(pretrained_config("whisper", path=str(models["whisper"])), 8).eval()
    encoder.load_pretrained()
    with torch.no_grad():
        encoder.conv1.weight *= 1.5
    checkpoint, spec = tmp_path / "averaged.pt", ("type=encoder", section(models, "whisper"))
    save_checkpoint(checkpoint, {"model": {f"encoder.{name}": value for name, value in encoder.state_dict().items()}})
    data = prepare(world, tmp_path / "tuned", *spec, f"encoder.init={checkpoint}")
    cut = next(iter(Cuts.load(data / "test" / "cuts.jsonl.gz")))
    features = compute_features(cut_samples(cut), FeatureConfig(type="whisper", num_mel_bins=8))
    with torch.no_grad():
        expected = encoder(torch.from_numpy(features)[None], torch.tensor([len(features)]), []).at(None)[0].numpy()
    stored = cut.load_features()
    np.testing.assert_allclose(stored, expected[: len(stored)], atol=0.03)
    plain = prepare(world, tmp_path / "plain", *spec)
    untouched = next(iter(Cuts.load(plain / "test" / "cuts.jsonl.gz"))).load_features()
    assert np.abs(stored - untouched).max() > 0.2
    with torch.no_grad():
        encoder.conv1.weight *= 0.0
    save_checkpoint(checkpoint, {"model": {f"encoder.{name}": value for name, value in encoder.state_dict().items()}})
    encoder_extractor.cache_clear()
    prepare(world, tmp_path / "tuned", *spec, f"encoder.init={checkpoint}")
    again = next(iter(Cuts.load(data / "test" / "cuts.jsonl.gz"))).load_features()
    assert np.abs(stored - again).max() > 0.2


def test_the_same_again_is_not_done_again(world, models, tmp_path, capsys):
    encoder = section(models, "whisper")
    data = prepare(world, tmp_path, encoder)
    first = (data / "test" / "cuts.jsonl.gz").stat().st_mtime_ns
    prepare(world, tmp_path, encoder, "--jobs", "2")
    assert (data / "test" / "cuts.jsonl.gz").stat().st_mtime_ns == first and "done before" in capsys.readouterr().out
    prepare(world, tmp_path, section(models, "whisper", downsample=2), "--jobs", "2")
    assert Cuts.load(data / "test" / "cuts.jsonl.gz").config.frame_shift == pytest.approx(0.04)
    capsys.readouterr()
    (models["whisper"] / "model.safetensors").touch()  # another encoder, for all that is known
    prepare(world, tmp_path, section(models, "whisper", downsample=2))
    assert "done before" not in capsys.readouterr().out


def test_decoding_counts_what_the_encoder_took_in_stage_2(world, models, tmp_path):
    cuts = Cuts.load(prepare(world, tmp_path, section(models, "whisper")) / "test" / "cuts.jsonl.gz")
    spent = read_json(tmp_path / "test" / "features.json")["process_seconds"]
    assert spent > 0
    assert stored_encoder_seconds(cuts) == pytest.approx(spent / cuts.durations.sum(), rel=0.02)
    assert stored_encoder_seconds(Cuts.load(world.cuts)) == 0  # the encoder is the model's own


def test_too_long_for_the_encoder_is_for_the_quarantine(world, models, tmp_path):
    slow = ("speed_perturb=[0.5]", "train_splits=[test]", "max_bad=1")
    folder = prepare(world, tmp_path, section(models, "whisper"), *slow) / "test"
    bad = list(read_jsonl(folder / "quarantine.jsonl"))
    assert {row["reason"] for row in bad} == {"too long"}
    assert "is longer than the 3 s that Whisper takes: leave it out or cut it" in bad[0]["detail"]
    kept = Cuts.load(folder / "cuts.jsonl.gz")
    assert 0 < len(kept) == 2 * (9 - len(bad)) and kept.durations.max() <= 3.01


def test_batches_are_of_stored_features(world, models, tmp_path):
    cuts = Cuts.load(prepare(world, tmp_path, section(models, "whisper")) / "test" / "cuts.jsonl.gz")
    (batch,) = make_loader(cuts, {}, DataConfig(max_duration=100.0), train=False)
    assert batch.features.shape == (9, int(cuts.num_frames.max()), 16)
    with pytest.raises(UserError, match=r"data.on_the_fly: these features come from a pretrained encoder, once, in st"):
        make_loader(cuts, {}, DataConfig(on_the_fly=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["type=encoder"], "type: encoder and the section 'encoder' belong together: set both or neither"),
        (["encoder={name: whisper, path: x}"], "type: encoder and the section 'encoder' belong together"),
        (["type=encoder", "encoder={name: whispr, path: x}"], r"encoder.name.* = 'whispr'"),
        (["type=encoder", "encoder={name: whisper, path: /nowhere}"], "encoder.path: /nowhere is no folder"),
        (["type=encoder", "whisper", "storage=on_the_fly"], "type: encoder computes features once, for storage: disk"),
        (["type=encoder", "whisper", "sampling_rate=8000"], "type encoder is made of 16000 samples a second, not 8000"),
        (["type=encoder", "whisper", "encoder.layer=3"], r"encoder.layer is 3, .* has 2 layers: give one of these"),
        (
            ["type=encoder", "whisper", "encoder.init=exp/no.pt"],
            r"exp/no.pt does not exist: run stage 5 \(training\) f",
        ),
        (["type=encoder", "whisper", "encoder.name=hubert"], "holds a model of type 'whisper', not 'hubert'"),
    ],
)
def test_mistakes_are_one_sentence(world, models, tmp_path, overrides, message):
    options = ["--manifests", str(world.root / "manifests"), "--out", str(tmp_path), "--splits", "test"]
    overrides = [section(models, "whisper") if word == "whisper" else word for word in overrides]
    with pytest.raises(UserError, match=message):
        main([*options, *overrides])
    assert not (tmp_path / "features.yaml").exists()


def test_features_yaml_of_other_hands(tmp_path):
    config = FeatureConfig(type="encoder", encoder={"name": "whisper", "path": "x/y"})
    with pytest.raises(UserError, match=r"features.yaml lacks encoder.dim, which stage 2 adds: run it again"):
        _ = config.feature_dim
