"""Faults of stage 2's cuts and of their features."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lhotse import LilcomChunkyWriter

from steps.prepare.features import main as features
from tests.steps.prepare.conftest import edit
from utils.files import read_jsonl


@pytest.fixture
def data(prepared, tmp_path) -> Path:
    """A copy of a data folder whose cuts name the copy's archives."""
    shutil.copytree(prepared, tmp_path / "data")
    path = tmp_path / "data/dev/cuts.jsonl.gz"
    edit(path, lambda rows: [row["features"].update(storage_path=archive(path, row)) for row in rows] and None)
    return tmp_path / "data"


def archive(cuts: Path, row: dict) -> str:
    return str(cuts.parent / "feats" / Path(row["features"]["storage_path"]).name)


def test_cuts_without_faults(prepared, data, validate):
    cuts = [prepared / "train/cuts.jsonl.gz", data / "dev/cuts.jsonl.gz"]
    status, lines, out = validate("--cuts", *cuts, "--full")
    assert (status, lines) == (0, []) and "72 cuts" in out and "6 cuts" in out


def feature(**values):
    return lambda rows: rows[2]["features"].update(values)


def cut(**values):
    return lambda rows: rows[2].update(values)


def end_of(rows: list[dict]) -> None:
    rows[2]["features"]["storage_key"] = rows[2]["features"]["storage_key"] + ",999999999"


FAULTS = {
    "twice": (lambda rows: rows.append(dict(rows[2])), "1 of 7 cuts have an id that an earlier one has (dev-002)"),
    "several": (lambda rows: rows[2]["supervisions"].append(rows[1]["supervisions"][0]), "not exactly one supervision"),
    "mixed": (cut(type="MixedCut"), "are not cuts of one utterance in one channel, as stage 2 writes them (dev-002"),
    "no cut": (lambda rows: rows[2].pop("duration") and None, "as stage 2 writes them (entry 3"),
    "late": (lambda rows: rows[2]["recording"].update(duration=0.1), "not inside of their recording (dev-002"),
    "inside": (
        lambda rows: rows[2]["supervisions"][0].update(duration=9.0),
        "supervision that is not inside of them",
    ),
    "none": (lambda rows: rows[2].pop("features") and None, "have no stored features, though features.yaml says"),
    "frames": (
        feature(num_frames=7),
        "another number of frames than their duration (dev-002; dev-002: 7 frames",
    ),
    "dims": (feature(num_features=40), "have features of another kind than features.yaml says (dev-002; dev-002: 40"),
    "gone": (feature(storage_path="/none/00007.lca"), "name an archive that is not there (dev-002; dev-002: /none/0"),
    "short": (end_of, "have features behind the end of their archive (dev-002"),
    "text": (lambda rows: rows[2]["supervisions"][0].update(text="", custom={}), "neither a transcript nor a transl"),
    "spaces": (lambda rows: rows[2]["supervisions"][0].update(text=" a"), "spaces at the ends of a text"),
    "moved": (feature(storage_path="/elsewhere/dev/feats/00000.lca"), "moved to the folder of the cuts (dev-002"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_sentence_and_mended_where_it_can_be(data, validate, name):
    path, (make, sentence) = data / "dev/cuts.jsonl.gz", FAULTS[name]
    edit(path, make)
    status, lines, _ = validate("--cuts", path)
    assert status == 1 and len(lines) == 1, lines
    assert lines[0].startswith(f"error: {path}: 1 of ") and sentence in lines[0]
    status, lines, out = validate("--cuts", path, "--fix")
    if status == 0:
        assert lines == [] and f"fixed {path}: 1 " in out
        assert (path.parent / ".backup/cuts.jsonl.gz").exists()
    assert (status == 0) == (name in ("twice", "text", "spaces", "moved"))


def test_a_moved_data_folder(prepared, tmp_path, validate):
    shutil.copytree(prepared, tmp_path / "first")
    path = tmp_path / "first/dev/cuts.jsonl.gz"
    edit(path, lambda rows: [row["features"].update(storage_path=archive(path, row)) for row in rows] and None)
    shutil.move(tmp_path / "first", tmp_path / "second")
    path = tmp_path / "second/dev/cuts.jsonl.gz"
    status, lines, _ = validate("--cuts", path)
    assert status == 1 and len(lines) == 1 and "6 of 6 cuts name an archive that was moved" in lines[0]
    status, lines, out = validate("--cuts", path, "--fix", "--full")
    assert (status, lines) == (0, []) and "6 given their archive's path; 6 left" in out


def test_what_is_in_archives_is_read_with_full(data, validate):
    path = data / "dev/cuts.jsonl.gz"
    rows = list(read_jsonl(path))
    values = np.zeros((rows[1]["features"]["num_frames"], 80), dtype=np.float32)
    with LilcomChunkyWriter(data / "dev/feats/other.lca") as writer:
        keys = [writer.write("short", values[:-20])]
    np.save(data / "dev/feats/nan.npy", np.full_like(values, np.nan))
    noise = np.random.default_rng(0).bytes(Path(rows[3]["features"]["storage_path"]).stat().st_size)
    (data / "dev/feats/noise.lca").write_bytes(noise)

    def change(rows):
        rows[0]["features"].update(storage_path=str(data / "dev/feats/other.lca"), storage_key=keys[0])
        rows[1]["features"].update(
            storage_path=str(data / "dev/feats"), storage_key="nan.npy", storage_type="numpy_files"
        )
        rows[3]["features"].update(storage_path=str(data / "dev/feats/noise.lca"))

    edit(path, change)
    status, lines, _ = validate("--cuts", path)
    assert (status, lines) == (0, [])
    status, lines, _ = validate("--cuts", path, "--full")
    assert status == 1 and len(lines) == 2
    assert "2 of 6 cuts have features that cannot be read or are not what the cut says (dev-000, dev-003" in lines[0]
    assert "1 of 6 cuts have features that are not finite numbers (dev-001" in lines[1]


def test_cuts_on_the_fly_need_their_audio(corpus, tmp_path, capsys, validate):
    corpus.add_split("train", 4)
    options = ["--manifests", str(corpus.manifests), "--out", str(tmp_path / "data"), "--splits", "train"]
    assert features([*options, "storage=on_the_fly", "speed_perturb=[1.1]"]) == 0
    capsys.readouterr()
    path = tmp_path / "data/train/cuts.jsonl.gz"
    assert validate("--cuts", path, "--full")[:2] == (0, [])
    (corpus.audio / "train-000.wav").unlink()
    (corpus.audio / "train-001.wav").write_bytes(b"")
    (corpus.audio / "train-002.wav").write_bytes((corpus.audio / "train-002.wav").read_bytes()[:1000])
    status, lines, _ = validate("--cuts", path, "--full")
    assert status == 1 and len(lines) == 2
    assert "4 of 8 cuts have an audio file that is not there or has no bytes (train-000, train-000_sp1.1" in lines[0]
    assert "2 of 8 cuts have audio that cannot be read or is not what the cut says (train-002" in lines[1]


def test_without_features_yaml_or_cuts(data, validate):
    path = data / "dev/cuts.jsonl.gz"
    (data / "features.yaml").unlink()
    status, lines, _ = validate("--cuts", path, data / "nowhere/cuts.jsonl.gz")
    assert status == 1 and len(lines) == 2
    assert "no features.yaml beside it or above" in lines[0] and "run stage 2 (features) first" in lines[1]
