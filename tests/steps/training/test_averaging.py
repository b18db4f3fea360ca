"""Averages of models: over any of the last epochs from two checkpoints, decaying, and plain."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from torch import nn

from steps.average import average
from steps.average import main as average_main
from steps.training.averaging import RunningAverage, averaged_model, between
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError


def walk(model: nn.Module, average: RunningAverage, steps: int) -> list[torch.Tensor]:
    samples = []
    for _ in range(steps):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        average.update(model)
        samples.append(model.weight.detach().double().clone())
    return samples


def clone(state: dict) -> dict:
    return {**state, "state": {key: value.clone() for key, value in state["state"].items()}}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 4)


def test_the_average_between_two_checkpoints_is_that_of_the_samples_between(model):
    average = RunningAverage(model)
    walk(model, average, 700)
    early = clone(average.state_dict())
    samples = walk(model, average, 300)
    found = between(average.state_dict(), early)["weight"]
    torch.testing.assert_close(found, torch.stack(samples).mean(0), rtol=1e-11, atol=1e-11)


def test_no_sample_between_is_no_average(model):
    average = RunningAverage(model)
    assert between(average.state_dict(), None) is None
    walk(model, average, 3)
    state = average.state_dict()
    assert between(state, clone(state)) is None
    assert between(state, None) is state["state"]


def test_a_decaying_average_weighs_as_it_says_from_the_first_sample(model):
    average = RunningAverage(model, decay=0.9)
    samples = walk(model, average, 5)
    weights = [0.9 ** (4 - i) for i in range(5)]
    expected = sum(w * s for w, s in zip(weights, samples, strict=True)) / sum(weights)
    torch.testing.assert_close(average.state["weight"], expected)


def epochs(folder, model, decay=None) -> dict[int, list]:
    average, samples = RunningAverage(model, decay), {}
    for epoch in (1, 2, 3, 4):
        samples[epoch] = walk(model, average, 5)
        state = {"model": model.state_dict(), "average": average.state_dict()}
        save_checkpoint(folder / f"epoch-{epoch}.pt", state)
    return samples


def test_the_last_epochs_are_averaged_from_two_files(tmp_path, model):
    samples = epochs(tmp_path, model)
    (tmp_path / "epoch-1.pt").unlink()
    (tmp_path / "epoch-3.pt").unlink()
    found = averaged_model(tmp_path, 4, 2)["weight"]
    torch.testing.assert_close(found, torch.stack(samples[3] + samples[4]).mean(0).float())
    assert found.dtype == torch.float32
    whole = averaged_model(tmp_path, 4, 4)["weight"]
    torch.testing.assert_close(whole, torch.stack([*chain(*samples.values())]).mean(0).float())
    with pytest.raises(UserError, match=r"epoch-1\.pt does not exist"):
        averaged_model(tmp_path, 4, 3)


def test_the_command_writes_a_model(tmp_path, model, monkeypatch, capsys):
    samples = epochs(tmp_path, model)
    out = tmp_path / "avg.pt"
    command = ["steps.average", "--exp", str(tmp_path), "--epoch", "3", "--avg", "2", "--plain", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    assert average_main() == 0
    ends = torch.stack([samples[2][-1], samples[3][-1]]).mean(0).float()
    torch.testing.assert_close(load_checkpoint(out)["model"]["weight"], ends)
    assert "epochs 2 to 3" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*command[:6], "9", *command[7:]])
    with pytest.raises(UserError, match="--avg 9 of --epoch 3"):
        average_main()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["5", "--avg", "1"], r"--epoch 5: .* has only epoch-3\.pt, epoch-4\.pt, as .*: give --epoch 3 or 4\."),
        (["4", "--avg", "2"], r"--avg 2 needs epoch-2\.pt, but .* epoch-3\.pt, .*: give --avg 1 or 4, or --plain\."),
        (["4", "--avg", "3"], r"--avg 3 needs epoch-1\.pt, but .*: give --avg 1 or 4\."),
        (["4", "--avg", "3", "--plain"], r"needs epoch-2\.pt, but .*: give --avg 1 or 2\."),
        (["4", "--avg", "0"], "--avg 0 of --epoch 4: give 1 to 4 epochs"),
    ],
)
def test_epochs_that_were_deleted(tmp_path, model, monkeypatch, options, sentence):
    epochs(tmp_path, model)
    for epoch in (1, 2):
        (tmp_path / f"epoch-{epoch}.pt").unlink()
    command = ["steps.average", "--exp", str(tmp_path), "--out", str(tmp_path / "avg.pt"), "--epoch", *options]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(UserError, match=sentence):
        average_main()
    assert not (tmp_path / "avg.pt").exists()


def test_an_average_of_nothing(tmp_path):
    with pytest.raises(UserError, match=r"holds no epoch-N\.pt: run stage 5"):
        average(tmp_path, 1, 1, plain=False)


def test_a_decaying_average_needs_one_file(tmp_path, model):
    epochs(tmp_path, model, decay=0.5)
    for epoch in (1, 2, 3):
        (tmp_path / f"epoch-{epoch}.pt").unlink()
    assert "weight" in average(tmp_path, 4, 2, plain=False)


def test_without_samples_the_ends_of_the_epochs_are_averaged(tmp_path, model):
    for epoch, value in ((1, 1.0), (2, 2.0), (3, 4.0)):
        nn.init.constant_(model.weight, value)
        save_checkpoint(tmp_path / f"epoch-{epoch}.pt", {"model": model.state_dict(), "average": empty(model)})
    assert float(averaged_model(tmp_path, 3, 2)["weight"][0, 0]) == 3.0


def empty(model: nn.Module) -> dict:
    return RunningAverage(model).state_dict()


def test_a_decaying_average_is_taken_as_it_is(tmp_path, model):
    epochs(tmp_path, model, decay=0.5)
    saved = load_checkpoint(tmp_path / "epoch-4.pt")["average"]["state"]["weight"]
    assert torch.equal(averaged_model(tmp_path, 4, 1)["weight"], saved.float())
