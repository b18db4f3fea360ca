"""Whisper's encoder and decoder in our modules give what transformers' give, in any batch and of any length."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from steps.lang.pretrained import describe_tokens, load_backend
from steps.nets.encoders import WhisperConfig, build_encoder
from steps.nets.heads import build_head, head_config
from steps.nets.model import Model, ModelConfig
from steps.prepare.audio import WhisperFeatures
from tests.steps.tiny_models import ZIPFORMER, assert_gradients_of_formula
from utils.errors import UserError
from utils.options import check_config


def make_encoder(folder, **options):
    encoder = build_encoder(WhisperConfig(name="whisper", path=str(folder), **options), 8).eval()
    encoder.load_pretrained()
    return encoder


def random_features(*lens: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(len(lens), max(lens), 8), torch.tensor(lens)


def tokens_of(folder, texts):
    """(ids of the kept tokens, number of them)."""
    backend = load_backend(folder / "tokenizer.json")
    ids = describe_tokens(backend, texts, backend.token_to_id("<|endoftext|>"), True)[1]["ids"]
    return ids, len(ids)


@torch.no_grad()
def test_the_encoder_is_transformers(tiny_whisper):
    folder, theirs = tiny_whisper
    features, lens = random_features(300, 300)  # transformers takes no other length
    encoded = make_encoder(folder)(features, lens, [1, 2])
    expected = theirs.model.encoder(features.transpose(1, 2), output_hidden_states=True)
    torch.testing.assert_close(encoded.out, expected.last_hidden_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoded.at(1), expected.hidden_states[1], atol=1e-4, rtol=1e-4)
    assert encoded.lens.tolist() == [150, 150]
    normed = make_encoder(folder).norm(encoded.at(2))
    torch.testing.assert_close(normed, encoded.out)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"downsample": 3}, {"mix": True, "downsample": 2}, {"pad_seconds": 1.0}])
def test_an_utterance_gives_the_same_in_any_batch(tiny_whisper, options):
    encoder = make_encoder(tiny_whisper[0], **options)
    if "downsample" in options:
        torch.nn.init.normal_(encoder.stack.proj.weight)  # a mean would hide the order of frames
    features, lens = random_features(1, 30, 53, 110)
    features[torch.arange(110) >= lens[:, None]] = 99.0  # what padding holds must not matter
    together = encoder(features, lens, [1])
    assert together.lens.tolist() == encoder.output_lens(lens).tolist()
    for row, length in enumerate(lens.tolist()):
        alone = encoder(features[row : row + 1, :length], lens[row : row + 1], [1])
        frames = int(alone.lens[0])
        assert alone.out.shape[1] == frames == together.lens[row]
        torch.testing.assert_close(together.out[row, :frames], alone.out[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.at(1)[row, :frames], alone.at(1)[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("loudness", [1.0, 1e-6])
def test_silence_is_appended_as_whisper_was_trained(tiny_whisper, world, loudness):
    folder, _ = tiny_whisper
    samples = loudness * world.speech(1.3, seed=4)
    ours = torch.from_numpy(WhisperFeatures(8).extract(samples, 16000))
    padded, lens = make_encoder(folder, pad_seconds=3.0)._padded(ours[None], torch.tensor([len(ours)]))
    silent = torch.nn.functional.pad(torch.from_numpy(samples), (0, 48000 - len(samples))).numpy()
    expected = torch.from_numpy(WhisperFeatures(8).extract(silent, 16000))
    assert lens.tolist() == [300]
    away = [frame for frame in range(300) if abs(frame - 130) > 2]  # at the border there is no sound to mirror
    torch.testing.assert_close(padded[0, away], expected[away], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_decoder_is_transformers_on_the_kept_tokens(tiny_whisper):
    folder, theirs = tiny_whisper
    ids, size = tokens_of(folder, ["good morning", "oui"])
    assert size < theirs.config.vocab_size  # some are left out
    config = head_config("attention", {"lang": "x", "path": str(folder), "decoder": {"dropout": 0.2}})
    head = build_head(config, 16, size).eval()
    head.load_pretrained(ids)
    memory, lens = torch.randn(2, 150, 16), torch.tensor([150, 150])
    tokens = torch.randint(3, size, (2, 7))
    expected = theirs(encoder_outputs=(memory,), decoder_input_ids=torch.tensor(ids)[tokens]).logits
    found = head.decoder(tokens, memory, lens)
    kept = [i for i, other in enumerate(ids) if other >= 0]
    torch.testing.assert_close(found[..., kept], expected[..., [ids[i] for i in kept]], atol=1e-4, rtol=1e-4)
    assert head.positions == 40 and head.decoder.config.dropout == 0.2


def two_heads(folder, **changes):
    heads = {
        "ctc": {"lang": "x", "layer": 1},
        "attention": {"lang": "x", "path": str(folder), "prompt": "<sos/eos>"},
    }
    heads |= changes.pop("heads", {})
    values = {"encoder": {"name": "whisper", "path": str(folder)}, "heads": heads, "feature_dim": 8, **changes}
    return check_config(values, ModelConfig, "conf.yaml")


def test_heads_read_lower_layers(tiny_whisper):
    folder, _ = tiny_whisper
    model = Model(two_heads(folder), {"ctc": 9, "attention": 200}).eval()
    features, lens = random_features(40)
    encoded = model.encode(features, lens)
    assert list(encoded.layers) == [1] and not torch.equal(encoded.at(1), encoded.out)
    model.heads["ctc"].log_probs(encoded.at(1)).sum().backward()

    assert all(p.grad is None for p in model.encoder.layers[1].parameters())
    assert all(p.grad is not None for p in model.encoder.layers[0].parameters())
    with pytest.raises(UserError, match=r"heads.ctc.layer is 3, the encoder has 2 layers: give one of these\."):
        Model(two_heads(folder, heads={"ctc": {"lang": "x", "layer": 3}}), {"ctc": 9, "attention": 200})


def test_adapters_alone_are_trained(tiny_whisper):
    folder, _ = tiny_whisper
    plain = make_encoder(folder)
    encoder = make_encoder(folder, lora={"rank": 2, "targets": ["linear_q", "feed_forward.0"]}, mix=True, downsample=2)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora" not in name} == {"mix.weights", "stack.proj.weight", "stack.proj.bias"}
    assert sum("lora_A" in name for name in trained) == 4
    assert trained.isdisjoint(encoder.pretrained_names())
    x = torch.randn(1, 5, 16)  # adapters begin as nothing
    torch.testing.assert_close(encoder.layers[0](x, None)[0], plain.layers[0](x, None)[0])
    with pytest.raises(UserError, match=r"lora.targets: no layer is called q_proj: there are 0, 3, linear_k, linear_q"):
        make_encoder(folder, lora={"targets": ["q_proj"]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: make_encoder(folder / "nowhere"), r"encoder.path: .*nowhere is no folder: give the folder of"),
        (lambda folder: make_encoder(folder.parent), r"encoder.path: .* holds no config.json: give the folder of"),
        (
            lambda folder: build_encoder(WhisperConfig(name="whisper", path=str(folder)), 80),
            r"wants 8 mel bins a frame, the features have 80: make them with type: whisper, num_mel_bins: 8",
        ),
        (
            lambda folder: make_encoder(folder)(*random_features(40, 301)),
            r"An utterance of 3.0 s is longer than the 3 s that Whisper takes: leave it out or cut it",
        ),
        (
            lambda folder: Model(two_heads(folder, encoder=ZIPFORMER, feature_dim=16), {"ctc": 9, "attention": 9}),
            r"the decoder of .* reads 16 values a frame, the encoder gives 24: give its own encoder",
        ),
        (lambda folder: two_heads(folder, heads={"a": {"name": "attention", "lang": "x", "lora": {}}}), "give its"),
    ],
)
def test_what_does_not_fit_is_said(tiny_whisper, make, message):
    with pytest.raises(UserError, match=message):
        make(tiny_whisper[0])


def test_a_batch_padded_beyond_whispers_reach_is_cut(tiny_whisper):
    features, lens = random_features(290, 280)
    padded = torch.nn.functional.pad(features, (0, 0, 0, 30))
    encoder = make_encoder(tiny_whisper[0])
    torch.testing.assert_close(encoder(padded, lens).out[:, :145], encoder(features, lens).out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, r"holds a model of type 'bert', not 'whisper': give another 'name' or 'path'"),
        ({"d_model": None}, r"config.json lacks 'd_model': copy or download the model again"),
        ({"encoder_layers": 3}, r"no 'layers.2.* use the weights that belong to its config.json"),
        ({"encoder_layers": 1}, r"has 'layers.1.* for which this model has no place: give another 'path'"),
        (
            {"encoder_ffn_dim": 32},
            r"'layers.0.feed_forward.0.bias' has shape \(24,\), here it is \(32,\): give another",
        ),
    ],
)
def test_a_folder_that_contradicts_itself(tiny_whisper, tmp_path, change, message):
    shutil.copytree(tiny_whisper[0], tmp_path / "whisper")
    config = json.loads((tmp_path / "whisper" / "config.json").read_text())
    (tmp_path / "whisper" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=message):
        make_encoder(tmp_path / "whisper")


def test_gradients_reach_the_front_end_as_they_are(tiny_whisper, monkeypatch):
    """torch 1.13 has a GELU for CPUs whose gradient behind a transposition is nonsense."""
    encoder = make_encoder(tiny_whisper[0], downsample=2)
    assert_gradients_of_formula(encoder, random_features(40, 31), monkeypatch)
