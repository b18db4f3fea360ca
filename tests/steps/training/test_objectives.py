"""Training with two views of every utterance (CR-CTC) and with lattice-free MMI: it learns, goes on, and refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from steps.lm.arpa import read_arpa, write_arpa
from steps.lm.kneser_ney import estimate, vocabulary
from steps.model_folder import load_model
from steps.train import train
from steps.training.bigram import table
from steps.training.config import TrainConfig
from steps.training.folder import TrainFolder
from tests.steps.training.test_train_command import Stopped, raise_stopped, same_result, stop_at
from tests.steps.training.test_two_processes import train_by_two
from utils.distributed import World
from utils.errors import UserError
from utils.files import read_json
from utils.options import check_config, override


def fit(settings: dict, out: Path, *changes: str) -> int:
    return train(check_config(override(settings, list(changes)), TrainConfig, "test"), TrainFolder(out), World())


OBJECTIVES = {
    "two views": {"consistency": 0.2, "warm_step": 4},
    "mmi": {"objective": "mmi", "warm_step": 4, "backend": "torch"},
}


@pytest.fixture(params=OBJECTIVES)
def objective(request) -> dict:
    return OBJECTIVES[request.param]


def first_and_last(out: Path) -> tuple[float, float]:
    log = (out / "log/train.log").read_text()
    return float(log.split("valid ")[1].split(" ")[0]), read_json(out / "train.json")["valid"]["loss"]


def test_it_learns_and_goes_on_as_if_never_stopped(settings, tmp_path, monkeypatch, objective):
    settings["heads"]["ctc"] |= objective
    assert fit(settings, tmp_path / "whole", "epochs=2") == 0
    about = read_json(tmp_path / "whole" / "train.json")
    names = {f"ctc.{name}" for name in (objective.get("objective", "ctc"), "consistency")}
    assert {name for name in about["final"] if name.startswith("ctc.")} == names & about["final"].keys()
    assert about["valid"].keys() == about["final"].keys() - {"ctc.consistency"}
    assert about["backends"].keys() == about["final"].keys() - {"loss"}
    assert ("ctc.consistency" in about["final"]) == ("consistency" in objective)
    assert all(value > 0 for value in about["final"].values())
    assert about["speech_hours_seen"] == pytest.approx(2 * about["data_hours"], abs=2e-4)
    first, last = first_and_last(tmp_path / "whole")
    assert last < 0.9 * first
    with monkeypatch.context() as patch:
        stop_at(patch, 9, raise_stopped)
        with pytest.raises(Stopped):
            fit(settings, tmp_path / "parts", "save_every_steps=4")
    assert fit(settings, tmp_path / "parts") == 0
    same_result(tmp_path / "whole", tmp_path / "parts", 2)
    load_model(tmp_path / "whole")


def test_two_processes_agree_on_both(task, tmp_path):
    changes = ["epochs=1", "heads.ctc.objective=mmi", "heads.ctc.consistency=0.2", "heads.ctc.warm_step=2"]
    statuses, shown = train_by_two(str(task / "conf.yaml"), "--out", str(tmp_path), *changes)
    assert statuses == [0, 0], shown
    assert shown[0].count("averaged.pt: valid") == 1 and (tmp_path / "lang/ctc/bigram.arpa").exists()


def test_a_bigram_that_is_given_is_taken_and_kept(settings, tmp_path, task):
    tokens = [line.split()[0] for line in (task / "data/lang_char/tokens.txt").read_text("utf-8").splitlines()]
    text = [list("▁abc"), list("▁fed")]
    given = tmp_path / "own.arpa"
    write_arpa(given, estimate(text, 2, vocabulary(text, tokens[3:])).model)
    settings["heads"]["ctc"] |= {"objective": "mmi", "bigram": str(given)}
    out = tmp_path / "model"
    assert fit(settings, out, "epochs=1") == 0
    kept = read_arpa(out / "lang/ctc/bigram.arpa")
    assert torch.equal(table(kept, tokens, ""), table(read_arpa(given), tokens, ""))
    given.unlink()
    assert fit(settings, out, "epochs=2") == 0


def test_the_table_holds_probabilities_of_texts():
    tokens = ["<blk>", "<sos/eos>", "<unk>", "a", "b", "c"]
    text = [list("ab"), list("abc"), list("a"), list("cc")]
    model = estimate(text, 2, vocabulary(text, tokens[3:])).model
    found = table(model, tokens, "x")
    torch.testing.assert_close(found.exp().sum(1), torch.ones(6))
    ids = {word: model.ids[word] for word in ("<s>", "a", "b", "</s>")}
    for row, column, before, after in ((0, 3, "<s>", "a"), (3, 4, "a", "b"), (4, 0, "b", "</s>")):
        grams = model.orders[1]
        exact = grams.log_prob[model.find(2, model.find(1, 0, ids[before]), ids[after])]
        assert float(found[row, column]) == pytest.approx(float(exact), rel=1e-5)
    assert found[0, 1] == -torch.inf


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"consistency": 0.2, "spec": None}, r"heads\.ctc\.consistency compares two .* data\.spec_augment is null"),
        ({"bigram": "x.arpa"}, "'bigram' does nothing without 'objective: mmi'"),
        ({"objective": "mmi", "bigram": "x.arpa"}, r"x\.arpa does not exist"),
        ({"objective": "mmi", "bigram": "trigram"}, "has 3-grams, objective mmi wants a bigram"),
        ({"objective": "mmi", "bigram": "others"}, "has other words than the head's tokens"),
        ({"objective": "mni"}, "'mni'"),
    ],
)
def test_a_mistake_is_one_sentence(settings, tmp_path, changes, sentence):
    text = [list("abcabc"), list("cab"), list("fedfe")]
    write_arpa(tmp_path / "trigram", estimate(text, 3, vocabulary(text)).model)
    write_arpa(tmp_path / "others", estimate([list("xyz")], 2, vocabulary([list("xyz")])).model)
    if "spec" in changes:
        settings["data"]["spec_augment"] = changes.pop("spec")
    if (bigram := changes.get("bigram", "x.")).find(".") < 0:
        changes["bigram"] = str(tmp_path / bigram)
    settings["heads"]["ctc"] |= changes
    with pytest.raises(UserError, match=sentence) as caught:
        fit(settings, tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_waveforms_have_no_views(settings, tmp_path, task):
    shutil.copytree(task / "data", tmp_path / "data")
    (tmp_path / "data/features.yaml").write_text(yaml.safe_dump({"type": "waveform"}))
    settings["data"]["train"] = str(tmp_path / "data/train/cuts.jsonl.gz")
    settings["encoder"] = {"name": "hubert", "path": "nowhere"}
    settings["heads"]["ctc"]["consistency"] = 0.2
    with pytest.raises(UserError, match=r"heads\.ctc\.consistency .* but features are waveforms: leave it out"):
        fit(settings, tmp_path / "model")


def test_too_many_tokens_for_a_table(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("steps.training.bigram.LARGEST", 5)
    settings["heads"]["ctc"]["objective"] = "mmi"
    with pytest.raises(UserError, match=r"heads\.ctc: objective mmi keeps a table .* at most 5"):
        fit(settings, tmp_path)
