"""Mistakes that one of several processes finds: one sentence in all, and no process left waiting or failing loudly."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steps.training.folder import TrainFolder
from utils.distributed import World
from utils.errors import UserError

ROOT = Path(__file__).parents[3]


def train_by_two(*arguments: str) -> tuple[list[int], list[str]]:
    """Statuses and outputs of the two processes of `steps.train`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "steps.train", *arguments]
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    shown = [process.communicate(timeout=120)[0] for process in both]
    return [process.returncode for process in both], shown


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("locked", "Another process trains in"),
        ("changed", "was trained with other values of accumulate"),
        ("lang", "nowhere/tokens.txt does not exist: run stage 3"),
    ],
)
def test_a_mistake_is_one_sentence_of_one_process(task, tmp_path, mistake, sentence):
    arguments = [str(task / "conf.yaml"), "--out", str(tmp_path)]
    folder = TrainFolder(tmp_path)
    if mistake == "locked":
        folder.lock()
    elif mistake == "changed":
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"accumulate": 7}))
        (tmp_path / "epoch-1.pt").touch()
    else:
        arguments.append("heads.ctc.lang=nowhere")
    try:
        statuses, shown = train_by_two(*arguments)
    finally:
        folder.unlock()
    assert statuses == [1, 1], shown
    lines = [line for line in shown[0].splitlines() if "error" in line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and sentence in lines[0], shown
    assert "Traceback" not in shown[0] and "rror" not in shown[1], shown


def test_fewer_utterances_to_validate_on_than_processes(task, tmp_path):
    from lhotse import CutSet

    data = tmp_path / "dev"
    data.mkdir()
    shutil.copy(task / "data" / "features.yaml", tmp_path)
    CutSet.from_file(task / "data/dev/cuts.jsonl.gz").subset(first=1).to_file(data / "cuts.jsonl.gz")
    valid = f"data.valid={data / 'cuts.jsonl.gz'}"
    statuses, shown = train_by_two(str(task / "conf.yaml"), "--out", str(tmp_path / "model"), "epochs=1", valid)
    assert statuses == [0, 0], shown
    assert shown[0].count("averaged.pt: valid") == 1


def test_alone_the_error_is_the_users():
    def fail() -> None:
        raise UserError("no")

    assert World().on_main(lambda: 3) == 3
    with pytest.raises(UserError, match="no"):
        World().on_main(fail)
