"""The Mboshi recipe from a miniature of the corpus to RESULTS.md, with a tiny Whisper and a tiny LLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.corpora import mboshi
from tests.egs.house import copy_recipe, replace, run_recipe
from tests.steps.tiny_llm import make_llm
from tests.steps.tiny_models import ZIPFORMER, make_whisper


def shrink(values: dict) -> None:
    """A model that trains in seconds."""
    values.update(epochs=1, precision="float32")
    if "translator" in values:
        for side in ("encoder", "decoder"):
            values["translator"][side] = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 16}
        return
    if values["encoder"]["name"] == "zipformer":
        values["encoder"] = {**ZIPFORMER, "output_downsampling_factor": 1}  # a letter takes 60 ms
    if values["encoder"]["name"] == "stored":
        values["encoder"] |= {"layers": 1, "dim": 16, "heads": 2, "feedforward_dim": 16}
    for head in values["heads"].values():
        if "decoder" in head and "path" not in head:
            head["decoder"] = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = copy_recipe(tmp_path, "mboshi_french/st", shrink)
    replace(folder, "local.mboshi manifests", "local.mboshi manifests --valid 6")
    replace(folder, "--vocab-size 1000", "--vocab-size 33")
    return folder


def test_from_the_corpus_to_the_table(folder, tmp_path):
    corpus = mboshi.make(tmp_path / "corpus")
    make_whisper(tmp_path / "whisper", [french for _, french in mboshi.sentences()], num_mel_bins=80)
    llm = make_llm(tmp_path / "llm", max_position_embeddings=512)
    options = ("--corpus", str(corpus), "--whisper", str(tmp_path / "whisper"), "--llm", str(llm), "--beam", "2")
    done = run_recipe(folder, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = {path.parent.name for path in folder.glob("exp/*/decode/*/score.json")}
    assert {
        "dev.transducer.modified_beam",
        "dev.attention.beam",
        "valid.attention.beam",
        "dev.ctc.prefix_beam",
        "dev.ctc.prefix_beam+6-gram",
        "dev.mt.beam",
        "dev.reference.beam",
    } <= found
    score = json.loads((folder / "exp/whisper-aed/decode/dev.attention.beam/score.json").read_text())
    assert "bleu" in score["all"] and score["casings"] and "reference_in_train" in score["subsets"]
    report = (folder / "RESULTS.md").read_text()
    systems = (
        "blind",
        "fbank-transducer",
        "fbank-aed",
        "frozen-transducer",
        "frozen-aed",
        "tuned-aed",
        "whisper-aed",
        "cascade",
        "llm",
        "combination",
    )
    assert all(name in report for name in (*systems, "recogniser", "cascade, true transcripts"))
    some = run_recipe(folder, *options, "--systems", "fbank-aed cascade", "--splits", "dev", "--stage", "8")
    assert some.returncode == 0, some.stdout[-3000:] + some.stderr[-3000:]
    assert "whisper-aed" not in (folder / "RESULTS.md").read_text()
    again = run_recipe(folder, *options)
    assert again.returncode == 0 and "train-blind: done before" in again.stdout
    assert again.stdout.count("log in") == 1  # the scores of all


def test_a_corpus_that_is_not_there_is_named(folder, tmp_path):
    done = run_recipe(folder, "--corpus", str(tmp_path / "nothing"), "--systems", "blind")
    assert done.returncode != 0 and "nothing does not exist" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
