"""The model: encoder and heads from one configuration, weighted named losses, learning through the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from steps.nets.model import Model, ModelConfig
from steps.nets.pretrained_parts import parameter_counts
from steps.prepare.dataset import Targets
from utils.errors import UserError
from utils.options import check_config

ENCODER = {
    "name": "zipformer",
    "encoder_dim": 32,
    "encoder_unmasked_dim": 32,
    "downsampling_factor": [1, 2],
    "num_encoder_layers": 1,
    "feedforward_dim": 48,
    "num_heads": 2,
    "cnn_module_kernel": 7,
    "dropout": 0.0,
}
HEADS = {
    "ctc": {"target": "text", "lang": "data/lang_a", "weight": 0.3},
    "en": {
        "name": "transducer",
        "target": "translation.en",
        "lang": "data/lang_b",
        "decoder_dim": 16,
        "joiner_dim": 16,
    },
}
SIZES = {"ctc": 7, "en": 11}


@dataclass
class Batch:
    features: Tensor
    feature_lens: Tensor
    targets: dict[str, Targets]


def make_config(**more) -> ModelConfig:
    return check_config({"encoder": ENCODER, "heads": HEADS, "feature_dim": 20, **more}, ModelConfig, "conf.yaml")


def make_batch(heads: list[str]) -> Batch:
    torch.manual_seed(3)
    lens = torch.tensor([4, 3, 2, 3])
    targets = {
        key: Targets(
            torch.randint(3, SIZES[key], (4, 4)),
            lens,
            torch.ones(4, dtype=torch.bool),
            torch.ones(4, 1, dtype=torch.int64),
        )
        for key in heads
    }
    return Batch(torch.randn(4, 60, 20), torch.tensor([60, 56, 50, 58]), targets)


def test_losses_are_named_and_weighted() -> None:
    torch.manual_seed(0)
    model = Model(make_config(), SIZES).eval()
    losses = model(make_batch(["ctc", "en"]))
    assert set(losses) == {"ctc.ctc", "en.simple", "en.pruned"}
    assert model.backends() == {"ctc.ctc": "torch", "en.simple": "torch", "en.pruned": "torch"}
    heads = {key: {**HEADS[key], "weight": 2 * HEADS[key].get("weight", 1.0)} for key in HEADS}
    heavier = Model(make_config(heads=heads), SIZES).eval()
    heavier.load_state_dict(model.state_dict())
    for name, loss in heavier(make_batch(["ctc", "en"])).items():
        torch.testing.assert_close(loss, 2 * losses[name])


def test_the_step_reaches_the_schedules() -> None:
    model = Model(make_config(), SIZES)
    model.set_batch_count(1000)
    scales = []
    model.heads["en"].scales = lambda step: scales.append(step) or (1.0, 1.0)
    model(make_batch(["ctc", "en"]))
    assert scales == [1000]
    assert {schedule.step for schedule in model.encoder._schedules} == {1000}


def test_configurations_survive_being_written_and_read() -> None:
    config = make_config()
    assert config.heads["ctc"].name == "ctc" and config.heads["en"].name == "transducer"
    written = config.model_dump(mode="json")
    assert written["heads"]["en"]["joiner_dim"] == 16
    assert check_config(written, ModelConfig, "config.yaml") == config


def test_parameters_are_counted() -> None:
    model = Model(make_config(), SIZES)
    counts = parameter_counts(model)
    dim = model.encoder.output_dim
    assert counts["heads.ctc"] == 7 * (dim + 1)
    assert counts["total"] == counts["encoder"] + counts["heads.ctc"] + counts["heads.en"]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"ctc": {"name": "ctcc", "lang": "x"}}, r"no head 'ctcc' \(did you mean 'ctc'\?\)"),
        ({}, "'heads' must hold at least one head"),
        ({"my.head": {"name": "ctc", "lang": "x"}}, "heads.my.head: a head's name is letters"),
        ({"keys": {"name": "ctc", "lang": "x"}}, "heads.keys: a head's name is"),
    ],
)
def test_wrong_heads_are_named(heads: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_config(heads=heads)


@pytest.mark.parametrize("key", ["ctc", "en"])
def test_a_model_learns_four_utterances_by_heart(key: str) -> None:
    torch.manual_seed(0)
    model = Model(make_config(heads={key: {**HEADS[key], "weight": 1.0}}), SIZES).eval()  # nothing random
    batch = make_batch([key])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    history = []
    for _ in range(50):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        history.append(loss.item())
    assert min(history[-5:]) < 0.15 * history[0]
