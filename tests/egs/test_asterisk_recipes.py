"""Both Asterisk recipes from packages to RESULTS.md, on a few dozen real prompts, with small models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from steps.objectives.backend import have_k2
from tests.corpora import asterisk
from tests.egs.house import copy_recipe, replace, run_recipe
from tests.steps.tiny_llm import make_llm
from tests.steps.tiny_models import make_whisper
from utils.options import load_yaml

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
    if "translator" in values:
        for side in ("encoder", "decoder"):
            values["translator"][side] = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 16}
    elif "language_model" in values:
        values["language_model"].update(embedding_dim=16, hidden_dim=16)
    elif values["encoder"]["name"] == "zipformer":
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


def test_translation_recipe_from_packages_to_table(house, corpus, tmp_path):
    folder = house / "st"
    replace(folder, "--vocab-size 250", "--vocab-size 60")
    replace(folder, "--vocab-size 1000", "--vocab-size 100")
    texts = ["thank you for calling", "merci de votre appel", "please enter the extension", "boîte vocale"]
    make_whisper(tmp_path / "whisper", texts, num_mel_bins=80, max_source_positions=1500, max_target_positions=200)
    llm = make_llm(tmp_path / "llm", max_position_embeddings=512)
    systems = "joint translation whisper-zero-shot whisper cascade llm"
    options = ("--corpus", str(corpus), "--whisper", str(tmp_path / "whisper"), "--llm", str(llm), "--systems", systems)
    done = recipe(folder, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = scores(folder)
    assert {"test.ctc.greedy", "test.ctc.prefix_beam", "test.transducer.modified_beam", "test.llm.beam"} <= set(found)
    assert {"test.transcript.beam", "test.translation.beam", "test.mt.beam", "test.reference.beam"} <= set(found)
    assert found["test.ctc.greedy"]["wer"]["value"] > 0
    assert "bleu" in found["test.transducer.greedy"]
    report = (folder / "RESULTS.md").read_text()
    assert all(name in report for name in (*systems.split(), "cascade, true transcripts", "nrefs:1"))
    again = recipe(folder, *options)
    assert again.returncode == 0 and "log in" not in again.stdout, again.stdout[-3000:]
    assert "WER" in again.stdout  # the table is shown again
    redone = recipe(folder, *options, "--stage", "6", "--stop-stage", "8")
    assert redone.returncode == 0 and "done before" not in redone.stdout
    assert scores(folder) == found


def test_recogniser_recipe_from_packages_to_table(house, corpus):
    folder = house / "asr"
    done = recipe(folder, "--corpus", str(corpus))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    searches = [name for path in folder.glob("conf/searches*.yaml") for name in load_yaml(path)]
    wanted = [name for name in searches if have_k2() or name in load_yaml(folder / "conf/searches.yaml")]
    found = {f"{split}.{name.replace(':', '.')}" for split in ("dev", "test") for name in wanted}
    assert set(scores(folder)) == found and {"test.ctc.greedy", "test.transducer.modified_beam+LSTM+LODR"} <= found
    report = (folder / "RESULTS.md").read_text()
    assert "CER" in report and "modified beam (4) + LSTM + LODR" in report


def test_without_whisper_the_others_go_on(house, corpus):
    folder = house / "st"
    options = ("--corpus", str(corpus), "--whisper", "nobody/no-such-whisper", "--stop-stage", "1")
    done = recipe(folder, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "downloads/whisper is not there: going on with joint translation" in done.stdout + done.stderr


def test_stage_out_of_order_names_the_stage_that_is_missing(house):
    done = recipe(house / "st", "--stage", "6", "--stop-stage", "6")
    assert done.returncode != 0
    assert "averaged.pt does not exist: stage 5 (Training) makes it" in done.stdout + done.stderr
