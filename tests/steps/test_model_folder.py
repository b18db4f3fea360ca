"""Model folders with parts that others trained: what is saved, and that it comes back from where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import WhisperConfig, WhisperForConditionalGeneration

from steps.lang.tables import write_table
from steps.model_folder import copy_pretrained, load_model
from steps.nets.model import Model, ModelConfig
from steps.training.initial import initialise
from utils.checkpoint import fit_state, save_checkpoint
from utils.errors import UserError

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
FEATURES = torch.randn(2, 40, 80, generator=torch.Generator().manual_seed(0)), torch.tensor([40, 31])


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    """A random Whisper as transformers saves it."""
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=1, **SIZES, **heads)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make(whisper: Path, folder: Path, **more) -> Model:
    """A model on Whisper's encoder, and its folder."""
    values = {"encoder": {"name": "whisper", "path": str(whisper)}, "heads": {"ctc": {"lang": "x"}}, **more}
    (folder / "lang" / "ctc").mkdir(parents=True)
    write_table(folder / "lang" / "ctc" / "tokens.txt", ["<blk>", "<sos/eos>", "<unk>", "▁", "a", "b"])
    (folder / "lang" / "ctc" / "lang.json").write_text(json.dumps({"type": "char"}))
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    config = ModelConfig.model_validate(values)
    copy_pretrained(config, folder)
    torch.manual_seed(1)
    model = Model(config, {"ctc": 6})
    model.load_pretrained({"ctc": None})
    return model


def save(model: Model, folder: Path) -> set[str]:
    """Save the model as training does; the names in the file."""
    state = model.state_dict()
    save_checkpoint(folder / "averaged.pt", {"model": state})
    return set(state)


def same(model: Model, other: Model) -> bool:
    """Whether both compute the same."""
    with torch.no_grad():
        ours, theirs = (m.eval().encode(*FEATURES).out for m in (model, other))
    equal = [torch.equal(value, other.full_state()[name]) for name, value in model.full_state().items()]
    return torch.equal(ours, theirs) and all(equal)


def test_what_is_frozen_is_not_saved_and_comes_back(whisper, tmp_path):
    model = make(whisper, tmp_path, freeze=["encoder"])
    assert save(model, tmp_path) == {"encoder.pos.weight", *(f"heads.ctc.ctc_output.1.{n}" for n in ("weight", "bias"))}
    assert same(model, load_model(tmp_path)[0])
    fit_state(model, model.state_dict(), "checkpoint.pt")  # as training goes on


def test_what_is_trained_needs_the_pretrained_model_no_more(whisper, tmp_path):
    model = make(whisper, tmp_path)
    with torch.no_grad():
        model.encoder.conv1.weight.add_(1)
    save(model, tmp_path)
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    values["encoder"]["path"] = str(tmp_path / "gone")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert same(model, load_model(tmp_path)[0])


def test_adapters_are_saved_without_what_they_adapt(whisper, tmp_path):
    lora = {"encoder": {"name": "whisper", "path": str(whisper), "lora": {"rank": 2}}}
    model = make(whisper, tmp_path, **lora)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B" in name:
                value.add_(0.1)
    saved = save(model, tmp_path)
    assert {name for name in saved if name.startswith("encoder.")} == {
        "encoder.pos.weight",
        *(f"encoder.layers.0.self_attn.linear_{n}.lora_{m}.default.weight" for n in "qv" for m in "AB"),
    }
    assert same(model, load_model(tmp_path)[0])


def test_a_frozen_part_that_began_elsewhere_is_saved(whisper, tmp_path):
    trained = make(whisper, tmp_path / "asr")
    with torch.no_grad():
        trained.encoder.conv1.weight.add_(1)
    save(trained, tmp_path / "asr")
    model = make(whisper, tmp_path / "frozen", freeze=["encoder"])
    assert initialise(model, {"encoder": str(tmp_path / "asr")})[0].startswith("encoder begins as in")
    assert torch.equal(model.encoder.conv1.weight, trained.encoder.conv1.weight)
    assert "encoder.conv1.weight" in save(model, tmp_path / "frozen")
    assert same(model, load_model(tmp_path / "frozen")[0])


def test_another_models_checkpoint_is_refused(whisper, tmp_path):
    model = make(whisper, tmp_path, freeze=["encoder"])
    save_checkpoint(tmp_path / "averaged.pt", {"model": {**model.state_dict(), "heads.b.x": torch.zeros(1)}})
    with pytest.raises(UserError, match=r"heads\.b\.x"):
        load_model(tmp_path)
    save_checkpoint(tmp_path / "averaged.pt", {"model": {"encoder.pos.weight": model.encoder.pos.weight}})
    with pytest.raises(UserError, match=r"it has no .heads\.ctc"):
        load_model(tmp_path)
