"""steps.train from end to end on a made-up task: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from steps.model_folder import load_model
from steps.prepare.cuts import Cuts
from steps.train import main, train
from steps.training.config import TrainConfig
from steps.training.folder import TrainFolder
from steps.training.trainer import Trainer
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.distributed import World
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_jsonl
from utils.options import check_config

ROOT = Path(__file__).parents[3]


def fit(settings: dict, out: Path, restart: bool = False) -> int:
    return train(check_config(settings, TrainConfig, "test"), TrainFolder(out), World(), restart)


def same_model(a: Path, b: Path) -> bool:
    one, two = load_checkpoint(a)["model"], load_checkpoint(b)["model"]
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def same_result(a: Path, b: Path, epochs: int) -> None:
    """Both folders hold the same model to the last bit, and the same final losses."""
    assert same_model(a / f"epoch-{epochs}.pt", b / f"epoch-{epochs}.pt")
    assert same_model(a / "averaged.pt", b / "averaged.pt")
    one, two = read_json(a / "train.json"), read_json(b / "train.json")
    for key in ("final", "valid", "best", "steps", "speech_hours_seen", "skipped_steps", "dropped_utterances"):
        assert one[key] == two[key], key


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory) -> Path:
    """A model trained without interruption (copy it before changing it)."""
    out = tmp_path_factory.mktemp("exp") / "model"
    assert fit(yaml.safe_load((task / "conf.yaml").read_text()), out) == 0
    return out


def test_what_a_model_began_with_is_on_record(finished, task, tmp_path):
    settings = yaml.safe_load((task / "conf.yaml").read_text())
    begun = {"encoder": str(finished), "heads.ctc": f"{finished / 'epoch-3.pt'}:heads.ctc"}
    assert fit({**settings, "epochs": 1, "init": begun}, tmp_path / "next") == 0
    assert read_json(tmp_path / "next" / "train.json")["init"] == begun
    assert read_json(finished / "train.json")["init"] == {}


def test_a_finished_folder_holds_all_that_is_needed(finished, task):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.yaml",
        "features.yaml",
        "averaged.pt",
        "best.pt",
        "epoch-3.pt",
        "checkpoint.pt",
        "train.json",
    }
    assert "epoch-1.pt" not in names  # keep_last is 2
    about = read_json(finished / "train.json")
    assert (
        about["epochs"] == 3
        and about["steps"] == 21
        and about["dropped_utterances"] == 1
        and about["skipped_steps"] == 0
    )
    assert about["final"]["loss"] == pytest.approx(sum(v for k, v in about["final"].items() if k != "loss"))
    assert about["backends"].keys() == about["final"].keys() - {"loss"}
    assert about["parameters"] == about["parameters_trained"] > 1000 and about["seconds"] > 0
    used = Cuts.load(task / "data/train/cuts.jsonl.gz").durations.sum() / 3600
    assert 0.95 * used < about["data_hours"] < used
    assert about["speech_hours_seen"] == pytest.approx(3 * about["data_hours"], abs=2e-4)
    rows = [json.loads(line) for line in (finished / "log/dropped.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == ["more tokens than frames"]
    log = (finished / "log/train.log").read_text()
    assert "ctc.ctc by torch" in log or "ctc.ctc by k2" in log
    assert "precision: float32" in log and "h/h, left 0:00:" in log and "largest batch" in log


def test_training_learns_and_validation_says_so(finished):
    valid = read_json(finished / "train.json")["valid"]
    first = (finished / "log/train.log").read_text().split("valid ")[1].split(" ")[0]
    assert valid["loss"] < 0.8 * float(first)


def test_curves_are_written(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"train/loss", "train/ctc.ctc", "train_per_token/ctc.ctc", "valid/loss", "loop/lr", "loop/grad_norm"}
    assert [event.step for event in events.Scalars("valid/loss")] == [7, 14, 21]


def test_the_folder_alone_is_the_model(finished, task, tmp_path):
    shutil.copytree(finished, tmp_path / "model")
    for file in (tmp_path / "model").glob("epoch-*"):
        file.unlink()
    model, tokenizers, config = load_model(tmp_path / "model")
    assert not model.training and config.feature_dim == 20 and config.heads["ctc"].target == "text"
    assert tokenizers["ctc"].decode(tokenizers["ctc"].encode("abc")) == "abc"
    with torch.no_grad():
        out, lens = model.encode(torch.randn(2, 90, 20), torch.tensor([90, 60]))
    assert out.shape[0] == 2 and lens.tolist() == model.encoder.output_lens(torch.tensor([90, 60])).tolist()
    with pytest.raises(UserError, match=r"epoch-9\.pt does not exist: there are averaged\.pt, best\.pt"):
        load_model(tmp_path / "model", "epoch-9.pt")


def test_the_same_command_again_changes_nothing(finished, settings, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    before.pop(finished / "config.yaml"), before.pop(finished / "features.yaml")
    assert fit(settings, finished) == 0
    assert "is finished: 3 epochs" in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


class Stopped(Exception):
    pass


def stop_at(monkeypatch, step: int, how) -> None:
    """Do `how()` when `step` optimiser steps are done."""
    original = Trainer.step

    def with_stop(self, group):
        if self.progress.step == step:
            monkeypatch.setattr(Trainer, "step", original)
            how()
        return original(self, group)

    monkeypatch.setattr(Trainer, "step", with_stop)


def raise_stopped():
    raise Stopped


KILLED = """
import os, signal, sys
from steps.training.trainer import Trainer
from steps import train
original = Trainer.step
def step(self, group):
    if self.progress.step == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, group)
Trainer.step = step
train.run(train.main)
"""


def test_killed_and_started_again_is_as_never_killed(finished, task, tmp_path):
    out = tmp_path / "model"
    arguments = [str(task / "conf.yaml"), "--out", str(out), "save_every_steps=3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    progress = load_checkpoint(out / "checkpoint.pt")["progress"]
    assert (progress["step"], progress["epoch"], progress["batch"]) == (9, 1, 2)
    done = subprocess.run(
        [sys.executable, "-m", "steps.train", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "epoch 2, batch 2, step 9" in done.stderr, done.stderr
    same_result(out, finished, 3)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 4), (signal.SIGINT, 14)])
def test_a_signal_saves_and_the_same_command_goes_on(finished, settings, tmp_path, monkeypatch, capsys, number, step):
    out = tmp_path / "model"
    stop_at(monkeypatch, step, lambda: os.kill(os.getpid(), number))
    assert fit(settings, out) == 128 + number
    assert f"stopped at step {step} and saved" in capsys.readouterr().err
    assert fit(settings, out) == 0
    same_result(out, finished, 3)


def test_a_truncated_checkpoint_falls_back_on_the_epoch_before(finished, settings, tmp_path, monkeypatch, capsys):
    out = tmp_path / "model"
    stop_at(monkeypatch, 16, raise_stopped)
    settings["save_every_steps"] = 3
    with pytest.raises(Stopped):
        fit(settings, out)
    newest = out / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:-5000])
    assert fit(settings, out) == 0
    shown = capsys.readouterr().err
    assert f"warning: {newest} is truncated" in shown and "epoch-2.pt: epoch 3, batch 0, step 14" in shown
    same_result(out, finished, 3)


def test_a_truncated_checkpoint_with_nothing_before_it_is_one_sentence(settings, tmp_path, monkeypatch):
    out = tmp_path / "model"
    stop_at(monkeypatch, 2, raise_stopped)
    with pytest.raises(Stopped):
        fit(settings, out)
    (out / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"checkpoint\.pt is truncated .* --restart begins again"):
        fit(settings, out)


def test_another_models_checkpoint_is_refused_by_key(finished, settings, tmp_path):
    out = tmp_path / "model"
    shutil.copytree(finished, out)
    state = load_checkpoint(out / "epoch-3.pt")
    key = next(name for name in state["model"] if name.endswith("ctc_output.1.weight"))
    state["model"][key] = state["model"][key][:5]
    (out / "averaged.pt").unlink()
    save_checkpoint(out / "checkpoint.pt", state)
    with pytest.raises(UserError, match=rf"checkpoint\.pt is from another model: '{key}' has shape \(5, 24\)"):
        fit(settings, out)
    save_checkpoint(out / "averaged.pt", state)
    with pytest.raises(UserError, match=r"averaged\.pt is from another model"):
        load_model(out)


def test_a_changed_config_is_refused_by_its_keys_and_more_epochs_are_not(finished, settings, tmp_path):
    out = tmp_path / "model"
    shutil.copytree(finished, out)
    changed = json.loads(json.dumps(settings))
    changed["optimizer"] = {"name": "scaled_adam", "lr": 0.01}
    changed["encoder"]["feedforward_dim"] = 40
    with pytest.raises(UserError, match=r"other values of encoder\.feedforward_dim, optimizer\.lr: .*--restart"):
        fit(changed, out)
    file = yaml.safe_load((out / "config.yaml").read_text())
    del file["accumulate"]  # as if the key had been added since
    (out / "config.yaml").write_text(yaml.safe_dump(file))
    assert fit({**settings, "epochs": 4, "log_every": 50}, out) == 0
    assert read_json(out / "train.json")["steps"] == 28 and (out / "epoch-4.pt").exists()
    with pytest.raises(UserError, match=r"epochs=3, but in .* 4 epochs are done"):
        fit(settings, out)
    assert fit({**changed, "epochs": 1}, out, restart=True) == 0
    assert read_json(out / "train.json")["steps"] == 7 and not (out / "epoch-4.pt").exists()


def test_other_data_are_refused(finished, settings, tmp_path, task):
    out = tmp_path / "model"
    shutil.copytree(finished, out)
    (out / "averaged.pt").unlink()
    data = tmp_path / "data"
    shutil.copytree(task / "data", data)
    rows = list(read_jsonl(data / "train/cuts.jsonl.gz"))
    write_jsonl(data / "train/cuts.jsonl.gz", rows[:-3])
    file = yaml.safe_load((out / "config.yaml").read_text())
    file["data"]["train"] = settings["data"]["train"] = str(data / "train/cuts.jsonl.gz")
    (out / "config.yaml").write_text(yaml.safe_dump(file))
    with pytest.raises(UserError, match=r"trained on other utterances than .*cuts\.jsonl\.gz now holds"):
        fit(settings, out)
    tokens = data / "lang_char/tokens.txt"
    tokens.write_text(tokens.read_text() + "z 99\n")
    settings["heads"]["ctc"]["lang"] = file["heads"]["ctc"]["lang"] = str(data / "lang_char")
    (out / "config.yaml").write_text(yaml.safe_dump(file))
    with pytest.raises(UserError, match=r"lang_char has other tokens than .*lang/ctc"):
        fit(settings, out)


def test_two_trainers_do_not_share_a_folder(settings, tmp_path):
    first = TrainFolder(tmp_path)
    first.lock()
    with pytest.raises(UserError, match="Another process trains in"):
        fit(settings, tmp_path)
    (tmp_path / ".tmp-1-checkpoint.pt").write_bytes(b"half")
    first.unlock()
    TrainFolder(tmp_path).lock()
    assert not list(tmp_path.glob(".tmp-*"))


def test_validation_between_steps_and_a_decaying_average(settings, tmp_path):
    settings |= {
        "valid_every": 3,
        "epochs": 1,
        "average": {"period": 1, "decay": 0.8},
        "accumulate": 2,
        "precision": "bf16",
    }
    settings["optimizer"] = {"name": "adamw", "lr": 0.01}
    assert fit(settings, tmp_path) == 0
    about = read_json(tmp_path / "train.json")
    assert about["steps"] == 4 and np.isfinite(about["valid"]["loss"]) and about["precision"] == "bf16"
    assert "step 3: valid" in (tmp_path / "log/train.log").read_text()
    saved = load_checkpoint(tmp_path / "epoch-1.pt")["average"]
    averaged = load_checkpoint(tmp_path / "averaged.pt")["model"]
    assert saved["count"] == 4 and all(torch.equal(v.float(), averaged[k]) for k, v in saved["state"].items())
    file = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del file["average"]["initial"]  # as if the key had been added since
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(file))
    assert fit(settings, tmp_path) == 0


def test_without_a_validation_set(settings, tmp_path):
    settings["data"]["valid"] = None
    assert fit({**settings, "epochs": 1}, tmp_path) == 0
    about = read_json(tmp_path / "train.json")
    assert about["valid"] == {} and about["best"]["loss"] is None and not (tmp_path / "best.pt").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["optimiser.lr=1"], r"unknown key 'optimiser' \(did you mean 'optimizer'\?\)"),
        (["optimizer={name: scaled_adam, lr: fast}"], r"'optimizer\.lr' = 'fast': Input should be a valid number"),
        (["encoder.num_head=2"], r"unknown key 'encoder\.num_head' \(did you mean 'num_heads'\?\)"),
        (["heads.ctc.targt=text"], r"heads\.ctc: unknown key 'targt' \(did you mean 'target'\?\)"),
        (["data.max_durations=3"], r"unknown key 'data\.max_durations' \(did you mean 'max_duration'\?\)"),
        (
            ["schedule.name=edn"],
            r"schedule\.name = 'edn': it is one of eden, cosine, warmup, constant \(did you mean 'eden'",
        ),
        (["data.train=nowhere.jsonl.gz"], r"nowhere\.jsonl\.gz does not exist: run stage 2"),
        (["heads.ctc.lang=nowhere"], r"nowhere/tokens\.txt does not exist: run stage 3"),
        (["feature_dim=40"], r"feature_dim is 40, but .* has 20: leave it out"),
        (["precision=fp16"], r"precision=fp16 needs a GPU"),
        (["device=tpu"], r"Device 'tpu'"),
        (["average={decay: 0.9, last_epochs: 2}"], r"'decay' and 'last_epochs' are two kinds of average"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder_half_made(task, tmp_path, monkeypatch, change, sentence):
    monkeypatch.setattr("sys.argv", ["steps.train", str(task / "conf.yaml"), "--out", str(tmp_path / "m"), *change])
    with pytest.raises(UserError, match=sentence) as caught:
        main()
    assert "\n" not in str(caught.value) and not (tmp_path / "m" / "checkpoint.pt").exists()


def test_two_processes_by_torchrun(task, tmp_path):
    out = tmp_path / "model"
    launch = ". utils/stages.sh; launch 2"  # as a run.sh does
    words = subprocess.run(["bash", "-c", launch], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    command = [sys.executable, "-m", "torch.distributed.run", *words[1:], "-m", "steps.train"]
    command += [str(task / "conf.yaml"), "--out", str(out), "epochs=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    group = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, **pipes)
    try:
        shown = group.communicate(timeout=200)[0]
    except subprocess.TimeoutExpired:
        os.killpg(group.pid, signal.SIGABRT)  # every process shows where it is
        pytest.fail(group.communicate()[0])
    assert group.returncode == 0, shown
    about = read_json(out / "train.json")
    assert about["processes"] == 2 and about["steps"] == 2 * 4
    assert about["speech_hours_seen"] == pytest.approx(2 * about["data_hours"], abs=2e-4)
    assert shown.count("averaged.pt: valid") == 1
    assert time.time() - (out / "averaged.pt").stat().st_mtime < 300
