"""Training on parallel text with steps.train: resumption, pretrained translators, what is refused."""

from __future__ import annotations

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

from steps.lang.tokenizer import Tokenizer
from steps.lm.export_adapter import main as export_adapter
from steps.search.translation import SearchOptions
from steps.translator import TextTranslator
from steps.translator_folder import load_translator
from tests.steps.parallel import EN, settings, write_rows, write_supervisions
from tests.steps.tiny_translators import write_marian, write_t5
from tests.steps.training.interrupt import stopping_at
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.files import read_json

LAYER = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 24, "dropout": 0.1}


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """A folder with parallel text, lang folders and `conf.yaml`."""
    root = tmp_path_factory.mktemp("mt")
    values = {**settings(root, LAYER), "schedule": {"name": "constant"}, "log_every": 2}
    values["data"]["max_tokens"] = 150
    values["data"]["valid"] = str(write_supervisions(root / "cuts.jsonl.gz"))
    (root / "conf.yaml").write_text(yaml.safe_dump(values))
    return root / "conf.yaml"


@pytest.fixture
def train(conf, train_conf):
    """Runs the command line: (folder, overrides ...) -> status."""
    return lambda *more, config=conf: train_conf(config, *more)


def test_the_folder_tells_what_was_trained_and_on_what(train, tmp_path, capsys):
    assert train(tmp_path / "m", "data.noise={probability: 0.5}") == 0
    shown = capsys.readouterr().err
    about = read_json(tmp_path / "m" / "train.json")
    assert about["data_pairs"] == 20 and about["dropped_utterances"] == 0
    assert about["tokens_seen"] == pytest.approx(2 * about["data_tokens"], rel=0.05) and about["data_tokens"] > 200
    assert set(about["final"]) == set(about["valid"]) == {"loss", "text.cross_entropy"}
    first, last = (float(part.split(" ")[0]) for part in shown.split("valid ")[1:3])
    assert last < first
    assert "data: 20 pairs, " in shown and " tokens/s, left 0:00:" in shown and "largest batch: " in shown
    model, tokens = load_translator(tmp_path / "m")
    assert not model.training and tokens.decode(tokens.target("L'enfant dort.")) == "L'enfant dort."
    assert train(tmp_path / "m", "data.noise={probability: 0.5}") == 0
    assert "is finished: 2 epochs" in capsys.readouterr().err


def test_stopped_and_started_again_is_as_never_stopped(train, tmp_path):
    noise = "data.noise={probability: 1.0, characters: 0.2}"
    assert train(tmp_path / "whole", noise) == 0
    steps = read_json(tmp_path / "whole" / "train.json")["steps"]
    with stopping_at(steps // 2 + 1):
        assert train(tmp_path / "halves", noise) == 143
    assert train(tmp_path / "halves", noise) == 0
    one, two = (load_checkpoint(tmp_path / name / "averaged.pt")["model"] for name in ("whole", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_sets_are_joined_and_parts_begin_elsewhere(train, conf, tmp_path, capsys):
    cuts = str(write_supervisions(tmp_path / "cuts.jsonl.gz", copies=3))
    hyp = write_rows(tmp_path / "hyp.jsonl", [{"id": "u03", "hyp": "a man sinks"}])
    sets = f"data.train=[{cuts}, {{path: {cuts}, recognised: {hyp}, weight: 2}}]"
    assert train(tmp_path / "one", "epochs=1", sets) == 0
    assert read_json(tmp_path / "one" / "train.json")["data_pairs"] == 21
    assert train(tmp_path / "two", "epochs=1", f"init.net.head={tmp_path / 'one'}", "freeze=[net.head]") == 0
    assert "net.head begins as in" in capsys.readouterr().err
    one, two = (load_checkpoint(tmp_path / name / "averaged.pt")["model"] for name in ("one", "two"))
    same = {key: torch.equal(one[key], two[key]) for key in one}
    assert all(same[key] for key in same if ".head." in key) and not all(same[key] for key in same)
    with pytest.raises(
        UserError, match=r"nothing for 'net\.head' in 'heads\.st'.*: its parts are net\.encoder, net\.head"
    ):
        train(tmp_path / "three", f"init={{net.head: '{tmp_path / 'one'}:heads.st'}}")


def test_shared_embeddings_are_of_the_same_tokens(train, conf, tmp_path):
    share, root = ("epochs=0", "translator.share_embeddings=true"), conf.parent
    sizes = {side: Tokenizer.load(root / f"lang_{side}").vocab_size for side in ("source", "target")}
    assert sizes["source"] == sizes["target"]  # it is not by their sizes that they differ
    with pytest.raises(UserError, match=r"share_embeddings: .*lang_source and .*lang_target have different tokens"):
        train(tmp_path / "two", *share)
    assert train(tmp_path / "one", *share, f"source.lang={root / 'lang_target'}") == 0


def seq2seq(conf, folder, **translator):
    """`conf.yaml` in `folder`, which holds a pretrained translator, that fine-tunes it for an epoch."""
    values = yaml.safe_load(conf.read_text())
    values["translator"] = {"name": "seq2seq", "path": str(folder), **translator}
    values |= {"source": {}, "target": {"target": "translation.fr"}, "epochs": 1}
    (folder / "conf.yaml").write_text(yaml.safe_dump(values))
    return folder / "conf.yaml"


def test_a_model_with_two_sentencepiece_models_is_fine_tuned_and_translates(train, conf, tmp_path, capsys):
    (tmp_path / "marian").mkdir()
    config = seq2seq(conf, write_marian(tmp_path / "marian"))
    assert train(tmp_path / "m", "data.max_tokens=600", config=config) == 0
    config.parent.rename(tmp_path / "gone")
    assert read_json(tmp_path / "m" / "train.json")["steps"] == 1
    model, tokens = load_translator(tmp_path / "m")
    limit = SearchOptions(beam=1, max_tokens=8)
    said = TextTranslator(model, tokens, limit, torch.device("cpu"))(EN[:3], ["en"] * 3)
    assert all(best[0].text and best[0].score < 0 for best in said)
    assert train(tmp_path / "m", "data.max_tokens=600", config=tmp_path / "gone" / "conf.yaml") == 0
    assert "is finished: 1 epochs" in capsys.readouterr().err


def test_the_exported_adapter_reloads_and_gives_the_same_text(train, conf, tmp_path, capsys):
    config = seq2seq(conf, write_t5(tmp_path), lora={"rank": 4, "alpha": 64, "targets": ["q", "v"]})
    assert train(tmp_path / "m", "epochs=5", config=config) == 0
    assert export_adapter(["--model", str(tmp_path / "m"), "--out", str(tmp_path / "adapter")]) == 0
    assert "adapter of 12 tensors" in capsys.readouterr().out  # A and B of q and v of three attentions
    model, tokens = load_translator(tmp_path / "m")
    limit = SearchOptions(beam=1, max_tokens=12)
    found = TextTranslator(model, tokens, limit, torch.device("cpu"))(EN[:6], ["en"] * 6)
    plain, base = (AutoModelForSeq2SeqLM.from_pretrained(tmp_path) for _ in range(2))
    said = []
    for net in (plain, PeftModel.from_pretrained(base, tmp_path / "adapter").eval()):
        for text in EN[:6]:
            ids = net.generate(input_ids=torch.tensor([tokens.source(text)]), max_new_tokens=12, do_sample=False)
            said.append(tokens.decode(ids[0].tolist()))
    assert said[6:] == [best[0].text for best in found] != said[:6]
    for options, complaint in (
        (
            ["--model", str(tmp_path / "m"), "--head", "llm"],
            r"--head llm: .* is a translator of text, which has no",
        ),
        (["--model", str(tmp_path / "plain")], r"its translator has no adapter \(lora\)"),
    ):
        assert train(tmp_path / "plain", "epochs=0") == 0
        with pytest.raises(UserError, match=complaint):
            export_adapter([*options, "--out", str(tmp_path / "a")])


def test_adapters_of_a_pretrained_one_are_all_that_is_saved(train, conf, tmp_path):
    config = seq2seq(conf, write_t5(tmp_path), lora={"rank": 2, "targets": ["q", "v"]})
    assert train(tmp_path / "m", config=config) == 0
    saved = load_checkpoint(tmp_path / "m" / "averaged.pt")["model"]
    assert saved and all(".lora_" in name for name in saved)
    model, tokens = load_translator(tmp_path / "m")
    adapters = [value for name, value in model.state_dict().items() if ".lora_B" in name]
    assert any(value.abs().sum() > 0 for value in adapters) and tokens.decode(tokens.target("L'enfant")) == "L'enfant"
    about = read_json(tmp_path / "m" / "train.json")
    assert about["parameters_trained"] == sum(value.numel() for value in saved.values()) < about["parameters"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["encoder={name: zipformer}"], r"unknown key 'encoder'"),
        (["translator.encoder.dims=3"], r"unknown key 'translator\.encoder\.dims' \(did you mean 'dim'\?\)"),
        (["data.max_token=3"], r"unknown key 'data\.max_token' \(did you mean 'max_tokens'\?\)"),
        (["target.target=translation.de"], r"cuts\.jsonl\.gz: no utterance has translation\.de"),
        (["data.train=nowhere.jsonl"], r"nowhere\.jsonl does not exist"),
        (["data.max_length=3"], r"all pairs are longer than 3 tokens: raise data\.max_length"),
        (
            [
                "data.sampling=0.1",
                "translator={name: seq2seq, path: x}",
                "source={}",
                "target={target: translation.fr}",
            ],
            r"data\.sampling: a pretrained translator's tokens",
        ),
        (["source.lang=nowhere"], r"nowhere/tokens\.txt does not exist"),
        (["freeze=[net.heads]"], r"freeze: the model has no part 'net\.heads' \(did you mean 'net\.head'\?\)"),
        (["translator={name: seq2seq, path: ./nowhere}", "source={}", "target={target: translation.fr}"], r"no folder"),
    ],
)
def test_a_mistake_is_one_sentence(train, tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        train(tmp_path / "m", *change)
    assert "\n" not in str(caught.value) and not (tmp_path / "m" / "checkpoint.pt").exists()
