"""Where training begins: parts from other experiments, learning rates by part and by layer."""

from __future__ import annotations

import pytest
import torch

from steps.model_folder import fill
from steps.nets.model import Model, ModelConfig
from steps.training.initial import groups, initialise
from steps.training.optimizers import AdamWConfig, Updater
from tests.steps.tiny_models import ZIPFORMER
from utils.checkpoint import save_checkpoint
from utils.errors import UserError
from utils.options import check_config

HEADS = {"ctc": {"lang": "x"}, "fr": {"name": "ctc", "lang": "x"}}


def make(seed: int, encoder: dict | None = None, heads: dict | None = None, **more) -> Model:
    values = {"encoder": encoder or ZIPFORMER, "heads": heads or HEADS, "feature_dim": 16, **more}
    torch.manual_seed(seed)
    return Model(check_config(values, ModelConfig, "conf"), dict.fromkeys(values["heads"], 9))


def whisper(tiny_whisper, seed: int = 0, **more) -> Model:
    encoder = {"name": "whisper", "path": str(tiny_whisper[0])}
    return make(seed, encoder, {"ctc": {"lang": "x"}}, feature_dim=8, **more)


def differing(model: Model, other: Model) -> set[str]:
    """The parts (two levels) that differ."""
    one, two = model.full_state(), other.full_state()
    return {".".join(name.split(".")[:2]) for name in one if not torch.equal(one[name], two[name])}


@pytest.mark.parametrize(
    ("init", "left"),
    [
        ({"encoder": ""}, {"heads.ctc", "heads.fr"}),
        ({"all": ""}, set()),
        ({"heads.ctc": "", "encoder.encoder_embed": ""}, {"heads.fr", "encoder.encoder"}),
        ({"encoder": "", "heads.ctc": "", "heads.fr": ":heads.ctc"}, {"heads.fr"}),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_parts_begin_from_another_experiment(tmp_path, init, left, folder):
    other, model = make(1), make(2)
    save_checkpoint(tmp_path / "averaged.pt", {"model": other.state_dict()})
    source = str(tmp_path if folder else tmp_path / "averaged.pt")
    said = initialise(model, {part: source + suffix for part, suffix in init.items()})
    assert differing(model, other) == left
    if init.get("heads.fr"):
        linear, theirs = model.heads["fr"].ctc_output[1], other.heads["ctc"].ctc_output[1]
        assert torch.equal(linear.weight, theirs.weight) and torch.equal(linear.bias, theirs.bias)
        assert said[-1] == f"heads.fr begins as in {source}:heads.ctc: 2 tensors"


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"encodr": "x"}, r"init.encodr: x does not exist: train that first"),
        ({"encodr": "{}"}, r"init: the model has no part 'encodr' \(did you mean 'encoder'\?\)"),
        (
            {"heads.ctc": "{}:heads.en"},
            r"nothing for 'heads.ctc' in 'heads.en' \(did you mean 'heads.fr'\?\): its parts are encoder, heads.ctc, h",
        ),
        ({"heads.ctc": "{}:encoder"}, r"has nothing for 'heads.ctc' in 'encoder': its parts are encoder, heads.ctc"),
        ({"encoder": "{}"}, r"from .* is \(18, 24\) there and \(24, 24\) here: give the part the same sizes"),
    ],
)
def test_what_cannot_begin_from_there(tmp_path, init, message):
    save_checkpoint(tmp_path / "a.pt", {"model": make(1).state_dict()})
    init = {part: source.format(tmp_path / "a.pt") for part, source in init.items()}
    with pytest.raises(UserError, match=message):
        initialise(make(2, {**ZIPFORMER, "feedforward_dim": 32}), init)


def test_what_is_missing_there_is_said(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": make(1, heads={"ctc": {"lang": "x"}}).state_dict()})
    (said,) = initialise(make(2), {"all": str(tmp_path / "a.pt")})
    assert said.endswith("not there: heads.fr.ctc_output.1.weight, heads.fr.ctc_output.1.bias")


def test_a_frozen_part_from_another_experiment_is_saved(tiny_whisper, tmp_path):
    other = whisper(tiny_whisper)  # fine-tuned: not what stands in the pretrained folder
    save_checkpoint(tmp_path / "a.pt", {"model": other.state_dict()})
    model = whisper(tiny_whisper, 1, freeze=["encoder"])
    model.load_pretrained({})
    assert not any("layers" in name for name in model.state_dict())
    initialise(model, {"encoder": str(tmp_path / "a.pt")})
    assert differing(model, other) == {"heads.ctc"}
    again = whisper(tiny_whisper, 2, freeze=["encoder"])
    fill(again, model.state_dict(), {}, "a.pt")
    assert not differing(again, model)
    assert again.state_dict().keys() == model.state_dict().keys()


LORA = {"rank": 2, "targets": ["linear_q", "linear_v"]}


def adapted(tiny_whisper, seed: int, **more) -> Model:
    encoder = {"name": "whisper", "path": str(tiny_whisper[0]), "lora": LORA}
    model = make(seed, encoder, {"ctc": {"lang": "x"}}, feature_dim=8, **more)
    model.load_pretrained({})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)  # as if it had been trained
    return model


def test_an_encoder_that_gets_adapters_begins_whole(tiny_whisper, tmp_path):
    other = whisper(tiny_whisper)  # fine-tuned: not what stands in the pretrained folder
    save_checkpoint(tmp_path / "a.pt", {"model": other.state_dict()})
    encoder = {"name": "whisper", "path": str(tiny_whisper[0]), "lora": LORA}
    model = make(1, encoder, {"ctc": {"lang": "x"}}, feature_dim=8)
    model.load_pretrained({})
    (said,) = initialise(model, {"encoder": str(tmp_path / "a.pt")})
    inputs = torch.randn(2, 40, 8), torch.tensor([40, 31])
    assert torch.equal(model.eval().encode(*inputs).out, other.eval().encode(*inputs).out)  # adapters begin as nothing
    assert said.endswith(f": {sum(name.startswith('encoder.') for name in other.full_state())} tensors")
    again = make(2, encoder, {"ctc": {"lang": "x"}}, feature_dim=8)
    fill(again, model.state_dict(), {}, "a.pt")
    assert not differing(again, model)


def test_adapters_begin_from_adapters(tiny_whisper, tmp_path):
    other, model = adapted(tiny_whisper, 1), adapted(tiny_whisper, 2)
    save_checkpoint(tmp_path / "a.pt", {"model": other.state_dict()})
    (said,) = initialise(model, {"encoder": str(tmp_path / "a.pt")})
    assert differing(model, other) == {"heads.ctc"}
    count = len(whisper(tiny_whisper).encoder.pretrained_names())
    assert said.endswith(f": 9 tensors, {count} pretrained ones are not there and stay")  # 8 of adapters, 1 of places


@pytest.mark.parametrize("freeze", [[], ["encoder"]])
def test_adapters_without_a_place_are_refused(tiny_whisper, tmp_path, freeze):
    save_checkpoint(tmp_path / "a.pt", {"model": adapted(tiny_whisper, 1).state_dict()})
    layer = r"'encoder\.layers\.\d\.self_attn\.linear_[qv]'"
    for init in ({"encoder": str(tmp_path / "a.pt")}, {"all": str(tmp_path / "a.pt")}):
        with pytest.raises(UserError, match=rf"a.pt has an adapter of {layer}, which has none here: give the part the"):
            initialise(whisper(tiny_whisper, 2, freeze=freeze), init)
    initialise(whisper(tiny_whisper, 2, freeze=freeze), {"heads.ctc": str(tmp_path / "a.pt")})  # its head can be had


def factors(model: Model, scales: dict, decay: float = 1.0) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: pace.scale for pace, params in groups(model, scales, decay, {}).items() for p in params}


def test_the_longest_name_decides_on_the_learning_rate():
    found = factors(make(0), {"encoder": 0.1, "encoder.encoder_embed": 0.5, "heads": 2.0, "heads.fr": 3.0})
    assert found["encoder.encoder_embed.conv.0.weight"] == 0.5
    assert {found[name] for name in found if name.startswith("encoder.encoder.")} == {0.1}
    assert found["heads.ctc.ctc_output.1.bias"] == 2.0 and found["heads.fr.ctc_output.1.bias"] == 3.0
    assert found.keys() == {name for name, _ in make(0).named_parameters()}


def test_the_learning_rate_falls_with_every_layer(tiny_whisper):
    found = factors(whisper(tiny_whisper), {"encoder": 0.5}, 0.8)
    place = {"conv1": 0.32, "conv2": 0.32, "layers.0": 0.4, "layers.1": 0.5, "norm": 0.5, "ctc_output": 1.0}
    for name, factor in found.items():
        part = next(part for part in place if f".{part}." in name)
        assert factor == pytest.approx(place[part]), name
    assert "encoder.pos.weight" not in found  # is not trained


def test_a_step_is_as_large_as_the_factor_says():
    model, factor = make(0), {"encoder": 0.25, "heads.fr": 4.0}
    by_rate = groups(model, factor, 1.0, {})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    Updater(by_rate, AdamWConfig(weight_decay=0.0), None, "float32", torch.device("cpu")).step(1e-3)
    for name, parameter in model.named_parameters():  # Adam's first step is the learning rate, whatever the gradient
        scale = 0.25 if name.startswith("encoder") else 4.0 if "fr" in name else 1.0
        torch.testing.assert_close(
            before[name] - parameter, torch.full_like(parameter, 1e-3 * scale), rtol=1e-2, atol=1e-6
        )


@pytest.mark.parametrize("freeze", [["encoder"], ["encoder.layers.0", "encoder.conv1"]])
def test_what_is_frozen_does_not_move_by_a_bit(tiny_whisper, freeze):
    encoder = {"name": "whisper", "path": str(tiny_whisper[0]), "dropout": 0.5}
    model = make(0, encoder, {"ctc": {"lang": "x"}}, feature_dim=8, freeze=freeze)
    model.load_pretrained({})
    before = {name: value.clone() for name, value in model.full_state().items()}
    config = AdamWConfig(weight_decay=0.1)
    updater = Updater(groups(model, {}, 1.0, {}), config, None, "float32", torch.device("cpu"))
    features, lens = torch.randn(2, 40, 8), torch.tensor([40, 31])
    for _ in range(3):
        model.train()
        out = model.encode(features, lens).out
        model.heads["ctc"].log_probs(out).square().sum().backward()
        assert updater.step(1e-2)
    still = {name for name, value in model.full_state().items() if torch.equal(value, before[name])}
    parts = tuple(f"{part}." for part in freeze)
    assert still == {name for name in before if name.startswith((*parts, "encoder.pos."))}
    assert all(not module.training for name, module in model.named_modules() if name in freeze)
    if freeze == ["encoder"]:  # without its dropout either
        assert torch.equal(model.encode(features, lens).out, out) and not out.requires_grad


@pytest.mark.parametrize(
    ("scales", "decay", "freeze", "message"),
    [
        ({"heads.ct": 0.1}, 1.0, [], r"lr_scale: the model has no part 'heads.ct' \(did you mean 'heads.ctc'\?\)"),
        ({}, 0.9, [], "layer_decay is for pretrained encoders: this one has no 'layers', give lr_scale instead"),
        ({}, 1.0, ["encoder", "heads"], "freeze: all parts of the model are frozen: leave one to train"),
        ({}, 1.0, ["encoder.embed"], r"freeze: the model has no part 'encoder.embed' \(did you mean"),
    ],
)
def test_wrong_parts_are_named(scales, decay, freeze, message):
    with pytest.raises(UserError, match=message):
        groups(make(0, freeze=freeze), scales, decay, {})
