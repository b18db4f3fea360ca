"""Presets: what follows from a machine, what the command line keeps, and training on two nodes of a Slurm."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steps import presets as program
from steps.train import main, read_config
from steps.training.config import LoopConfig
from steps.training.presets import SHARED, Preset, find_preset, load_preset
from steps.training.schedules import Eden
from tests.steps.training.toy_model import make_trainer, toy_batches
from tests.utils import slurm
from utils.errors import UserError
from utils.files import read_json

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recipe(tmp_path) -> str:
    """icefall's medium Zipformer with a transducer, as published: 4 x 1000 seconds, on GPUs of 32 GB."""
    values = {
        "base": str(ROOT / "egs/conf/zipformer-medium.yaml"),
        "heads": {"transducer": {"target": "text", "lang": "l"}},
        "data": {"train": "cuts.jsonl.gz"},
        "batch_seconds": 4000,
        "seconds_per_gb": 31.25,
        "optimizer": {"name": "scaled_adam", "lr": 0.045},
        "schedule": {"name": "eden", "lr_batches": 7500, "lr_epochs": 3.5},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    return str(tmp_path / "x.yaml")


def write_preset(folder: Path, **values) -> str:
    (folder / "machine.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "machine.yaml")


def test_the_machine_that_published_gets_the_published_numbers(recipe, tmp_path):
    config = read_config(recipe, [], write_preset(tmp_path, memory_gb=32, processes=4, workers=2, precision="fp16"))
    assert (config.data.max_duration, config.batch_seconds, config.optimizer.lr) == (1000, 4000, 0.045)
    assert (config.data.workers, config.precision, config.pace) == (2, "fp16", 1)


def test_a_larger_batch_has_the_rate_of_its_square_root_and_the_schedule_of_its_speech(recipe, tmp_path):
    preset = write_preset(tmp_path, memory_gb=80, processes=8, nodes=4, batch=4)
    config = read_config(recipe, [], preset)
    assert (config.batch_seconds, config.reference_batch, config.pace) == (16000, 4000, 4)
    assert config.optimizer.lr == pytest.approx(0.045 * math.sqrt(4))
    assert config.schedule.lr_batches == 7500
    kept = read_config(recipe, ["optimizer.lr=0.05", "precision=bf16", "data.max_duration=700"], preset)
    assert (kept.optimizer.lr, kept.precision, kept.data.max_duration) == (0.05, "bf16", 700)
    own = read_config(recipe, ["batch_seconds=1000"], preset)  # whoever says how large a step is says the rate
    assert (own.batch_seconds, own.optimizer.lr, own.pace) == (1000, 0.045, 1)


class Timed(LoopConfig):
    """A step of 20 seconds where the schedules count in steps of 10."""

    batch_seconds: float = 20.0
    reference_batch: float = 10.0


def test_schedules_count_in_the_recipes_steps(tmp_path):
    schedule = {"name": "eden", "lr_batches": 6, "warmup_batches": 4}
    trainer = make_trainer(toy_batches([2] * 6), tmp_path)
    trainer.config = Timed.model_validate({"schedule": schedule, "average": {"period": 4}, "epochs": 1})
    for step in range(6):
        assert trainer.schedule_factor() == pytest.approx(Eden(**schedule).factor(2 * step, 0, 0.0))
        trainer.step(toy_batches([2]))
        assert trainer.model.clock == 2 * step
    assert trainer.average.count == 3


@pytest.mark.parametrize(
    ("change", "preset", "sentence"),
    [
        ([], "gpu42", r"Preset 'gpu42' is not in egs/conf/presets \(did you mean 'gpu24'\?\): there are 8x80, gpu24"),
        ([], "nowhere.yaml", r"nowhere\.yaml does not exist"),
        (["seconds_per_gb=null"], "gpu24", "has no seconds_per_gb, which a preset needs"),
        (["batch_seconds=null"], "gpu24", "has no batch_seconds, which a preset needs"),
        (["accumulate=2"], "gpu24", "'accumulate' follows from 'batch_seconds'"),
        (["batch_seconds=null", "reference_batch=3"], "gpu24", "'reference_batch' compares with 'batch_seconds'"),
    ],
)
def test_a_mistake_is_one_sentence(recipe, change, preset, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read_config(recipe, change, preset)
    assert "\n" not in str(caught.value)


def test_the_table_shows_every_preset(recipe, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["steps.presets", recipe])
    program.main()
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    shown = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows[1:]}
    assert shown.keys() == {path.stem for path in SHARED.glob("*.yaml")}
    assert shown["8x80"][:5] == ["1 x 8", "8 x 1", "500", "4000", "0.045"]
    assert shown["gpu24"][:5] == ["1 x 1", "1 x 6", "667", "4000", "0.045"]


def launched(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """What `launch` prints in a run.sh."""
    script = 'set -eu; . utils/stages.sh; words=$(launch "$@"); echo "$words"'
    unset = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    command = ["bash", "-c", script, "run.sh", *arguments]
    environment = {**unset, "DRAGOMAN_ROOT": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_launch_starts_what_the_preset_has():
    torchrun = "torchrun --rdzv_backend c10d --rdzv_endpoint localhost:0 --nproc_per_node"
    assert launched("", "gpu24").stdout == launched("1").stdout == launched("").stdout == "python\n"
    assert launched("", "8x80").stdout == launched("8").stdout == f"{torchrun} 8\n"
    assert launched("2", str(find_preset("8x80"))).stdout == f"{torchrun} 2\n"
    nodes = launched("", "nodes", SLURM_JOB_ID="7").stdout
    assert nodes == "srun --nodes 4 --ntasks-per-node 1 --kill-on-bad-exit=1 node.sh 8\n"
    alone, missing = launched("", "nodes"), launched("", "gpu42")
    assert alone.returncode == missing.returncode == 2
    assert alone.stderr.startswith("error: Preset nodes has 4 nodes: start this in a Slurm job (sbatch --nodes 4 ")
    assert missing.stderr.startswith("error: There is no preset ") and missing.stderr.count("\n") == 1


def test_the_shell_reads_what_python_reads():
    for file in SHARED.glob("*.yaml"):
        preset = load_preset(file.stem)
        words = launched("", file.stem, SLURM_JOB_ID="7").stdout.split()
        assert (words[-1] if preset.processes > 1 else "1") == str(preset.processes)
        assert (words[words.index("--nodes") + 1] if "--nodes" in words else "1") == str(preset.nodes)
    assert Preset(memory_gb=1).world == 1


@pytest.mark.skipif(bool(slurm.lacking()), reason=slurm.lacking() or "it is there")
def test_two_nodes_of_a_slurm_train_together(task, tmp_path):
    preset = write_preset(tmp_path, memory_gb=2, processes=1, nodes=2)
    size = ["batch_seconds=10", "seconds_per_gb=2.5", "epochs=2"]
    (tmp_path / "run.sh").write_text(
        f"#!/usr/bin/env bash\ncd {ROOT} && . utils/stages.sh\n"
        f'$(launch "" {preset}) -m steps.train {task}/conf.yaml --preset {preset} --out {tmp_path}/model \\\n'
        f"  {' '.join(size)}\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] - 3
    paths = f"{Path(sys.executable).parent}:{ROOT}/utils:{os.environ['PATH']}"
    with slurm.two_nodes(tmp_path, port) as environment:
        environment |= {"PATH": paths, "PYTHONPATH": str(ROOT), "DRAGOMAN_ROOT": str(ROOT), "OMP_NUM_THREADS": "1"}
        job = ["sbatch", "--wait", "--nodes", "2", "--output", str(tmp_path / "job.log"), str(tmp_path / "run.sh")]
        done = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=200)
    log = (tmp_path / "job.log").read_text()
    assert done.returncode == 0, log + done.stderr
    about = read_json(tmp_path / "model/train.json")
    assert about["step"] == {"most": 5, "accumulate": 1, "processes": 2, "halved": 0, "total": 10, "unit": "seconds"}
    assert log.count("averaged.pt: valid") == 1
    assert about["speech_hours_seen"] == pytest.approx(2 * about["data_hours"], abs=2e-4)


def test_the_command_line_takes_a_preset(task, tmp_path, monkeypatch):
    preset = write_preset(tmp_path, memory_gb=2, precision="float32")
    size = ["batch_seconds=10", "seconds_per_gb=1.5", "epochs=1"]
    command = ["steps.train", str(task / "conf.yaml"), "--out", str(tmp_path / "model"), "--preset", preset, *size]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    found = yaml.safe_load((tmp_path / "model/config.yaml").read_text())
    assert (found["data"]["max_duration"], found["batch_seconds"], found["accumulate"]) == (3, 10, 1)
    assert read_json(tmp_path / "model/train.json")["step"]["accumulate"] == 4
