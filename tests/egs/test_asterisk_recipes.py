"""Both Asterisk recipes from packages to RESULTS.md, on a few dozen real prompts, with small models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.corpora import asterisk
from tests.egs.house import copy_recipe, replace, run_recipe

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


def shrink(values: dict) -> None:
    """A model that trains in seconds."""
    if values["encoder"]["name"] == "zipformer":
        values["encoder"].update(SMALL)
    values.update(epochs=min(values["epochs"], 1), precision="float32")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Copies of the recipes, so that nothing is written into the checkout."""
    for task in ("asr", "st"):
        copy_recipe(tmp_path, f"asterisk/{task}", shrink)
    return tmp_path / "egs/asterisk"


def recipe(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return run_recipe(folder, "--languages", "en fr", *options)


def scores(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text())["all"] for path in folder.glob("exp/*/decode/*/score.json")}


def test_translation_recipe_from_packages_to_table(house, corpus):
    folder = house / "st"
    replace(folder, "--vocab-size 250", "--vocab-size 60")
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
    replace(folder, "--vocab-size 500", "--vocab-size 60")
    done = recipe(folder, "--corpus", str(corpus))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(scores(folder)) == 8  # two splits, two searches for each of two heads
    assert "CER" in (folder / "RESULTS.md").read_text()


def test_stage_out_of_order_names_the_stage_that_is_missing(house):
    done = recipe(house / "st", "--stage", "6", "--stop-stage", "6")
    assert done.returncode != 0
    assert "averaged.pt does not exist: stage 5 (Training) makes it" in done.stdout + done.stderr
