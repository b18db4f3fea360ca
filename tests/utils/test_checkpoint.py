"""Checkpoints: whole or not at all, safe to read, and refused with a sentence when they do not fit."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal

import pytest
import torch
from torch import nn

from utils.checkpoint import average_states, fit_state, link_or_copy, load_checkpoint, own_tensors, save_checkpoint
from utils.errors import UserError


def test_what_is_saved_is_what_is_loaded(tmp_path):
    state = {
        "model": nn.Linear(2, 3).state_dict(),
        "progress": {"step": 3, "best": None, "losses": {"ctc": 0.5}},
        "n": [1, 2.5],
    }
    save_checkpoint(tmp_path / "a.pt", state)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded["progress"] == state["progress"] and loaded["n"] == [1, 2.5] and loaded["format"] == 1
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])
    assert os.listdir(tmp_path) == ["a.pt"]


@contextlib.contextmanager
def room(size: int):
    """Inside, no file may grow beyond `size` bytes, as on a full disk (not even pytest's own output: keep it short)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 3000, 100_000])
def test_a_save_that_fails_leaves_the_old_file(tmp_path, size):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"n": 1})
    with room(size), pytest.raises(OSError) as caught:
        save_checkpoint(path, {"n": 2, "model": nn.Linear(300, 300).state_dict()})
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert load_checkpoint(path)["n"] == 1 and os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("size", [0, 10, 1000, -1])
def test_a_truncated_file_is_one_sentence(tmp_path, size):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"model": nn.Linear(20, 30).state_dict()})
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(UserError, match=r"a\.pt is truncated or is not a checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


class Trap:
    def __reduce__(self):
        return os.system, ("echo never",)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"model": Trap()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_other_contents_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds a list"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"format": 99}, tmp_path / "b.pt")
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"c\.pt does not exist"):
        load_checkpoint(tmp_path / "c.pt")


def test_another_models_state_is_refused_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    before = own_tensors(model.state_dict())
    with pytest.raises(
        UserError, match=r"x\.pt is from another model: '1.weight' has shape \(9, 3\), here it is \(4, 3\)"
    ):
        fit_state(model, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 9)).state_dict(), "x.pt")
    with pytest.raises(UserError, match=r"x\.pt is from another model: it has no '1.weight'"):
        fit_state(model, nn.Sequential(nn.Linear(2, 3)).state_dict(), "x.pt")
    with pytest.raises(UserError, match=r"it has '2\.weight', which this one lacks"):
        fit_state(model, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 4)).state_dict(), "x.pt")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_average_of_states():
    states = [{"w": torch.full((2,), float(i)), "n": torch.tensor(i)} for i in (1, 2, 6)]
    mean = average_states(iter(states))
    assert mean["w"].tolist() == [3.0, 3.0] and mean["w"].dtype == torch.float32 and int(mean["n"]) == 6
    with pytest.raises(ValueError, match="no states"):
        average_states([])
    with pytest.raises(ValueError, match="different models"):
        average_states([{"w": torch.ones(1)}, {"v": torch.ones(1)}])


def test_a_part_of_shared_memory_is_saved_alone(tmp_path):
    whole = torch.zeros(100_000)
    save_checkpoint(tmp_path / "shared.pt", {"model": {"w": whole[:10]}})
    save_checkpoint(tmp_path / "own.pt", {"model": own_tensors({"w": whole[:10]})})
    assert (tmp_path / "own.pt").stat().st_size < 10_000 < (tmp_path / "shared.pt").stat().st_size


def test_a_second_name_replaces_an_old_file(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pt", {"n": 1})
    save_checkpoint(tmp_path / "b.pt", {"n": 2})
    link_or_copy(tmp_path / "a.pt", tmp_path / "b.pt")
    assert load_checkpoint(tmp_path / "b.pt")["n"] == 1 and os.path.samefile(tmp_path / "a.pt", tmp_path / "b.pt")

    def refused(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    link_or_copy(tmp_path / "a.pt", tmp_path / "b.pt")
    assert load_checkpoint(tmp_path / "b.pt")["n"] == 1 and not os.path.samefile(tmp_path / "a.pt", tmp_path / "b.pt")
