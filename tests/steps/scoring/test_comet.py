"""COMET with a model that is injected, and with a package that is or is not there."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from steps.scoring.comet import Comet, load_comet
from steps.scoring.evaluate import Resampling, Settings, score_folder
from utils.errors import UserError
from utils.files import read_json


def row(number, **changes):
    usual = {"id": f"u{number}", "language": "es", "target": "translation.en", "ref": f"a b {number}", "hyp": "A b."}
    return {**usual, "source": f"x {number}", **changes}


def words_right(entries) -> list[float]:
    """Stands for a model: the share of the reference's words in the output."""
    return [np.mean([word in entry["mt"].split() for word in entry["ref"].split()]) for entry in entries]


def test_the_mean_over_utterances_with_interval_and_signature(decode_folder):
    seen = []

    def predict(entries):
        seen.extend(entries)
        return words_right(entries)

    rows = [row(number, hyp=f"a b {number % 3}") for number in range(12)]
    rows[4]["hyp"] = ""
    folder = decode_folder(target="translation.en", rows=rows)
    comet = Comet("Unbabel/wmt22-comet-da", "2.2.7", predict)
    system = score_folder(folder, Settings(resampling=Resampling(200, 5), comet=comet))
    entry = read_json(folder / "score.json")["all"]["comet"]
    assert entry["value"] == pytest.approx(100 * np.mean(words_right(seen)), abs=1e-3)
    assert entry["low"] < entry["value"] < entry["high"] and len(system.replicates["comet"]) == 200
    assert {"src": "x 4", "mt": "", "ref": "a b 4"} in seen
    signature = read_json(folder / "score.json")["signatures"]["comet"]
    assert signature == "model:Unbabel/wmt22-comet-da|bs:200|seed:5|case:mixed|scale:100|version:2.2.7"


def test_texts_are_as_they_are_and_the_first_reference_counts(decode_folder):
    folder = decode_folder(target="translation.en", rows=[row(1, ref="A b.", refs=["A b.", "other"])])
    from steps.scoring.text import TextRules

    rules = [TextRules(lowercase=True, remove_punctuation=True), TextRules()]
    score_folder(folder, Settings(rules, Resampling(0), comet=Comet("m", "1", words_right)))
    found = read_json(folder / "score.json")
    assert found["all"]["comet"] == {"value": 100.0} and "|refs:first|" in found["signatures"]["comet"]
    assert "comet" not in found["casings"]["cased"]["all"]


def test_recognition_is_not_judged(decode_folder):
    score_folder(folder := decode_folder(), Settings(comet=Comet("m", "1", lambda entries: pytest.fail())))
    assert "comet" not in read_json(folder / "score.json")["all"]


def test_without_sources(decode_folder):
    folder = decode_folder(target="translation.en", rows=[row(1), row(2, source=None), row(3, source="")])
    with pytest.raises(UserError, match=r"no 'source' \(what was said\) for 'u2' and 1 more, which COMET needs"):
        score_folder(folder, Settings(comet=Comet("m", "1", words_right)))


def test_a_score_that_is_no_number(decode_folder):
    folder = decode_folder(target="translation.en", rows=[row(1), row(2)])
    with pytest.raises(UserError, match=r"--comet: m gives 'u2' of .* no finite score"):
        score_folder(folder, Settings(comet=Comet("m", "1", lambda entries: [0.5, float("nan")])))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "models--Unbabel--wmt22-comet-da" / "snapshots" / "abc"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "model.ckpt").write_text("")
    return folder


def test_without_the_package(model, decode_folder, score, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    status, _, error = score(decode_folder(target="translation.en"), "--comet", model)
    assert status == 1 and "needs the package unbabel-comet" in error and "pip install unbabel-comet" in error
    assert error.count("\n") == 1


def test_without_the_model(decode_folder, score, tmp_path):
    status, _, error = score(decode_folder(), "--comet", tmp_path)
    assert status == 1 and f"{tmp_path / 'checkpoints' / 'model.ckpt'} does not exist; give the folder" in error


def test_the_package_is_called_as_it_wants(model, decode_folder, score, monkeypatch):
    package, asked = ModuleType("comet"), {}

    def predict(entries, gpus, progress_bar):
        asked.update(gpus=gpus, progress_bar=progress_bar)
        return SimpleNamespace(scores=words_right(entries))

    package.load_from_checkpoint = lambda path: asked.update(path=path) or SimpleNamespace(predict=predict)
    monkeypatch.setitem(sys.modules, "comet", package)
    folder = decode_folder(target="translation.en", rows=[row(1, hyp="a b 1"), row(2)])
    status, out, error = score(folder, "--comet", model, "--report", folder / "R.md")
    assert status == 0, error
    assert asked["path"] == str(model / "checkpoints" / "model.ckpt") and asked["progress_bar"] is False
    assert "comet 50.00" in out
    text = (folder / "R.md").read_text("utf-8")
    assert (
        "**COMET**" in text
        and "COMET (times 100): higher is better" in text
        and "- COMET: `model:Unbabel/wmt22-comet-da|bs:1000|" in text
    )
    assert load_comet(model).model == load_comet(model / "checkpoints" / "model.ckpt").model


def test_a_model_that_does_not_load(model, monkeypatch):
    package = ModuleType("comet")

    def fail(path):
        raise Exception("hparams.yaml file is missing from\nthere!")

    package.load_from_checkpoint = fail
    monkeypatch.setitem(sys.modules, "comet", package)
    with pytest.raises(UserError, match=r"does not load \(hparams.yaml file is missing from there!\): download it"):
        load_comet(model)
