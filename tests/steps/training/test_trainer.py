"""The loop: what a step's loss is, what is skipped, what is written down, when it stops; one process and two."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.steps.training.toy_model import SIZES, ToyBatch, make_trainer, toy_batches
from utils.errors import UserError

ROOT = Path(__file__).parents[3]


def joined(batches: list[ToyBatch]) -> ToyBatch:
    ids = [name for batch in batches for name in batch.ids]
    return ToyBatch(ids, torch.cat([b.x for b in batches]), torch.cat([b.durations for b in batches]))


def parameters(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("optimizer", ["scaled_adam", "adamw"])
def test_accumulated_batches_are_one_large_batch(tmp_path, optimizer):
    batches = toy_batches(SIZES)
    small = make_trainer(batches, tmp_path, optimizer={"name": optimizer}, accumulate=3)
    large = [joined(batches[i : i + 3]) for i in (0, 3, 6)]
    whole = make_trainer(large, tmp_path, optimizer={"name": optimizer})
    assert small.run_epoch() and whole.run_epoch()
    assert small.progress.step == whole.progress.step == 3 and small.progress.batch == 8
    torch.testing.assert_close(parameters(small), parameters(whole), rtol=1e-5, atol=1e-6)
    first, second = small.epoch_meter.means(small.world), whole.epoch_meter.means(whole.world)
    assert first[0] == pytest.approx(second[0]) and first[1] == pytest.approx(second[1])


def test_two_processes_train_as_one_with_all_their_batches(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("toy_model.py")), str(tmp_path)]
    environments = [{**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    both = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for env in environments]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    found = torch.load(tmp_path / "a.pt")
    alone = make_trainer(toy_batches(SIZES), tmp_path, accumulate=4)
    assert alone.run_epoch() and alone.progress.step == 2
    for key, value in alone.model.state_dict().items():
        torch.testing.assert_close(found["model"][key], value, rtol=1e-5, atol=1e-6)
    means = alone.epoch_meter.means(alone.world)
    assert found["means"][0] == pytest.approx(means[0]) and found["means"][1] == pytest.approx(means[1])
    assert found["valid"] == pytest.approx(alone.validate())
    assert found["speech"] == alone.progress.speech == sum(SIZES)
    alone.batches.most_valid = 1  # the second process has none of this
    assert found["small_valid"] == pytest.approx(alone.validate())


def test_losses_are_means_over_frames_and_tokens(tmp_path):
    batches = toy_batches([2, 3])
    trainer = make_trainer(batches, tmp_path)
    with torch.no_grad():
        losses = [trainer.model(batch) for batch in batches]
    valid = trainer.validate()
    square, size = (sum(float(loss[name]) for loss in losses) for name in ("one.square", "two.size"))
    assert valid == pytest.approx({"loss": (square + size) / 50, "one.square": square / 50, "two.size": size / 50})
    trainer.run_epoch()
    by_token = trainer.epoch_meter.means(trainer.world)[1]
    assert by_token.keys() == {"one.square"}  # head "two" counts no tokens
    assert by_token["one.square"] == pytest.approx(trainer.epoch_meter.means(trainer.world)[0]["one.square"] * 10 / 3)


@pytest.mark.parametrize("optimizer", ["scaled_adam", "adamw"])
def test_a_nonfinite_step_is_skipped_counted_and_written_down(tmp_path, optimizer):
    batches = toy_batches([2] * 6)
    batches[3].x[1, 2] = float("nan")
    trainer = make_trainer(batches, tmp_path, optimizer={"name": optimizer})
    before = []
    for batch in batches:
        before.append(parameters(trainer).clone())
        trainer.step([batch])
    assert torch.equal(before[3], before[4]) and not torch.equal(before[4], before[5])
    assert trainer.nonfinite.flush(trainer.progress) == 1 and trainer.progress.skipped == 1
    rows = [json.loads(line) for line in (tmp_path / "nonfinite0.jsonl").read_text().splitlines()]
    assert rows == [{"epoch": 1, "step": 3, "ids": ["u3-0", "u3-1"]}]
    means = trainer.epoch_meter.means(trainer.world)[0]
    assert trainer.epoch_meter.state_dict(trainer.world)["frames"] == 100 and means["loss"] > 0
    trainer.nonfinite.forget(3)
    assert (tmp_path / "nonfinite0.jsonl").read_text() == ""


def test_a_nonfinite_validation_loss_is_shown(tmp_path):
    batches = toy_batches([2, 2])
    batches[1].x[0] = float("nan")
    assert not make_trainer(batches, tmp_path).validate()["loss"] <= 1e9


def test_many_nonfinite_steps_in_a_row_end_training(tmp_path):
    batches = toy_batches([1] * 5)
    trainer = make_trainer(batches, tmp_path, max_nonfinite=3)
    trainer.run_epoch()
    trainer.end_epoch()
    for batch in batches[:3]:
        batch.x.fill_(float("nan"))
    trainer.run_epoch()
    with pytest.raises(UserError, match=r"3 steps in a row .* not finite .*nonfinite0\.jsonl"):
        trainer.nonfinite.flush(trainer.progress)


def test_clipping_limits_the_step(tmp_path):
    batches = toy_batches([4])
    moved = []
    for clip in (None, 1e-9):
        # the first step of Adam is lr times the sign, unless the gradient is as small as Adam's epsilon
        trainer = make_trainer(
            batches, tmp_path, optimizer={"name": "adamw", "lr": 0.1, "weight_decay": 0}, clip_norm=clip
        )
        before = parameters(trainer)
        trainer.run_epoch()
        moved.append(float((parameters(trainer) - before).abs().max()))
    assert moved[0] > 0.09 and moved[1] < 0.01


def test_the_rate_follows_the_schedule_and_the_model_hears_the_time(tmp_path):
    schedule = {"name": "constant", "warmup_steps": 4}
    batches = toy_batches([3] * 4)
    trainer = make_trainer(batches, tmp_path, schedule=schedule, optimizer={"name": "adamw", "lr": 0.4})
    rates, clocks = [], []
    for batch in batches:
        trainer.step([batch])
        rates.append(trainer.lr)
        clocks.append(trainer.model.clock)
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4]) and clocks == [0, 1, 2, 3]
    trainer = make_trainer(batches, tmp_path, reference_duration=1.5)
    trainer.run_epoch()
    assert trainer.model.clock == 6.0  # nine seconds of speech before the last step


def test_vectors_do_not_decay(tmp_path):
    trainer = make_trainer(toy_batches([1]), tmp_path, optimizer={"name": "adamw", "weight_decay": 0.5})
    decays = {id(p): g["weight_decay"] for g in trainer.updater.optimizer.param_groups for p in g["params"]}
    assert {n: decays[id(p)] for n, p in trainer.model.named_parameters()} == {
        "a.weight": 0.5,
        "a.bias": 0.0,
        "b.weight": 0.5,
        "b.bias": 0.0,
    }


def test_running_out_of_memory_is_one_sentence(tmp_path):
    trainer = make_trainer(toy_batches([1]), tmp_path)

    def full(batch):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")

    trainer.wrapped = full
    with pytest.raises(UserError, match=r"Out of memory in step 0 of epoch 1: lower data\.max_duration"):
        trainer.run_epoch()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_two_steps(tmp_path, number):
    trainer = make_trainer(toy_batches([1] * 6), tmp_path)
    with trainer.stop as stop:
        trainer.on_log = lambda: os.kill(os.getpid(), number)
        trainer.config = trainer.config.model_copy(update={"log_every": 2})
        assert not trainer.run_epoch()
        assert trainer.progress.step == trainer.progress.batch == 2 and stop.status == 128 + number
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    assert signal.getsignal(number) is not stop._asked


def test_saving_is_due_by_steps_and_by_seconds(tmp_path):
    saved = []
    trainer = make_trainer(toy_batches([1] * 7), tmp_path, save_every_steps=3, save_every_seconds=None)
    trainer.on_save = lambda: saved.append(trainer.progress.step)
    trainer.run_epoch()
    assert saved == [3, 6]
    trainer = make_trainer(toy_batches([1] * 3), tmp_path, save_every_seconds=1e-9)
    trainer.on_save = lambda: saved.append(trainer.progress.step)
    trainer.run_epoch()
    assert saved[2:] == [0, 1, 2]


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="this torch scales float16 losses on GPUs only")
def test_float16_gradients_are_unscaled_and_overflows_skipped(tmp_path):
    from steps.training.config import LoopConfig
    from steps.training.initial import groups
    from steps.training.optimizers import Updater

    trainer = make_trainer(toy_batches([2]), tmp_path)
    config = LoopConfig().optimizer
    halves, plain = (
        Updater(groups(trainer.model, {}, 1.0, {}), config, None, name, torch.device("cpu"))
        for name in ("fp16", "float32")
    )
    batch, norms = toy_batches([2])[0], []
    for updater in (plain, halves):
        updater.scale(sum(trainer.model(batch).values())).backward()
        assert updater.step(0.0)
        norms.append(float(updater.norm))
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    scale, before = halves.scaler.get_scale(), parameters(trainer)
    halves.scale(sum(trainer.model(batch).values()) * float("inf")).backward()
    assert not halves.step(1.0)
    assert halves.scaler.get_scale() == scale / 2 and torch.equal(parameters(trainer), before)
