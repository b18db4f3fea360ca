"""A tiny Whisper fine-tuned by steps.train, with all kinds of heads, and what of it a model folder holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from steps.average import main as average
from steps.decode import main as decode
from steps.lang.prepare import main as prepare_lang
from steps.model_folder import load_model
from steps.prepare.encoder_features import encoder_extractor
from steps.prepare.features import main as prepare_features
from steps.recogniser import Recogniser
from steps.train import train
from steps.training.config import TrainConfig
from steps.training.folder import TrainFolder
from steps.transcribe import main as transcribe
from tests.steps.tiny_models import PROMPT, make_speech_model, write_tokenizer
from utils.checkpoint import load_checkpoint
from utils.distributed import World
from utils.errors import UserError
from utils.files import read_json, read_jsonl
from utils.options import check_config


def fit(settings: dict, out: Path) -> int:
    return train(check_config(settings, TrainConfig, "test"), TrainFolder(out), World())


@pytest.fixture(scope="module")
def whisper_task(world, tiny_whisper, tmp_path_factory) -> Path:
    """A folder with Whisper's features of the utterances, two lang folders, a copy of Whisper, and `conf.yaml`."""
    root = tmp_path_factory.mktemp("whisper_task")
    shutil.copytree(tiny_whisper[0], root / "whisper")
    options = ["--manifests", str(world.root / "manifests"), "--out", str(root / "data"), "--splits", "test"]
    assert prepare_features([*options, "type=whisper", "num_mel_bins=8"]) == 0
    cuts = str(root / "data" / "test" / "cuts.jsonl.gz")
    with pytest.MonkeyPatch.context() as patch:
        for out, more in (("char", ["--type", "char"]), ("own", ["--type", "pretrained", "--path", "whisper"])):
            more = [str(root / word) if word == "whisper" else word for word in more]
            options = ["--cuts", cuts, "--target", "text", "translation.en", *more, "--out", str(root / out)]
            patch.setattr("sys.argv", ["steps.lang.prepare", *options])
            prepare_lang()
    whisper, own = str(root / "whisper"), str(root / "own")
    values = {
        "encoder": {"name": "whisper", "path": whisper},
        "heads": {
            "low": {"name": "ctc", "lang": str(root / "char"), "layer": 1, "weight": 0.3},
            "ctc": {"lang": own, "weight": 0.3},
            "asr": {"name": "attention", "lang": own, "path": whisper, "prompt": PROMPT},
            "st": {
                "name": "attention",
                "lang": own,
                "target": "translation.en",
                "share": "asr",
                "prompt": PROMPT.replace("language", "target"),
            },
        },
        "data": {"train": cuts, "valid": cuts, "max_duration": 4.0, "spec_augment": None},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "eden", "warmup_batches": 2},
        "precision": "float32",
        "probe": False,
        "epochs": 2,
        "average": {"last_epochs": 1, "period": 1},
    }
    (root / "conf.yaml").write_text(yaml.safe_dump(values))
    return root


@pytest.fixture
def settings(whisper_task) -> dict:
    return yaml.safe_load((whisper_task / "conf.yaml").read_text())


@pytest.fixture(scope="module")
def trained(whisper_task, tmp_path_factory) -> Path:
    """A model of which everything was trained (read-only)."""
    out = tmp_path_factory.mktemp("exp") / "model"
    assert fit(yaml.safe_load((whisper_task / "conf.yaml").read_text()), out) == 0
    return out


def test_all_heads_learn(trained):
    about = read_json(trained / "train.json")
    assert about["final"].keys() == {"loss", "low.ctc", "ctc.ctc", "asr.attention", "st.attention"}
    first = (trained / "log/train.log").read_text().split("valid ")[1].split(" ")[0]
    assert about["valid"]["loss"] < float(first)


def test_part_of_what_it_began_with_is_mixed_in(trained, settings, tmp_path, monkeypatch):
    """WiSE-FT: pretrained parameters are 3/4 those of the same training without it, 1/4 as they were; others stay."""
    settings["average"]["initial"] = 0.25
    assert fit(settings, tmp_path / "mixed") == 0
    mixed = load_checkpoint(tmp_path / "mixed" / "averaged.pt")["model"]
    alone = load_checkpoint(trained / "averaged.pt")["model"]
    model, tokenizers, _ = load_model(trained)
    model.load_pretrained({head: tokenizer.ids for head, tokenizer in tokenizers.items()})
    before = model.full_state()
    assert mixed.keys() == alone.keys()
    for name, value in mixed.items():
        new = name.startswith(("heads.low.", "heads.ctc."))
        torch.testing.assert_close(value, alone[name] if new else alone[name].lerp(before[name], 0.25))
    assert sum(not torch.equal(mixed[name], alone[name]) for name in mixed) > 20
    command = ["steps.average", "--exp", str(tmp_path / "mixed"), "--epoch", "2", "--avg", "1"]
    monkeypatch.setattr("sys.argv", [*command, "--initial", "0.25", "--out", str(tmp_path / "again.pt")])
    assert average() == 0
    again = load_checkpoint(tmp_path / "again.pt")["model"]
    assert all(torch.equal(value, mixed[name]) for name, value in again.items())
    monkeypatch.setattr("sys.argv", [*command[:2], str(trained), *command[3:], "--initial", "0.25", "--out", "no.pt"])
    with pytest.raises(
        UserError, match=r"initial\.pt does not exist: it is kept where the config has average\.initial"
    ):
        average()


def test_nothing_to_mix_in(settings, tmp_path):
    settings["average"]["initial"] = 0.25
    settings["encoder"]["lora"] = {"rank": 2}
    settings["heads"] = {"low": settings["heads"]["low"]}
    with pytest.raises(UserError, match=r"average\.initial: nothing that is trained here was trained before"):
        fit(settings, tmp_path)
    settings["average"]["initial"] = 0.0
    assert fit(settings, tmp_path) == 0  # what failed does not bind


def test_all_searches_decode(trained, whisper_task, tmp_path):
    searches = ["low:greedy", "ctc:prefix_beam", "asr:greedy", "asr:beam", "st:beam"]
    cuts = str(whisper_task / "data/test/cuts.jsonl.gz")
    options = ["--cuts", cuts, "--out", str(tmp_path), "--device", "cpu", "--max-tokens", "12"]
    assert decode(["--model", str(trained), *options, "--search", *searches, "--ctc-head", "ctc", "--beam", "3"]) == 0
    rows = {name: list(read_jsonl(tmp_path / f"test.{name.replace(':', '.')}" / "hyp.jsonl")) for name in searches}
    assert [len(found) for found in rows.values()] == [9, 9, 9, 9, 6]  # English needs no translation
    assert {row["language"] for row in rows["st:beam"]} == {"fr", "it"}
    about = [read_json(tmp_path / f"test.{head}.beam" / "decode.json") for head in ("asr", "st")]
    assert about[0]["parameters"] == about[1]["parameters"] > 10_000  # a shared decoder is counted, too
    assert about[0]["options"]["ctc_head"] == "ctc" and about[0]["options"]["ctc_weight"] == 0.3
    with pytest.raises(UserError, match="--ctc-head low has other tokens than asr: give one that shares them"):
        decode(["--model", str(trained), *options, "--search", "asr:beam", "--ctc-head", "low"])
    with pytest.raises(UserError, match=r"--ctc-head st: the model has no CTC head of that name"):
        decode(["--model", str(trained), *options, "--search", "asr:beam", "--ctc-head", "st"])


def test_files_are_transcribed_in_the_language_given(trained, world, tmp_path, capsys):
    audio = str(world.audio / "fr-0.wav")
    options = ["--model", str(trained), "--device", "cpu", "--search", "asr:greedy", "--max-tokens", "9", audio]
    assert transcribe([*options, "--language", "fr"]) == 0
    assert capsys.readouterr().out.startswith(f"{audio}\ttext\t")
    assert transcribe(options) == 1
    assert "wants the language that is spoken: give it (--language)" in capsys.readouterr().err
    assert transcribe([*options, "--language", "de"]) == 1
    error = capsys.readouterr().err
    assert "has '<|de|>', which is no token of this set (did you mean '<|en|>'?)" in error and "Trace" not in error
    subtitles = [*options[:-1], "--format", "srt", "--out", str(tmp_path), "--language", "fr", audio]
    assert transcribe(subtitles) == 0
    assert "00:00:00,000 --> 00:00:0" in (tmp_path / "fr-0.text.srt").read_text()


def test_where_all_was_trained_the_folder_is_all(trained, whisper_task, settings, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "model")
    with gone(whisper_task / "whisper"):
        model, _, _ = load_model(tmp_path / "model")
        assert fit({**settings, "epochs": 3}, tmp_path / "model") == 0
        assert "going on from" in capsys.readouterr().err
        assert fit({**settings, "epochs": 3}, tmp_path / "model") == 0
    saved = load_checkpoint(trained / "averaged.pt")["model"]
    assert all(torch.equal(value, saved[name]) for name, value in model.full_state().items())


class gone:
    """While this lasts, a folder has another name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.folder.rename(self.folder.with_name("elsewhere"))

    def __exit__(self, *_) -> None:
        self.folder.with_name("elsewhere").rename(self.folder)


PARTS = {
    "frozen": {"freeze": ["encoder"]},
    "adapters": {"encoder": {"lora": {"rank": 2}}, "heads": {"asr": {"lora": {"rank": 3, "targets": ["linear_q"]}}}},
}


@pytest.mark.parametrize("kind", PARTS)
def test_what_is_not_trained_stays_and_is_not_saved(kind, settings, whisper_task, tiny_whisper, tmp_path):
    for part, change in PARTS[kind].items():
        if part == "freeze":
            settings["freeze"] = change
        elif part == "encoder":
            settings["encoder"] |= change
        else:
            settings["heads"]["asr"] |= change["asr"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert fit(settings, whole) == 0
    assert fit({**settings, "epochs": 1}, halves) == 0 and fit(settings, halves) == 0
    saved = load_checkpoint(whole / "averaged.pt")["model"]
    again = load_checkpoint(halves / "averaged.pt")["model"]
    assert all(torch.equal(value, again[name]) for name, value in saved.items())  # as if never stopped
    model, _, _ = load_model(whole)
    theirs = tiny_whisper[1].model.encoder
    for layer, other in zip(model.encoder.layers, theirs.layers, strict=True):
        linear = layer.self_attn.linear_q
        assert torch.equal(getattr(linear, "base_layer", linear).weight, other.self_attn.q_proj.weight)
    assert torch.equal(model.encoder.conv1.weight, theirs.conv1.weight)
    assert any(".asr.decoder." in name for name in saved) and not any("conv" in name for name in saved)
    layers = {name for name in saved if "encoder.layers" in name}
    assert all("lora" in name for name in layers) and bool(layers) == (kind == "adapters")
    assert saved["heads.ctc.ctc_output.1.weight"].abs().sum() > 0
    about = read_json(whole / "train.json")
    assert about["parameters_trained"] < about["parameters"]
    with gone(whisper_task / "whisper"), pytest.raises(UserError, match=r"encoder.path: .*whisper is no folder: give"):
        load_model(whole)


def wrong(settings: dict, root: Path, case: str) -> dict:
    """`settings` with a mistake."""
    heads = settings["heads"]
    if case == "prompt":
        heads["asr"]["prompt"] = "<|startoftranscript|><|mb|>"
    elif case == "no brackets":
        heads["asr"]["prompt"] = "en"
    elif case == "lang":
        heads["asr"]["lang"] = heads["low"]["lang"]
        del heads["st"]
    elif case == "tokens":
        heads["asr"]["path"] = str(shutil.copytree(root / "whisper", root / "whisper_other"))
        write_tokenizer(root / "whisper_other", ["un autre texte"])
    elif case == "shared lang":
        heads["st"]["lang"] = str(root / "other")
        shutil.copytree(heads["asr"]["lang"], root / "other")
        tokens = (root / "other" / "tokens.txt").read_text().replace("<|it|>", "<|xx|>")
        (root / "other" / "tokens.txt").write_text(tokens)
    elif case == "hub":
        settings["encoder"]["path"] = "opnai/whisper-base"
    elif case == "features":
        settings["data"]["train"] = settings["data"]["train"].replace("data/test", "fbank/test")
        shutil.copytree(root / "data", root / "fbank", dirs_exist_ok=True)
        (root / "fbank" / "features.yaml").write_text("{type: fbank, num_mel_bins: 8}")
    return settings


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("prompt", r"has '<\|mb\|>', which is no token of this set .*: change the head's prompt, or the language"),
        ("no brackets", r"The prompt 'en' must be tokens in angle brackets"),
        ("lang", r"has no ids of its tokens, .* make the lang folder from that model's tokenizer \(stage 3"),
        (
            "tokens",
            r"heads\.asr\.lang: .* has '.*' as the model's token \d+, in .*whisper_other that is none: make",
        ),
        ("shared lang", r"heads.st shares the decoder of asr, which has other tokens: give both the same lang"),
        ("hub", r"encoder.path: 'opnai/whisper-base' is neither a folder here nor could it be had from the hub"),
        ("features", r"encoder 'whisper' wants features of type whisper, .* has fbank: make them again \(stage 2\)"),
    ],
)
def test_a_mistake_is_found_before_the_first_step(settings, whisper_task, tmp_path, monkeypatch, case, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    right = json.loads(json.dumps(settings))
    with pytest.raises(UserError, match=message):
        fit(wrong(settings, whisper_task, case), tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.pt"))
    if case == "prompt":  # and once it is mended, the same command trains
        assert fit({**right, "epochs": 1}, tmp_path / "model") == 0


@pytest.mark.parametrize("storage", ["disk", "on_the_fly"])
def test_a_model_of_waveforms(world, whisper_task, tmp_path, capsys, storage):
    """From stage 2 to transcription, with a part of the encoder frozen."""
    make_speech_model(tmp_path / "hubert", "hubert")
    options = ["--manifests", str(world.root / "manifests"), "--out", str(tmp_path / "data"), "--splits", "test"]
    assert prepare_features([*options, "type=waveform", f"storage={storage}"]) == 0
    cuts = str(tmp_path / "data" / "test" / "cuts.jsonl.gz")
    values = {
        "encoder": {"name": "hubert", "path": str(tmp_path / "hubert"), "mix": True},
        "heads": {
            "ctc": {"lang": str(whisper_task / "char")},
            "low": {"name": "ctc", "lang": str(whisper_task / "char"), "layer": 1},
        },
        "freeze": ["encoder.feature_extractor"],
        "data": {"train": cuts, "valid": cuts, "max_duration": 4.0, "spec_augment": None, "cache": True},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "layer_decay": 0.8,
        "precision": "float32",
        "epochs": 1,
    }
    with pytest.raises(UserError, match="spec_augment masks spectra, these are waveforms: set it to null"):
        fit({**values, "data": {**values["data"], "spec_augment": {}}}, tmp_path / "model")
    assert fit(values, tmp_path / "model") == 0
    (tmp_path / "hubert").rename(tmp_path / "gone")  # what is trained in part is saved whole
    audio = world.audio / "en-0.wav"
    assert decode(["--model", str(tmp_path / "model"), "--cuts", cuts, "--out", str(tmp_path / "out")]) == 0
    assert transcribe(["--model", str(tmp_path / "model"), "--search", "ctc:greedy", str(audio)]) == 0
    (row,) = [row for row in read_jsonl(tmp_path / "out" / "test.ctc.greedy" / "hyp.jsonl") if row["id"] == "en-0"]
    assert capsys.readouterr().out.endswith(f"{audio}\ttext\t{row['hyp']}\n")


def test_a_model_of_stored_features(world, whisper_task, tiny_whisper, settings, tmp_path, capsys):
    """Whisper's encoder in stage 2, its decoder and a CTC head on layers of our own: trained, decoded, transcribed."""
    folder = whisper_task / "whisper"
    encoder = f"encoder={{name: whisper, path: {folder}}}"
    options = ["--manifests", str(world.root / "manifests"), "--out", str(tmp_path / "data"), "--splits", "test"]
    assert prepare_features([*options, "type=encoder", encoder]) == 0
    cuts = str(tmp_path / "data" / "test" / "cuts.jsonl.gz")
    settings["data"] |= {"train": cuts, "valid": cuts, "cache": True}
    frozen = sum(p.numel() for name, p in tiny_whisper[1].model.encoder.named_parameters())
    decoder = {**settings, "encoder": {"name": "stored"}, "epochs": 1}
    decoder["heads"] = {key: settings["heads"][key] for key in ("asr", "st", "ctc")}
    assert fit(decoder, tmp_path / "decoder") == 0
    about = read_json(tmp_path / "decoder" / "train.json")  # counts the encoder, too (whose keys get biases here)
    assert about["parameters"] == about["parameters_trained"] + frozen + 2 * 16
    layers = {"layers": 2, "dim": 16, "heads": 2, "feedforward_dim": 24, "downsample": 2}
    ours = {**settings, "encoder": {"name": "stored", **layers}, "epochs": 1}
    ours["heads"] = {"low": settings["heads"]["low"], "ctc": settings["heads"]["ctc"]}
    assert fit(ours, tmp_path / "ours") == 0
    every = [*options[:3], str(tmp_path / "every"), *options[4:], "type=encoder", encoder, "encoder.layer=all"]
    assert prepare_features(every) == 0
    all_layers = str(tmp_path / "every/test/cuts.jsonl.gz")
    assert fit({**ours, "data": {**ours["data"], "train": all_layers, "valid": all_layers}}, tmp_path / "mixed") == 0
    begun, mix = torch.zeros(2), load_checkpoint(tmp_path / "mixed" / "averaged.pt")["model"]["encoder.mix.weights"]
    assert not torch.equal(mix, begun)  # is learned
    searches = [("decoder", "asr:greedy", 0.02, cuts), ("ours", "ctc:greedy", 0.04, cuts)]
    for name, search, shift, cuts in (*searches, ("mixed", "ctc:greedy", 0.04, all_layers)):
        model = ["--model", str(tmp_path / name), "--device", "cpu"]
        assert Recogniser(tmp_path / name, [search]).seconds_per_frame == pytest.approx(shift)
        assert decode([*model, "--cuts", cuts, "--out", str(tmp_path / name), "--search", search]) == 0
        rows = read_jsonl(tmp_path / name / f"test.{search.replace(':', '.')}" / "hyp.jsonl")
        assert all(0 <= start <= row["duration"] for row in rows for _, start, _ in row["tokens"])
        audio = [str(world.audio / f"{stem}.wav") for stem in ("en-0", "fr-1")]
        assert transcribe([*model, "--search", search, "--language", "en", "--format", "json", *audio]) == 0
        assert capsys.readouterr().out.count('"duration"') == 2
    with pytest.raises(UserError, match=r"encoder 'stored' wants features of type encoder, .* has whisper: make them"):
        fit({**ours, "data": {**ours["data"], "train": str(whisper_task / "data/test/cuts.jsonl.gz")}}, tmp_path / "x")
    other = [*options[:3], str(tmp_path / "other"), *options[4:], "type=encoder", encoder, "encoder.downsample=2"]
    assert prepare_features(other) == 0
    with pytest.raises(UserError, match=r"has features with encoder.downsample 2, .* was trained on 1: make them with"):
        decode(["--model", str(tmp_path / "ours"), "--cuts", str(tmp_path / "other/test/cuts.jsonl.gz"), "--out", "x"])
    with gone(folder):
        encoder_extractor.cache_clear()  # as another process
        capsys.readouterr()
        assert transcribe(["--model", str(tmp_path / "ours"), "--search", "ctc:greedy", audio[0]]) == 1
        assert "encoder.path" in (error := capsys.readouterr().err) and error.count("\n") == 1
