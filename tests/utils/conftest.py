"""A toy recipe in a folder of its own, run by bash as a user would, with the environment that runs the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOY = r"""#!/usr/bin/env bash
# A toy: from nothing to a score.
# It trains nothing.
# shellcheck disable=SC2086  # no part of the help
cd "$(dirname "$0")" && . "ROOT/path.sh"
langs="en es"        # languages of the corpus
systems="joint st"   # which systems to train
jobs=2               # processes
fast=false           # be quick
mini=false           # in a folder of its own
work=:               # what training runs
. parse_options.sh

stage 0 "Download" && run download --out downloads -- sh -c 'mkdir -p downloads && echo sound >downloads/a.wav'
stage 1 "Manifests" &&
  run manifests --in downloads --out data/manifests -- \
    sh -c 'mkdir -p data && echo "$1" | tee data/manifests; cat downloads/*' sh "$langs"
stage 5 "Training" && for s in $systems; do
  run "train-$s" --in data/manifests --out "exp/$s/averaged.pt" -- \
    sh -c 'mkdir -p exp/$0 && (eval "$1") && echo "$0" >exp/$0/averaged.pt' "$s" "$work"
done
stage 6 "Decoding" && run decode --in "exp/*/averaged.pt" --out exp/hyp -- sh -c 'cat exp/*/averaged.pt >exp/hyp'
stage 9 "Export" && run export --in exp/hyp --out exp/export -- cp exp/hyp exp/export
"""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of ours, with the running Python's environment as the one to use."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    kept.pop("PYTHONPATH", None)
    return {**kept, "DRAGOMAN_VENV": sys.prefix, **more}


def interruptible() -> None:
    """Take signals as a shell in a terminal would: the tests themselves may run in the background, SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Toy:
    """The toy recipe's folder."""

    folder: Path

    def run(
        self, *arguments: str, script: str = "run.sh", cwd: Path | None = None, shell: str = "bash"
    ) -> subprocess.CompletedProcess:
        """`bash run.sh arguments`, to its end."""
        command = [shell, script, *arguments]
        return subprocess.run(command, cwd=cwd or self.folder, env=environment(), capture_output=True, text=True)

    def start(self, *arguments: str) -> subprocess.Popen:
        """`bash run.sh arguments` in a session of its own, as a terminal starts it."""
        return subprocess.Popen(
            ["bash", "run.sh", *arguments],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=interruptible,
        )

    def read(self, path: str) -> str:
        return (self.folder / path).read_text("utf-8")


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A fresh toy recipe, in a folder with a space in its name."""
    folder = tmp_path / "toy recipe"
    folder.mkdir()
    (folder / "run.sh").write_text(TOY.replace("ROOT", str(ROOT)), "utf-8")
    return Toy(folder)
