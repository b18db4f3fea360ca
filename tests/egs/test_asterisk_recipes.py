"""Both Asterisk recipes from packages to RESULTS.md, on a few dozen real prompts, with small models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.corpora import asterisk

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "encoder_dim": [64, 64, 64],
    "encoder_unmasked_dim": [64, 64, 64],
    "num_encoder_layers": [1, 1, 1],
    "feedforward_dim": [64, 64, 64],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The packages' layout with 24 prompts in two languages."""
    return asterisk.make(tmp_path_factory.mktemp("corpus"), ["en", "fr"], prompts_per_language=24)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A tree of links to this one with copies of the recipes, so that nothing is written into the checkout."""
    for name in ("path.sh", "utils", "steps", "local", "requirements", "setup.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    for task in ("asr", "st"):
        folder = tmp_path / "egs/asterisk" / task
        shutil.copytree(ROOT / "egs/asterisk" / task / "conf/laptop", folder / "conf/mini")
        shutil.copy(ROOT / "egs/asterisk" / task / "run.sh", folder)
        shutil.copy(ROOT / "egs/asterisk" / task / "conf/laptop/features.yaml", folder / "conf/mini")
        for path in (folder / "conf/mini").glob("*.yaml"):
            values = yaml.safe_load(path.read_text())
            if "encoder" in values:
                values["encoder"].update(SMALL)
                values.update(epochs=1, precision="float32")
                path.write_text(yaml.safe_dump(values))
    return tmp_path / "egs/asterisk"


def recipe(folder: Path, *options: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    environment.pop("PYTHONPATH", None)
    environment["DRAGOMAN_VENV"] = sys.prefix
    command = ["bash", str(folder / "run.sh"), "--conf", "conf/mini", "--languages", "en fr", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def scores(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text())["all"] for path in folder.glob("exp/*/decode/*/score.json")}


def test_translation_recipe_from_packages_to_table(house, corpus):
    folder = house / "st"
    (folder / "run.sh").write_text((folder / "run.sh").read_text().replace("--vocab-size 250", "--vocab-size 60"))
    done = recipe(folder, "--corpus", str(corpus))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = scores(folder)
    assert {"test.ctc.greedy", "test.ctc.prefix_beam", "test.transducer.modified_beam"} <= set(found)
    assert found["test.ctc.greedy"]["wer"]["value"] > 0
    assert "bleu" in found["test.transducer.greedy"]
    report = (folder / "RESULTS.md").read_text()
    assert "joint" in report and "translation" in report and "nrefs:1" in report
    again = recipe(folder, "--corpus", str(corpus))
    assert again.returncode == 0 and again.stdout.count("done before") == 9, again.stdout[-3000:]
    assert "WER" in again.stdout  # the table is shown again
    redone = recipe(folder, "--corpus", str(corpus), "--stage", "6", "--stop-stage", "8")
    assert redone.returncode == 0 and "done before" not in redone.stdout
    assert scores(folder) == found


def test_recogniser_recipe_from_packages_to_table(house, corpus):
    folder = house / "asr"
    (folder / "run.sh").write_text((folder / "run.sh").read_text().replace("--vocab-size 500", "--vocab-size 60"))
    done = recipe(folder, "--corpus", str(corpus))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(scores(folder)) == 8  # two splits, two searches for each of two heads
    assert "CER" in (folder / "RESULTS.md").read_text()


def test_stage_out_of_order_names_the_stage_that_is_missing(house):
    done = recipe(house / "st", "--stage", "6", "--stop-stage", "6")
    assert done.returncode != 0
    assert "averaged.pt does not exist: stage 5 (Training) makes it" in done.stdout + done.stderr
