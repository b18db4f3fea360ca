"""How training begins: parts that learn later, models of no epochs, the control that hears nothing."""

from __future__ import annotations

import pytest
import torch

from steps.model_folder import load_model
from steps.recogniser import Recogniser
from steps.train import train
from steps.training.config import TrainConfig
from steps.training.folder import TrainFolder
from utils.checkpoint import load_checkpoint
from utils.distributed import World
from utils.errors import UserError
from utils.files import read_json
from utils.options import check_config

SMALL = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 32, "dropout": 0.0}


def fit(settings: dict, out) -> int:
    return train(check_config(settings, TrainConfig, "test"), TrainFolder(out), World())


def parts(path) -> dict[str, dict]:
    state = load_checkpoint(path)["model"]
    return {
        prefix: {name: value for name, value in state.items() if name.startswith(prefix)}
        for prefix in ("encoder", "heads")
    }


@pytest.mark.parametrize("optimizer", [{"name": "adamw", "lr": 0.01}, {"name": "scaled_adam", "lr": 0.045}])
def test_a_part_that_starts_later_stays_as_it_is(settings, tmp_path, optimizer):
    settings |= {"optimizer": optimizer, "save_every_steps": 1, "epochs": 1, "valid_every": None}
    assert fit({**settings, "epochs": 0}, tmp_path / "before") == 0
    assert fit({**settings, "start_after": {"encoder": 1000}}, tmp_path / "late") == 0
    assert fit({**settings, "start_after": {"encoder": 2}}, tmp_path / "soon") == 0
    before = parts(tmp_path / "before" / "averaged.pt")
    late, soon = (parts(tmp_path / name / "epoch-1.pt") for name in ("late", "soon"))
    assert all(torch.equal(late["encoder"][name], value) for name, value in before["encoder"].items())
    assert any(not torch.equal(late["heads"][name], value) for name, value in before["heads"].items())
    assert any(not torch.equal(soon["encoder"][name], value) for name, value in before["encoder"].items())


def test_no_epochs_leave_the_model_as_it_begins(settings, tmp_path):
    assert fit({**settings, "epochs": 0}, tmp_path / "model") == 0
    report = read_json(tmp_path / "model" / "train.json")
    assert report["epochs"] == 0 and report["parameters_trained"] == 0 and report["parameters"] > 0
    model, _, _ = load_model(tmp_path / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) == report["parameters"]
    assert fit({**settings, "epochs": 0}, tmp_path / "model") == 0  # done before


def test_a_part_that_is_not_there_is_named(settings, tmp_path):
    with pytest.raises(UserError, match=r"start_after: the model has no part 'encodr' \(did you mean 'encoder'\?\)"):
        fit({**settings, "start_after": {"encodr": 5}}, tmp_path / "model")


def test_sections_of_init_are_names_with_dots(settings):
    config = check_config({**settings, "init": {"heads": {"ctc": "a.pt"}, "encoder": "b.pt"}}, TrainConfig, "test")
    assert config.init == {"heads.ctc": "a.pt", "encoder": "b.pt"}


def test_the_control_learns_texts_without_listening(settings, tmp_path):
    head = {"name": "attention", "target": "text", "lang": settings["heads"]["ctc"]["lang"], "decoder": SMALL}
    settings |= {"encoder": {"name": "blind"}, "heads": {"attention": head}, "optimizer": {"name": "adamw", "lr": 0.01}}
    assert fit({**settings, "epochs": 2}, tmp_path / "model") == 0
    model, _, _ = load_model(tmp_path / "model")
    features, lens = torch.randn(3, 50, 20), torch.tensor([50, 20, 31])
    encoded = model.encode(features, lens)
    prompts = torch.ones(3, 1, 1, dtype=torch.int64)
    scores = model.heads["attention"].log_probs(prompts, model.heads["attention"].start(*encoded))
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    assert read_json(tmp_path / "model" / "train.json")["final"]["attention.attention"] > 0
    recogniser = Recogniser(tmp_path / "model", ["attention:beam"], {"min_tokens": 5, "max_tokens": 9})
    ((best, *_), *_), _ = recogniser.search(recogniser.searches[0], recogniser.spoken(encoded, [None] * 3))
    assert 5 <= len(best.tokens) <= 9  # its one frame says nothing of how long a text may be
