"""wav2vec 2.0, HuBERT and WavLM give what transformers' models give for each utterance alone, in any batch."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from steps.nets.encoders import Wav2Vec2Config, build_encoder
from steps.nets.model import Model, ModelConfig
from steps.prepare.audio import compute_features
from steps.prepare.config import FeatureConfig
from tests.steps.tiny_models import assert_gradients_of_formula, make_speech_model
from utils.errors import UserError
from utils.options import check_config

# name, norm of the front end, norm before (large models) or behind (base models) what it is for, normalised samples
KINDS = [
    ("wav2vec2", "layer", True, True),
    ("wav2vec2", "group", False, True),
    ("hubert", "layer", True, True),
    ("hubert", "group", False, False),
    ("wavlm", "layer", True, True),
    ("wavlm", "group", False, False),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(folder, transformers' model) by kind, made when asked for."""
    root, made = tmp_path_factory.mktemp("speech_models"), {}

    def get(kind):
        if kind not in made:
            folder = root / "-".join(map(str, kind))
            made[kind] = folder, make_speech_model(folder, *kind)
        return made[kind]

    return get


def make_encoder(folder, name, **options):
    encoder = build_encoder(Wav2Vec2Config(name=name, path=str(folder), **options), 160).eval()
    encoder.load_pretrained()
    return encoder


def waves(world, *seconds: float) -> list[np.ndarray]:
    return [world.speech(length, seed) for seed, length in enumerate(seconds)]


def padded(samples: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of several utterances, with junk for padding, and their lengths."""
    rows = [torch.from_numpy(compute_features(row, FeatureConfig(type="waveform"))) for row in samples]
    lens = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-23.0), lens


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_each_utterance_is_as_transformers_alone(models, world, kind):
    from transformers import Wav2Vec2FeatureExtractor

    folder, theirs = models(kind)
    samples = waves(world, 1.0, 0.4, 2.13)
    prepare = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    together = make_encoder(folder, kind[0])(*padded(samples), [1, 2])
    for row, wave in enumerate(samples):
        inputs = prepare(wave, sampling_rate=16000, return_tensors="pt").input_values
        expected = theirs(inputs, output_hidden_states=True)
        frames = int(together.lens[row])
        assert frames == expected.last_hidden_state.shape[1]
        torch.testing.assert_close(together.out[row, :frames], expected.last_hidden_state[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.at(1)[row, :frames], expected.hidden_states[1][0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"mix": True, "downsample": 2}])
def test_an_utterance_gives_the_same_in_any_batch(models, world, kind, options):
    encoder = make_encoder(models(kind)[0], kind[0], **options)
    if options:
        torch.nn.init.normal_(encoder.stack.proj.weight)
    features, lens = padded(waves(world, 0.77, 1.5, 0.03, 0.03))
    lens[3] = 1  # less than a frame out
    together = encoder(features, lens, [1])
    assert together.lens.tolist() == encoder.output_lens(lens).tolist() and together.lens[3] == 0
    assert torch.isfinite(together.out).all()
    for row, length in enumerate(lens.tolist()[:3]):
        alone = encoder(features[row : row + 1, :length], lens[row : row + 1], [1])
        frames = int(alone.lens[0])
        assert frames == together.lens[row] > 0
        torch.testing.assert_close(together.out[row, :frames], alone.out[0, :frames], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.at(1)[row, :frames], alone.at(1)[0, :frames], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_bfloat16(models, world, kind):
    encoder = make_encoder(models(kind)[0], kind[0], dropout=0.1)
    exact = encoder(*padded(waves(world, 0.5, 0.9))).out.detach()
    encoder.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = encoder(*padded(waves(world, 0.5, 0.9))).out
    out.float().square().mean().backward()
    missing = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert missing == set() and torch.isfinite(out).all()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder.eval()(*padded(waves(world, 0.5, 0.9))).out
    assert torch.nn.functional.cosine_similarity(found.float(), exact, dim=-1)[0, :20].min() > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_front_end_as_they_are(models, world, monkeypatch, kind):
    encoder = make_encoder(models(kind)[0], kind[0])
    assert_gradients_of_formula(encoder, padded(waves(world, 0.5, 0.9)), monkeypatch)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[5]])
def test_parts_are_frozen_or_adapted(models, world, kind):
    folder, _ = models(kind)
    values = {
        "encoder": {"name": kind[0], "path": str(folder)},
        "heads": {"ctc": {"lang": "x"}},
        "feature_dim": 160,
        "freeze": ["encoder.feature_extractor"],
    }
    model = Model(check_config(values, ModelConfig, "conf"), {"ctc": 5})
    model.load_pretrained({})
    model.heads["ctc"].log_probs(model.encode(*padded(waves(world, 0.4))).out).sum().backward()
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    assert frozen and all(name.startswith("encoder.feature_extractor.conv_layers.") for name in frozen)
    # as only a part of the encoder is frozen, the whole is saved; weight norm is no part of it
    assert model.state_dict().keys() == model.full_state().keys()
    assert model.encoder.pos_conv_embed.conv.weight.requires_grad and not any("_g" in n for n in model.state_dict())
    lora = {"rank": 2, "targets": ["intermediate_dense"]}
    adapted = make_encoder(folder, kind[0], lora=lora)
    assert {n.split(".")[-4] for n, p in adapted.named_parameters() if p.requires_grad} == {"intermediate_dense"}
    plain = make_encoder(folder, kind[0])
    with torch.no_grad():  # adapters begin as nothing
        features = padded(waves(world, 0.4))
        torch.testing.assert_close(adapted(*features).out, plain(*features).out)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hubert", {}, r"holds a model of type 'wavlm', not 'hubert': give another 'name' or 'path'"),
        (
            "wavlm",
            {"lora": {"targets": ["q_proj"]}},
            r"encoder.lora.targets: adapters of q_proj would do nothing in Wav",
        ),
        (
            "wavlm",
            {"lora": {}},
            r"encoder.lora.targets: adapters of q_proj, v_proj would do nothing in WavLM: give \[i",
        ),
        ("wavlm", {"lora": {"targets": ["fc1"]}}, r"encoder.lora.targets: no layer is called fc1: there are .*k_proj"),
    ],
)
def test_options_that_do_not_fit(models, name, options, message):
    with pytest.raises(UserError, match=message):
        make_encoder(models(KINDS[4])[0], name, **options)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", None, r"preprocessor_config.json does not exist: run the download of the whole"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, r"wants 8000 samples a second, features have 16000"),
        ("config.json", {"conv_stride": [5, 8, 7]}, r"gives a frame for 280 samples, no multiple of 160"),
        ("config.json", {"num_hidden_layers": 3}, r"no 'layers.2.* use the weights that belong to its config.json"),
        ("config.json", {"conv_pos_batch_norm": True}, r"has a batch norm, which depends on the batch"),
    ],
)
def test_folders_that_do_not_fit(models, tmp_path, file, change, message):
    shutil.copytree(models(KINDS[2])[0], tmp_path / "hubert")
    path = tmp_path / "hubert" / file
    values = json.loads(path.read_text())
    path.unlink() if change is None else path.write_text(json.dumps({**values, **change}))
    with pytest.raises(UserError, match=message):
        make_encoder(tmp_path / "hubert", "hubert")


def test_features_that_do_not_fit(models):
    with pytest.raises(
        UserError, match="wants 160 samples a frame, the features have 80 values: make them with type: w"
    ):
        build_encoder(Wav2Vec2Config(name="wav2vec2", path=str(models(KINDS[0])[0])), 80)
