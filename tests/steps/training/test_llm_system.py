"""A speech encoder, a projector and a language model with adapters, from stage 3 to an exported adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from steps.decode import main as decode
from steps.lang.prepare import main as prepare_lang
from steps.lang.prompts import SLOT
from steps.lm.export_adapter import main as export_adapter
from steps.model_folder import load_model
from steps.prepare.cuts import Cuts
from steps.train import main as train
from steps.training.data import head_prompt
from tests.steps.tiny_llm import make_llm
from tests.steps.tiny_models import write_tokenizer
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

HEAD = {
    "name": "llm",
    "target": "translation.fr",
    "projector": {"name": "mlp", "factor": 2, "hidden_dim": 32},
    "lora": {"rank": 4, "alpha": 8},
    "prompt": "<speech>\nTranslate the {language_name} speech into {target_name}:",
}


def run_train(patch, *words: str) -> int:
    patch.setattr("sys.argv", ["steps.train", *words])
    return train()


@pytest.fixture(scope="module")
def world(task, tmp_path_factory) -> Path:
    """Language model, its token set, and a model that was trained for 30 steps and more."""
    root = tmp_path_factory.mktemp("llm")
    llm, cuts = make_llm(root / "llm"), task / "data" / "train" / "cuts.jsonl.gz"
    values = yaml.safe_load((task / "conf.yaml").read_text())
    values["heads"] = {"llm": {**HEAD, "path": str(llm), "lang": str(root / "lang")}}
    values["data"]["spec_augment"] = None
    values |= {"epochs": 6, "optimizer": {"name": "adamw", "lr": 1e-2}, "clip_norm": 1.0}
    values |= {"schedule": {"name": "cosine", "warmup_steps": 3}}
    (root / "conf.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        options = ["--cuts", str(cuts), "--target", "translation.fr", "--type", "pretrained", "--path", str(llm)]
        patch.setattr("sys.argv", ["steps.lang.prepare", *options, "--out", str(root / "lang"), "--all-tokens"])
        prepare_lang()
        assert run_train(patch, str(root / "conf.yaml"), "--out", str(root / "exp")) == 0
    return root


def texts(model: Path, cuts: Path, out: Path, *options: str) -> dict[str, str]:
    """What `steps.decode` finds, by utterance."""
    assert decode(["--model", str(model), "--cuts", str(cuts), "--out", str(out), *options]) == 0
    (file,) = out.glob("*/hyp.jsonl")
    return {row["id"]: row["hyp"] for row in map(json.loads, file.read_text().splitlines())}


@pytest.fixture(scope="module")
def found(world, task) -> dict[str, str]:
    return texts(world / "exp", task / "data" / "dev" / "cuts.jsonl.gz", world / "decode", "--search", "llm:greedy")


def test_it_learns_and_saves_what_was_trained(world):
    report = json.loads((world / "exp" / "train.json").read_text())
    assert report["steps"] >= 30 and report["valid"]["llm.llm"] < 4.25
    state = load_checkpoint(world / "exp" / "averaged.pt")["model"]
    inside = {name for name in state if name.startswith("heads.llm.llm.")}
    assert inside and all(".lora_" in name for name in inside) and "heads.llm.projector.norm.weight" in state
    assert (world / "exp" / "pretrained" / "heads.llm" / "config.json").exists()


def test_the_folder_and_the_language_model_give_the_same_text(world, task, found, tmp_path):
    shutil.copytree(world / "exp", tmp_path / "moved")
    cuts = task / "data" / "dev" / "cuts.jsonl.gz"
    assert texts(tmp_path / "moved", cuts, tmp_path / "out", "--search", "llm:greedy") == found
    assert len(set(found.values())) > 1  # it listens
    one = texts(tmp_path / "moved", cuts, tmp_path / "one", "--search", "llm:greedy", "--max-duration", "0.1")
    assert one == found
    options = ("--search", "llm:beam", "--beam", "3", "--nbest", "2", "--max-tokens", "2")
    assert all(len(text) < 40 for text in texts(world / "exp", cuts, tmp_path / "beam", *options).values())
    rows = (tmp_path / "beam" / "dev.llm.beam" / "nbest.jsonl").read_text().splitlines()
    assert all(len(json.loads(row)["nbest"]) == 2 for row in rows)


def test_the_exported_adapter_reloads_and_gives_the_same_text(world, task, found, tmp_path, capsys):
    """Through peft and transformers alone but for encoder, projector and prompt."""
    options = ["--model", str(world / "exp"), "--head", "llm", "--out", str(tmp_path / "adapter")]
    assert export_adapter(options) == 0 and "adapter of 8 tensors" in capsys.readouterr().out
    llm = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(str(world / "llm")), tmp_path / "adapter"
    ).eval()
    model, tokenizers, config = load_model(world / "exp")
    head, tokenizer = model.heads["llm"], tokenizers["llm"]
    prompt = head_prompt(config.heads["llm"], tokenizer)("en")
    slot, ids = prompt.index(SLOT), torch.tensor(tokenizer.ids)
    unwanted = {*range(336)} - {*tokenizer.ids} | {tokenizer.ids[i] for i in tokenizer.suppressed}
    for cut in list(Cuts.load(task / "data" / "dev" / "cuts.jsonl.gz"))[:4]:
        with torch.inference_mode():
            features = torch.from_numpy(cut.load_features())[None]
            out, lens = model.encode(features, torch.tensor([features.shape[1]]))
            speech, _ = head.projector(out, lens)
            words = [llm.get_input_embeddings()(ids[part]) for part in (prompt[:slot], prompt[slot + 1 :])]
            request = torch.cat((words[0], speech[0], words[1]))[None]
            mask = {"attention_mask": torch.ones(1, request.shape[1], dtype=torch.int64), "pad_token_id": 2}
            limits = {"max_new_tokens": int(lens), "suppress_tokens": sorted(unwanted - {-1}), "do_sample": False}
            said = llm.generate(inputs_embeds=request, eos_token_id=2, **mask, **limits)[0].tolist()
        assert tokenizer.decode([tokenizer.ids.index(i) for i in said if i != 2]) == found[cut.id]


@pytest.mark.parametrize(
    "overrides, complaint",
    [
        (["heads.llm.lang=LANG_CHAR"], "LANG_CHAR has no ids of its tokens"),
        (["heads.llm.path=HuggingFaceTB/SmolLM2-135"], "'HuggingFaceTB/SmolLM2-135' is neither a folder here nor"),
        (["heads.llm.path=/no/such/folder"], "heads.llm.path: /no/such/folder is no folder"),
        (["heads.llm.prompt=translate"], "a prompt without the slot for speech"),
        (["heads.llm.prompt=<speech> {langage}"], "did you mean 'language'"),
        (
            ["heads.llm.prompt={fr: <speech>}"],
            "No prompt is given for the language 'en': add it to prompt, or 'default'",
        ),
    ],
)
def test_mistakes_are_one_sentence(world, task, tmp_path, monkeypatch, overrides, complaint):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    char = str(task / "data" / "lang_char")
    words = [word.replace("LANG_CHAR", char) for word in overrides]
    with pytest.raises(UserError) as error:
        run_train(monkeypatch, str(world / "conf.yaml"), "--out", str(tmp_path / "exp"), *words)
    assert complaint.replace("LANG_CHAR", char) in str(error.value) and "\n" not in str(error.value)


def test_a_tokenizer_that_does_not_fit_is_one_sentence(world, tmp_path, monkeypatch):
    small = make_llm(tmp_path / "small", vocab_size=300)
    with pytest.raises(UserError, match="has 300 tokens: make the lang folder from that model's tokenizer"):
        run_train(monkeypatch, str(world / "conf.yaml"), "--out", str(tmp_path / "exp"), f"heads.llm.path={small}")
    other = make_llm(tmp_path / "other")  # with as many tokens, which are others
    write_tokenizer(other, ["un autre texte"])
    with pytest.raises(UserError, match=r"heads\.llm\.lang: .*lang has '.*' as the model's token \d+, in .*other that"):
        run_train(monkeypatch, str(world / "conf.yaml"), "--out", str(tmp_path / "exp"), f"heads.llm.path={other}")
    (small / "tokenizer.json").unlink()
    options = [
        "--cuts",
        str(world / "lang"),
        "--type",
        "pretrained",
        "--path",
        str(small),
        "--out",
        str(tmp_path / "l"),
    ]
    options[1] = yaml.safe_load((world / "conf.yaml").read_text())["data"]["train"]
    monkeypatch.setattr("sys.argv", ["steps.lang.prepare", *options])
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        prepare_lang()


def test_what_cannot_be_exported_is_one_sentence(world, tmp_path):
    for options, complaint in (
        (["--model", str(world)], r"config\.yaml does not exist"),
        (["--head", "lmm"], "has no head 'lmm' .did you mean 'llm'"),
        (["--checkpoint", "epoch-99.pt"], "does not exist"),
    ):
        with pytest.raises(UserError, match=complaint):
            export_adapter(["--model", str(world / "exp"), "--out", str(tmp_path), *options])
    shutil.copytree(world / "exp", tmp_path / "exp")
    values = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    values["heads"]["llm"]["lora"] = None
    (tmp_path / "exp" / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="no language model with an adapter"):
        export_adapter(["--model", str(tmp_path / "exp"), "--out", str(tmp_path / "a")])
