"""Training of language models with steps.train: better than counting words, resumption, what is refused."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from steps.lang.prepare import main as prepare_lang
from steps.lm.neural import open_language_model
from steps.model_folder import load_model
from tests.steps.lm.ngram_text import sentences
from tests.steps.parallel import write_supervisions
from tests.steps.training.interrupt import stopping_at
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import read_json

MODELS = {
    "lstm": {"embedding_dim": 24, "hidden_dim": 32, "layers": 1, "dropout": 0.1},
    "transformer": {"dim": 24, "layers": 1, "heads": 2, "feedforward_dim": 48, "dropout": 0.1},
}


def write_text(path: Path, lines: list[list[str]]) -> str:
    path.write_text("".join(" ".join(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with `train.en`, `dev.en`, `lang` (one token a word), and `<model>.yaml`."""
    root = tmp_path_factory.mktemp("lm")
    text = sentences(360)
    train, dev = write_text(root / "train.en", text[:300]), write_text(root / "dev.en", text[300:])
    with pytest.MonkeyPatch.context() as patch:
        words = ["--type", "bpe", "--vocab-size", "45", "--out", str(root / "lang")]
        patch.setattr("sys.argv", ["steps.lang.prepare", "--text", train, *words])
        prepare_lang()
    for name, sizes in MODELS.items():
        values = {
            "language_model": {"name": name, "lang": str(root / "lang"), **sizes},
            "data": {"train": train, "valid": dev, "max_tokens": 60, "num_buckets": 4},
            "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.0},
            "schedule": {"name": "constant"},
            "precision": "float32",
            "epochs": 4,
            "average": {"last_epochs": 1},
            "log_every": 50,
        }
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return root


@pytest.fixture
def train(root, train_conf):
    """Runs the command line: (model, folder, overrides ...) -> status."""
    return lambda name, *more: train_conf(root / f"{name}.yaml", *more)


def unigram_cost(root: Path, tokenizer) -> float:
    """Nats a token (ends included) of the dev text under the frequencies of its own tokens: no unigram does better."""
    texts = [tokenizer.encode(line) for line in (root / "dev.en").read_text().splitlines()]
    counts = Counter(token for text in texts for token in [*text, 1])
    total = sum(counts.values())
    return -sum(count * math.log(count / total) for count in counts.values()) / total


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_more_than_frequencies(train, root, tmp_path, capsys, name):
    assert train(name, tmp_path / "m") == 0
    shown = capsys.readouterr().err
    about = read_json(tmp_path / "m" / "train.json")
    assert about["data_texts"] == 300 and about["dropped_utterances"] == 0 and about["data_tokens"] > 1000
    assert set(about["valid"]) == {"loss", "text.cross_entropy"}
    assert "data: 300 texts, " in shown and " tokens/s, left 0:00:" in shown and "largest batch: " in shown
    model, tokenizer = open_language_model(tmp_path / "m")
    texts = [tokenizer.encode(line) for line in (root / "dev.en").read_text().splitlines()]
    cost = -float(model.score(texts).sum()) / sum(len(text) + 1 for text in texts)
    assert cost == pytest.approx(about["valid"]["loss"], abs=1e-4) and not model.training
    assert cost < unigram_cost(root, tokenizer) - 0.1
    assert train(name, tmp_path / "m") == 0
    assert "is finished: 4 epochs" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("data.sampling=0.3", "precision=bf16")])
def test_stopped_and_started_again_is_as_never_stopped(train, tmp_path, options):
    options = ("epochs=2", *options)
    assert train("lstm", tmp_path / "whole", *options) == 0
    steps = read_json(tmp_path / "whole" / "train.json")["steps"]
    with stopping_at(steps // 2 + 1):
        assert train("lstm", tmp_path / "halves", *options) == 143
    assert train("lstm", tmp_path / "halves", *options) == 0
    one, two = (load_checkpoint(tmp_path / name / "averaged.pt")["model"] for name in ("whole", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_sets_have_weights_and_may_be_cuts(train, root, tmp_path):
    cuts = write_supervisions(tmp_path / "cuts.jsonl.gz", copies=3)
    sets = f"data.train=[{{path: {cuts}, weight: 0.5}}, {{path: {root / 'train.en'}, weight: 2}}]"
    assert train("lstm", tmp_path / "m", sets, f"data.valid={cuts}", "epochs=1") == 0
    about = read_json(tmp_path / "m" / "train.json")
    assert about["data_texts"] == 320  # without the copies at other speeds
    assert about["tokens_seen"] == pytest.approx(about["data_tokens"], rel=0.05)
    french = f"data.valid={{path: {cuts}, target: translation.fr}}"
    assert train("lstm", tmp_path / "n", french, "epochs=1") == 0
    assert read_json(tmp_path / "n" / "train.json")["valid"]["loss"] != about["valid"]["loss"]


def test_an_icefall_checkpoint_is_a_beginning(train, root, tmp_path, capsys):
    """As icefall saves them: `{"model": ...}` with RnnLmModel's names."""
    assert train("lstm", tmp_path / "one", "epochs=0") == 0
    state = load_checkpoint(tmp_path / "one" / "averaged.pt")["model"]
    other = {name: torch.randn_like(value) for name, value in state.items()}
    save_checkpoint(tmp_path / "pretrained.pt", {"model": other})
    assert train("lstm", tmp_path / "two", "epochs=0", f"init.all={tmp_path / 'pretrained.pt'}") == 0
    found = open_language_model(tmp_path / "two")[0].state_dict()
    assert all(torch.equal(found[name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["encoder={name: zipformer}"], r"unknown key 'encoder'"),
        (["language_model.name=rnn"], r"language_model\.name = 'rnn': it is one of lstm, transformer"),
        (["language_model.hiden_dim=3"], r"unknown key 'language_model\.hiden_dim' \(did you mean 'hidden_dim'\?\)"),
        (["language_model.tied=true"], r"tied: embedding_dim 24 is not hidden_dim 32"),
        (["language_model.lang=nowhere"], r"nowhere.*does not exist"),
        (["data.train=nowhere.txt"], r"nowhere\.txt does not exist"),
        (["data.train=EMPTY"], r"empty\.txt holds no text: check the path"),
        (["data.train={path: CUTS, target: translation.de}"], r"no utterance has the target translation\.de"),
        (["data.train=CUTS", "data.max_length=1"], r"all texts are longer than 1 tokens: raise data\.max_length"),
        (["freeze=[rn]"], r"freeze: the model has no part 'rn' \(did you mean 'rnn'\?\)"),
    ],
)
def test_a_mistake_is_one_sentence(train, tmp_path, change, sentence):
    files = {"EMPTY": tmp_path / "empty.txt", "CUTS": write_supervisions(tmp_path / "cuts.jsonl.gz")}
    files["EMPTY"].write_text("\n \n")
    for name, path in files.items():
        change = [option.replace(name, str(path)) for option in change]
    with pytest.raises(UserError, match=sentence) as caught:
        train("lstm", tmp_path / "m", *change)
    assert "\n" not in str(caught.value) and not (tmp_path / "m" / "checkpoint.pt").exists()


def test_a_folder_of_something_else_is_refused(train, root, tmp_path):
    assert train("lstm", tmp_path / "m", "epochs=0") == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("encoder: {name: zipformer}\n")
    with pytest.raises(UserError, match="other holds no language model"):
        open_language_model(other)
    with pytest.raises(UserError, match=r"m holds a language model: give the folder of a model of speech"):
        load_model(tmp_path / "m")
    with pytest.raises(UserError, match=r"nowhere/config\.yaml does not exist"):
        open_language_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"epoch-9\.pt does not exist"):
        open_language_model(tmp_path / "m", "epoch-9.pt")
