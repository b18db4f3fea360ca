"""Your own data through its recipe: the same models from all layouts, the README's commands, Whisper."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from local.own import main as own_data
from steps.lang.prepare import main as prepare_lang
from steps.prepare.features import main as prepare_features
from steps.train import train
from steps.training.config import TrainConfig
from steps.training.folder import TrainFolder
from tests.egs.house import ROOT, copy_recipe, run_script
from tests.local.conftest import real_corpus  # noqa: F401  what the miniature is made of
from tests.steps.tiny_models import make_whisper
from utils.distributed import World
from utils.options import load_config

FOLDER = "egs/own/speech"
README = (ROOT / FOLDER / "README.md").read_text("utf-8")
WALK = README.partition("## What to train")[0]


@pytest.fixture(scope="module")
def script(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A copy of the recipe with the miniature made; its run.sh."""
    copied = copy_recipe("own/speech", tmp_path_factory.mktemp("house"))
    done(copied, "--mini", "--stop-stage", "0")
    return copied


def done(script: Path, *options: str) -> subprocess.CompletedProcess:
    result = run_script(script, *options)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def content(folder: Path) -> dict[str, bytes]:
    """Manifests, cuts and features, without the name of the folder that they are in."""
    files = [*folder.glob("data/manifests/*"), *folder.glob("data/*/cuts.jsonl.gz"), *folder.glob("data/*/feats/*")]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    unzipped = {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in found.items()}
    return {name: data.replace(str(folder).encode(), b"") for name, data in unzipped.items()}


def test_the_same_training_from_all_layouts(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    conf, files, models = script.parent / "conf/mini", [], []
    for kind in ("kaldi", "lhotse", "table"):
        (tmp_path / kind).mkdir()
        monkeypatch.chdir(tmp_path / kind)
        corpus = script.parent / "mini/downloads/miniature" / kind
        sizes = ["--dev", "0.1", "--test", "0.1", "--text", "plain"]
        monkeypatch.setattr(
            "sys.argv", ["own", "manifests", "--corpus", f"{corpus}", "--out", "data/manifests", *sizes]
        )
        own_data()
        prepare_features(["--manifests", "data/manifests", "--out", "data", "--config", f"{conf / 'features.yaml'}"])
        texts = ["--cuts", "data/manifests/train_supervisions.jsonl.gz", "--target", "text", "--type", "char"]
        monkeypatch.setattr("sys.argv", ["prepare", *texts, "--out", "data/lang_source"])
        prepare_lang()
        train(load_config(conf / "recogniser.yaml", TrainConfig), TrainFolder(Path("exp")), World())
        files.append(content(tmp_path / kind))
        models.append(torch.load("exp/averaged.pt", map_location="cpu")["model"])
    assert files[0] == files[1] == files[2] and "data/train/feats/00000.lca" in files[0]
    for other in models[1:]:
        assert models[0].keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in models[0].items())


def test_every_command_of_the_walk_through(script: Path):
    commands = [line for block in re.findall(r"```bash\n(.*?)```", WALK, re.DOTALL) for line in block.splitlines()]
    printed = ""
    for command in commands:
        if command.startswith("bash run.sh "):
            printed += done(script, *re.findall(r'"[^"]*"|\S+', command)[2:]).stdout
        else:
            printed += in_shell(f"cd {script.parent} && . {ROOT}/path.sh && {command}")
    assert len(commands) == 8
    shown = [line for block in re.findall(r"```text\n(.*?)```", WALK, re.DOTALL) for line in block.splitlines()]
    assert len(shown) == 5 and all(line.removeprefix("...") in printed for line in shown), printed[-3000:]
    report = (script.parent / "calls/RESULTS.md").read_text("utf-8")
    assert "| cascade " in report and "| e2e " in report and "| recogniser " in report


def in_shell(command: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    result = subprocess.run(
        ["bash", "-c", command], env={**kept, "DRAGOMAN_VENV": sys.prefix}, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_whisper_learns_both(script: Path, tmp_path: Path):
    texts = ["la conférence ne peut être prolongée", "please try again"]
    make_whisper(tmp_path / "whisper", texts, num_mel_bins=80, max_source_positions=1500, max_target_positions=200)
    table = script.parent / "mini/downloads/miniature/table/own.tsv"
    lines = table.read_text("utf-8").splitlines(keepends=True)
    french = table.with_name("french.tsv")
    french.write_text("".join(line for line in lines if not line.startswith("es-")), "utf-8")
    options = ("--whisper", str(tmp_path / "whisper"), "--systems", "whisper whisper-st", "--target", "en")
    done(script, "--corpus", str(french), *options, "--dev", "0.2", "--test", "0.2", "--name", "whispers")
    report = (script.parent / "whispers/RESULTS.md").read_text("utf-8")
    assert "| whisper " in report and "| whisper-st " in report and "BLEU" in report and "WER" in report


def test_mistakes_are_one_sentence(script: Path, tmp_path: Path):
    def refused(*options: str) -> str:
        result = run_script(script, *options)
        assert result.returncode != 0 and "Traceback" not in result.stderr
        return result.stderr

    assert "give your data with --corpus, or try --mini" in refused()
    assert "--systems cascade: say with --target into which language" in refused(
        "--corpus", str(tmp_path), "--systems", "cascade"
    )
    assert "--systems has 'wisper', which is none of" in refused("--corpus", str(tmp_path), "--systems", "wisper")
    assert "nowhere does not exist" in refused("--corpus", "nowhere")
