"""LibriSpeech from download to manifests, on a miniature in its layout."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
from lhotse.recipes import prepare_librispeech

import local.librispeech as corpus
from tests.corpora import librispeech
from tests.local.written import left_out, rows

SIZES = {**dict.fromkeys(corpus.TRAINED, 12), **dict.fromkeys(corpus.EVALUATED, 11)}


@pytest.fixture(scope="module")
def whole(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return librispeech.make(tmp_path_factory.mktemp("librispeech"), SIZES)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A corpus to break; its folder LibriSpeech."""
    return Path(shutil.copytree(whole, tmp_path / "corpus")) / corpus.FOLDER


def audio(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/*.flac"))


# ---- facts of the real corpus, and the miniature has them


def test_layout(whole: Path):
    # OpenSLR 12's README.TXT: LibriSpeech/<subset>/<reader>/<chapter>/, "84-121123-0000.flac" and "84-121123.trans.txt"
    for part in (*corpus.TRAINED, *corpus.EVALUATED):
        for path in audio(whole / corpus.FOLDER / part):
            reader, chapter = path.parts[-3:-1]
            assert re.fullmatch(rf"{reader}-{chapter}-\d{{4}}\.flac", path.name)
            info = soundfile.info(path)  # the paper, section 3: FLAC, 16 kHz, one channel
            assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")
            assert (path.parent / f"{reader}-{chapter}.trans.txt").exists()
    lines = [line for path in whole.rglob("*.trans.txt") for line in path.read_text().splitlines()]
    # "84-121123-0000 GO DO YOU HEAR": an id, a blank, words of A to Z and the apostrophe
    assert all(re.fullmatch(r"\d+-\d+-\d{4}( [A-Z']+)+", line) for line in lines) and len(lines) == sum(SIZES.values())


def test_published_sizes():
    counts = {name: size.utterances for name, size in corpus.PUBLISHED.items()}
    # Kaldi's egs/librispeech/s5: train_960 has 281,241 utterances; icefall's training logs the same
    assert sum(counts[name] for name in corpus.TRAINED) == 281241
    # the paper's table 1: 960.9 hours of training speech
    assert sum(corpus.PUBLISHED[name].hours for name in corpus.TRAINED) == pytest.approx(960.9)


# ---- manifests


def test_manifests_are_lhotses(whole: Path, tmp_path: Path, manifests, capsys):
    manifests("--corpus", whole, "--out", tmp_path)
    reference = prepare_librispeech(whole / corpus.FOLDER, dataset_parts="auto")
    for split, parts in corpus.PARTS["960"].items():
        found = {row["id"]: row for row in rows(tmp_path, split)}
        wanted = {item.id: item for part in parts for item in reference[part]["supervisions"]}
        assert found.keys() == wanted.keys()
        for key, item in wanted.items():
            assert (found[key]["text"], found[key]["speaker"]) == (item.text, item.speaker)
            assert found[key]["duration"] == pytest.approx(item.duration) and found[key]["language"] == "en"
        recordings = {row["id"]: row for row in rows(tmp_path, split, "recordings")}
        for part in parts:
            for recording in reference[part]["recordings"]:
                assert recordings[recording.id]["num_samples"] == recording.num_samples
    printed = capsys.readouterr().out
    assert "test-other: 11 utterances, 0.01 h (published: 2939, 5.10 h): -2928 utterances, so scores" in printed
    assert "0 left out" in printed


def test_parts(whole: Path, copy: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole / corpus.FOLDER, "--out", tmp_path / "m", "--parts", "100")
    assert len(rows(tmp_path / "m", "train")) == 12
    for name in ("train-clean-360", "train-other-500", *corpus.EVALUATED):
        shutil.rmtree(copy / name)
    (copy / "train-clean-100").rename(copy / "train-clean-5")
    shutil.copytree(copy / "train-clean-5", copy / "dev-clean-2")
    manifests("--corpus", copy.parent, "--out", tmp_path / "mini", "--parts", "mini")
    assert len(rows(tmp_path / "mini", "dev-clean-2")) == 12


def test_bad_utterances_are_left_out_with_the_reason(copy: Path, tmp_path: Path, manifests):
    parts = [copy / name for name in corpus.EVALUATED]
    empty, gone, silent = (audio(part)[3] for part in parts[:3])
    empty.write_bytes(b"")
    gone.unlink()
    lines = next(silent.parent.glob("*.trans.txt"))
    lines.write_text("".join(line for line in lines.open() if not line.startswith(silent.stem)))
    twice = audio(parts[3])[3]
    with open(next(twice.parent.glob("*.trans.txt")), "a") as more:
        more.write(f"{twice.stem} SOMETHING ELSE\n")
    manifests("--corpus", copy, "--out", tmp_path / "m")
    assert left_out(tmp_path / "m") == {
        empty.stem: "empty",
        gone.stem: "missing file",
        silent.stem: "no text",
        twice.stem: "duplicate id",
    }
    assert [len(rows(tmp_path / "m", split)) for split in corpus.EVALUATED] == [10] * 4


# ---- wrong input


def test_wrong_folders(whole: Path, copy: Path, tmp_path: Path, refused):
    assert "does not exist: run 'python -m local.librispeech download' (stage 0)" in refused("--corpus", tmp_path / "x")
    inside = whole / corpus.FOLDER / "dev-clean"
    assert f"(did you mean '--corpus {whole / corpus.FOLDER}'?)" in refused("--corpus", inside)
    assert f"(did you mean '--corpus {copy}'?)" in refused("--corpus", tmp_path)
    shutil.rmtree(copy / "test-other")
    assert f"{copy} lacks test-other: run" in refused("--corpus", copy)
    (copy / "test-other").mkdir()
    assert f"{copy / 'test-other'} holds no utterances: run" in refused("--corpus", copy)


def test_half_an_unpacked_archive(copy: Path, refused):
    for path in audio(copy / "train-clean-100")[:6]:
        path.unlink()
    message = refused("--corpus", copy)
    assert f"{copy / 'train-clean-100'}: 6 of its 12 utterances are unusable" in message and "is not there" in message


def test_text_in_another_encoding(copy: Path, refused):
    path = next((copy / "dev-clean").rglob("*.trans.txt"))
    path.write_bytes("84-121123-0000 CAFÉ\n".encode("latin-1"))
    assert f"{path} is not text in UTF-8: run" in refused("--corpus", copy)


def test_what_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = []
    monkeypatch.setattr(corpus, "download_archives", lambda archives, folder, **_: asked.extend(archives))
    monkeypatch.setattr(sys, "argv", ["librispeech", "download", "--parts", "mini", "--out", str(tmp_path)])
    corpus.main()
    assert [archive.url for archive in asked] == [
        "https://www.openslr.org/resources/31/train-clean-5.tar.gz",
        "https://www.openslr.org/resources/31/dev-clean-2.tar.gz",
    ]
    assert all(archive.md5 for archive in asked)
