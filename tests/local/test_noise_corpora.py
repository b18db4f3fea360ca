"""MUSAN and RIRS_NOISES: facts of the real corpora, manifests of miniatures in their layout, wrong input."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from lhotse import RecordingSet
from lhotse.recipes import prepare_rir_noise

import local.noise as corpora
from local.fetch import Archive
from steps.prepare.augment import WaveformAugment
from steps.prepare.config import AugmentConfig
from tests.corpora import noise
from utils.errors import UserError


def run(monkeypatch: pytest.MonkeyPatch, *argv: object) -> None:
    monkeypatch.setattr(sys, "argv", ["noise", *map(str, argv)])
    corpora.main()


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    published = {kind: 2 * len(sources) for kind, sources in noise.MUSAN.items()}
    monkeypatch.setattr(corpora, "MUSAN", published)
    sizes = {"real": 3, "simulated": 6, "pointsource": 2, "isotropic": None}
    monkeypatch.setattr(corpora, "RIRS", {kind: (lists, sizes[kind]) for kind, (lists, _) in corpora.RIRS.items()})
    return noise.make(tmp_path / "downloads")


def test_published_facts():
    """Counts: MUSAN has 109 h (arXiv:1510.08484); 843 noises of Freesound, 325 real responses: RIRS_NOISES' README (as
    `lhotse.recipes.rir_noise` quotes it), 60,000 simulated: 3 sizes of 200 rooms with 100 each (README of OpenSLR 26).
    Freesound's 843 and 87 of soundbible.com are the 930 noises; of the 2,016 WAV files of WeSpeaker's and voxceleb
    trainers' checks 660 remain for music besides 426 of speech. MD5 sums: clovaai/voxceleb_trainer (both), checksum.md5
    of OpenSLR 28.
    """
    assert corpora.MUSAN["noise"] == 843 + 87 and sum(corpora.MUSAN.values()) == 2016
    assert {kind: count for kind, (_, count) in corpora.RIRS.items()} == {
        "real": 325, "simulated": 3 * 200 * 100, "pointsource": 843, "isotropic": None,
    }  # fmt: skip
    assert corpora.ARCHIVES["musan"].md5 == "0c472d4fc0c5141eca47ad1ffeb2a7df"
    assert corpora.ARCHIVES["rirs"].md5 == "e6f48e257286e05de56413b4779d8ffb"
    assert corpora.ARCHIVES["musan"].url == "https://www.openslr.org/resources/17/musan.tar.gz"
    assert corpora.ARCHIVES["rirs"].url == "https://www.openslr.org/resources/28/rirs_noises.zip"


def test_manifests(miniature: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "data"
    run(monkeypatch, "manifests", "--corpus", miniature, "--out", out)
    kinds = {path.name.removesuffix("_recordings.jsonl.gz"): path for path in out.glob("*.jsonl.gz")}
    counts = {kind: len(RecordingSet.from_file(path)) for kind, path in kinds.items()}
    assert counts == {
        "musan_music": 10, "musan_speech": 4, "musan_noise": 4,
        "rirs_real": 3, "rirs_simulated": 6, "rirs_pointsource": 2, "rirs_isotropic": 2,
    }  # fmt: skip
    real = {recording.id: recording for recording in RecordingSet.from_file(kinds["rirs_real"])}
    assert {name: recording.num_channels for name, recording in real.items()} == noise.REAL
    assert real["RWCP_type1_rir_cirline_e2b"].load_audio().shape == (1, 4000)
    assert "rirs_real: 3 files" in capsys.readouterr().out
    theirs = prepare_rir_noise(miniature / "RIRS_NOISES")  # as by 2026: the Aachen responses are missing
    assert len(theirs["real_rir"]["recordings"]) == 2 and len(theirs["sim_rir"]["recordings"]) == 6
    assert len(theirs["iso_noise"]["recordings"]) == counts["rirs_isotropic"]


def test_training_takes_all_kinds_at_once(miniature: Path, tmp_path: Path, monkeypatch):
    """The mixture of Kaldi's `augment_data_dir.py` calls (egs/voxceleb/v2/run.sh), and both sorts of rooms."""
    out = tmp_path / "data"
    run(monkeypatch, "manifests", "--corpus", miniature, "--out", out)
    kinds = [("musan_noise", [0, 15], [1, 1]), ("musan_music", [5, 15], [1, 1]), ("musan_speech", [13, 20], [3, 7])]
    values = [
        {"path": str(out / f"{kind}_recordings.jsonl.gz"), "snr": snr, "mix": mix, "probability": 0.25}
        for kind, snr, mix in kinds
    ]
    rooms = {"path": str(out / "rirs_real_recordings.jsonl.gz"), "probability": 0.5}
    change = WaveformAugment(AugmentConfig(noise=values, reverb=rooms))
    speech = (0.1 * np.random.default_rng(1).normal(size=8000)).astype(np.float32)
    results = [change(speech, np.random.default_rng(seed)) for seed in range(40)]
    assert all(np.isfinite(result).all() and result.shape == speech.shape for result in results)
    assert len({result.tobytes() for result in results}) > 30


def test_download(miniature: Path, tmp_path: Path, monkeypatch, capsys):
    """Both archives from file:// addresses; then without the server; the archives go if that is wished."""
    server = tmp_path / "server"
    server.mkdir()
    with tarfile.open(server / "musan.tar.gz", "w:gz") as tar:
        tar.add(miniature / "musan", "musan")
    with zipfile.ZipFile(server / "rirs_noises.zip", "w") as archive:
        for path in (miniature / "RIRS_NOISES").rglob("*"):
            archive.write(path, path.relative_to(miniature))
    names = {"musan": "musan.tar.gz", "rirs": "rirs_noises.zip"}
    offered = {part: Archive(name, url=f"file://{server}/{name}") for part, name in names.items()}
    monkeypatch.setattr(corpora, "ARCHIVES", offered)
    out = tmp_path / "out"
    run(monkeypatch, "download", "--out", out, "--parts", "rirs")
    assert not (out / "musan").exists() and (out / "archives/rirs_noises.zip").exists()
    run(monkeypatch, "download", "--out", out, "--delete-archives")
    assert sorted(path.suffix for path in (out / "archives").iterdir()) == [".json", ".json"]
    server.rename(tmp_path / "gone")
    run(monkeypatch, "download", "--out", out)
    assert "of musan and rirs, all checksums right" in capsys.readouterr().out
    run(monkeypatch, "manifests", "--corpus", out, "--out", tmp_path / "data")


def test_half_a_download_and_wrong_folders(miniature: Path, tmp_path: Path, monkeypatch):
    def refused(corpus: Path, part: str) -> str:
        with pytest.raises(UserError) as error:
            run(monkeypatch, "manifests", "--corpus", corpus, "--out", tmp_path / "data", "--parts", part)
        return str(error.value)

    assert "does not exist: run 'python -m local.noise download --parts rirs" in refused(tmp_path / "nowhere", "rirs")
    assert f"did you mean '--corpus {miniature}" in refused(miniature / "musan/noise", "musan")
    (miniature / "musan/noise/free-sound/noise-free-sound-0000.wav").unlink()
    assert "musan/noise is half there: 3 of the 4 WAV files of MUSAN: run" in refused(miniature, "musan")
    (miniature / "RIRS_NOISES/simulated_rirs/largeroom/Room001/Room001-00002.wav").unlink()
    assert "is half there: 5 of the 6 files of kind 'simulated': run" in refused(miniature, "rirs")
    (miniature / "RIRS_NOISES/real_rirs_isotropic_noises/rir_list").unlink()
    assert "rir_list is not there: run" in refused(miniature, "rirs")


def test_an_unreadable_file_is_left_out(miniature: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(corpora, "MUSAN", {**corpora.MUSAN, "music": 10})
    (miniature / "musan/music/fma/music-fma-0001.wav").write_bytes(b"not audio at all")
    run(monkeypatch, "manifests", "--corpus", miniature, "--out", tmp_path / "data", "--parts", "musan")
    assert "musan_music: 9 files" in capsys.readouterr().out
    assert '"id": "music-fma-0001", "reason": "corrupt"' in (tmp_path / "data/left_out.jsonl").read_text()
