"""The Mboshi-French corpus from download to manifests, on a miniature and, where there is a copy, on the real one.

DRAGOMAN_MBOSHI=<a copy's folder> runs the tests of the real corpus too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSet
from sacrebleu.metrics import BLEU

import local.mboshi as corpus
from tests.corpora import mboshi
from tests.corpora.repository import serve
from utils.files import read_jsonl

SPLITS = ("train", "valid", "dev")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mboshi.make(tmp_path_factory.mktemp("mboshi") / corpus.CLONE)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A corpus to break; its folder of train and dev."""
    return Path(shutil.copytree(whole, tmp_path / "corpus")) / corpus.LAYOUT


def supervisions(folder: Path) -> dict[str, list[dict]]:
    return {split: list(read_jsonl(folder / f"{split}_supervisions.jsonl.gz")) for split in SPLITS}


def left_out(folder: Path) -> list[dict]:
    return list(read_jsonl(folder / "left_out.jsonl"))


def audio_of(folder: Path, number: int) -> Path:
    return sorted(folder.glob("*.wav"))[number]


# ---- manifests


def test_splits_are_the_authors_but_for_the_first_of_train(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole, "--out", tmp_path, "--valid", 5)
    ids = {split: [row["id"] for row in rows] for split, rows in supervisions(tmp_path).items()}
    # the order of ESPnet: LC_ALL=C sort
    train = sorted((path.stem for path in (whole / corpus.LAYOUT / "train").glob("*.wav")), key=str.encode)
    assert ids["valid"] == train[:5] and ids["train"] == train[5:]
    assert ids["valid"][1].endswith("Dico18_10")  # after _1, before _2
    assert ids["dev"] == sorted(path.stem for path in (whole / corpus.LAYOUT / "dev").glob("*.wav"))
    assert {row["speaker"] for row in supervisions(tmp_path)["dev"]} == {"abena", "koffi", "malik"}


def test_texts(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole, "--out", tmp_path, "--valid", 5)
    rows = [row for split in supervisions(tmp_path).values() for row in split]
    assert len(rows) == 48
    by_id = {row["id"]: row for row in rows}
    for place in (whole / corpus.LAYOUT).rglob("*.fr.cleaned"):
        row = by_id[place.name.partition(".")[0]]
        translation = row["custom"]["translation"]["fr"]
        assert row["language"] == "mdw"
        assert row["text"] == place.with_name(f"{row['id']}.mb.cleaned").read_text().strip()
        assert row["custom"]["raw_translation"] == " ".join(place.with_suffix("").read_text().split())
        tokens = place.read_text().replace("&apos;", "'").replace(" ", "").strip()
        assert translation.lower().replace(" ", "") == tokens
        assert translation == row["custom"]["raw_translation"].replace("vil- lage", "village")
    french = {row["custom"]["translation"]["fr"] for row in rows}
    assert {"Le chef du village cherche le porc-épic", "Elle mange la pirogue.", "elle n'aime pas l'eau"} <= french
    assert not any(re.search(r"&|\r|  | [.,]|' ", text) for text in french)


def test_references_that_stand_in_train_are_marked(whole: Path, tmp_path: Path, manifests, capsys):
    manifests("--corpus", whole, "--out", tmp_path, "--valid", 5)
    rows = supervisions(tmp_path)
    seen = {row["custom"]["translation"]["fr"].lower() for row in rows["train"]}
    for split in ("valid", "dev"):
        for row in rows[split]:
            repeated = row["custom"]["translation"]["fr"].lower() in seen
            assert row["custom"]["subsets"] == {"reference_in_train": repeated}
    assert sum(row["custom"]["subsets"]["reference_in_train"] for row in rows["dev"]) == 2
    assert not any("subsets" in row["custom"] for row in rows["train"])
    printed = capsys.readouterr().out
    assert "dev: 11 different sentences, 11 different translations" in printed
    assert "dev: the translations of 2 utterances also stand in train" in printed
    assert "dev: 12 utterances, 0.00 h (published: 514): -502 utterances, so scores do not compare" in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: row["utterances"] for name, row in summary["splits"]["train"]["speakers"].items()} == {
        **{"abena": 7, "koffi": 12, "malik": 12},
        "all": 31,
    }


@pytest.mark.parametrize("audio", ["wav", "opus"])
def test_manifests_load_with_their_audio_from_anywhere(audio: str, tmp_path: Path, monkeypatch, manifests):
    monkeypatch.chdir(tmp_path)
    mboshi.make(Path("mini"), train=8, dev=3, audio=audio)
    manifests("--corpus", "mini", "--out", "m", "--valid", 2)
    monkeypatch.chdir("/")
    for split, count in zip(SPLITS, (6, 2, 3), strict=True):
        cuts = CutSet.from_manifests(
            recordings=RecordingSet.from_file(tmp_path / f"m/{split}_recordings.jsonl.gz"),
            supervisions=SupervisionSet.from_file(tmp_path / f"m/{split}_supervisions.jsonl.gz"),
        )
        assert len(cuts) == count
        for cut in cuts:
            samples = cut.load_audio()
            assert cut.sampling_rate == 16000 and samples.shape == (1, cut.num_samples)
            assert 0.05 < np.abs(samples).max() < 1
            # 60 ms a letter and 0.1 s before and after
            assert cut.duration == pytest.approx(0.2 + 0.06 * len(cut.supervisions[0].text), abs=0.07)


def test_every_level_of_the_corpus_may_be_named(whole: Path, tmp_path: Path, manifests):
    for number, folder in enumerate((whole, whole.parent, whole / corpus.LAYOUT)):
        manifests("--corpus", folder, "--out", tmp_path / str(number), "--valid", 5)
    assert supervisions(tmp_path / "0") == supervisions(tmp_path / "1") == supervisions(tmp_path / "2")


# ---- damage


def test_bad_utterances_are_left_out_with_the_reason(copy: Path, tmp_path: Path, manifests):
    train = copy / "train"
    keys = [path.stem for path in sorted(train.glob("*.wav"))]
    (train / f"._{keys[3]}.wav").write_bytes(b"a Mac was here")
    (train / f"{keys[20]}.wav").write_bytes(b"")
    (train / f"{keys[21]}.fr").unlink()
    (train / f"{keys[0]}.mb.cleaned").write_bytes("été".encode("latin-1"))
    manifests("--corpus", copy, "--out", tmp_path / "m", "--valid", 5)
    found = {row["id"]: (row["reason"], row["detail"]) for row in left_out(tmp_path / "m")}
    assert found == {
        keys[20]: ("empty", f"{train / keys[20]}.wav has no bytes."),
        keys[21]: ("missing file", f"{train / keys[21]}.fr is not there."),
        keys[0]: ("not UTF-8", f"{train / keys[0]}.mb.cleaned is not text in UTF-8."),
    }
    ids = {split: [row["id"] for row in rows] for split, rows in supervisions(tmp_path / "m").items()}
    assert ids["valid"] == keys[1:5]  # the others do not move up
    assert len(ids["train"]) == 29


@pytest.mark.parametrize(
    ("ending", "content", "reason", "detail"),
    [
        ("wav", b"RIFF????WAVEjunk", "corrupt", "is not audio that libsndfile reads."),
        ("wav", None, "missing file", ".wav is not there."),
        (
            "wav",
            POINTER,
            "LFS pointer",
            "run 'git lfs pull' there.",
        ),
        (
            "fr",
            POINTER,
            "LFS pointer",
            "run 'git lfs pull' there.",
        ),
        ("fr.cleaned", b" \r\n", "no text", "has 0 lines of text, not one."),
        ("mb", b"a\nb\n", "corrupt", "has 2 lines of text, not one."),
        ("mb", b"\xff\xfea\x00", "not UTF-8", "is not text in UTF-8."),
    ],
)
def test_one_bad_file(ending, content, reason, detail, copy: Path, tmp_path: Path, manifests, capsys):
    path = audio_of(copy / "dev", 3).with_suffix(f".{ending}")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    manifests("--corpus", copy, "--out", tmp_path / "m", "--valid", 5)
    (row,) = left_out(tmp_path / "m")
    assert row["id"] == path.name.partition(".")[0] and row["reason"] == reason
    assert row["detail"].startswith(str(copy / "dev")) and row["detail"].endswith(detail)
    assert len(supervisions(tmp_path / "m")["dev"]) == 11
    assert "1 left out (left_out.jsonl)" in capsys.readouterr().out


def test_audio_that_is_empty_or_stereo(tmp_path: Path):
    for samples, reason in ((np.zeros(0), "empty"), (np.zeros((80, 2)), "corrupt")):
        soundfile.write(tmp_path / "a.wav", samples, 16000)
        with pytest.raises(corpus.Unusable) as error:
            corpus.measure_mono(tmp_path / "a.wav")
        assert error.value.reason == reason


# ---- wrong input


def test_wrong_folders(whole: Path, copy: Path, tmp_path: Path, refused):
    message = refused("--corpus", tmp_path / "nowhere")
    assert "nowhere does not exist: run 'python -m local.mboshi download' (stage 0)" in message
    message = refused("--corpus", whole / corpus.LAYOUT / "train")
    assert f"(did you mean '--corpus {whole / corpus.LAYOUT}'?)" in message
    message = refused("--corpus", tmp_path)  # the copy is in it, under another name than the clone's
    assert f"has no train and dev in it (did you mean '--corpus {copy}'?)" in message
    (copy / "dev").rename(tmp_path / "dev")
    assert f"{copy} lacks dev: run" in refused("--corpus", copy.parent)
    (copy / "dev").mkdir()
    assert f"{copy / 'dev'} holds no utterances: run" in refused("--corpus", copy.parent)


def test_a_corpus_of_which_much_is_missing(copy: Path, refused):
    for path in sorted((copy / "dev").glob("*.wav"))[:2]:
        path.write_bytes(POINTER)
    message = refused("--corpus", copy)
    assert f"{copy / 'dev'}: 2 of its 12 utterances are unusable" in message and "run 'git lfs pull' there" in message


@pytest.mark.parametrize("valid", [-1, 36])
def test_too_many_held_out(valid: int, whole: Path, refused):
    assert "it is how many of the 36 train utterances are held out" in refused("--corpus", whole, f"--valid={valid}")


def test_a_mistake_is_one_line_and_a_failure(tmp_path: Path):
    command = [sys.executable, "-m", "local.mboshi", "manifests", "--corpus", "nowhere", "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Corpus folder nowhere") and done.stderr.count("\n") == 1


# ---- download


def test_download_and_manifests_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests, capsys):
    server = mboshi.make(tmp_path / "server")
    (server / "bak").mkdir()
    (server / "bak/old.wav").write_bytes(b"not wanted")
    monkeypatch.setattr(corpus, "COMMIT", serve(server))
    monkeypatch.setattr(corpus, "URL", f"file://{server}")
    monkeypatch.setattr(sys, "argv", ["mboshi", "download", "--out", str(tmp_path / "downloads")])
    corpus.main()
    assert f"{7 * 48 + 1} files of file://{server} at {corpus.COMMIT[:12]}" in capsys.readouterr().out
    assert not list(tmp_path.glob("downloads/*/bak"))
    assert len(list(tmp_path.glob("downloads/*/README.md"))) == 1
    manifests("--corpus", tmp_path / "downloads", "--out", tmp_path / "m", "--valid", 5)
    assert sum(map(len, supervisions(tmp_path / "m").values())) == 48


# ---- the real corpus


@pytest.mark.skipif("DRAGOMAN_MBOSHI" not in os.environ, reason="DRAGOMAN_MBOSHI names no copy of the real corpus")
def test_the_real_corpus(tmp_path: Path, manifests):
    manifests("--corpus", os.environ["DRAGOMAN_MBOSHI"], "--out", tmp_path)
    rows = supervisions(tmp_path)
    assert [len(rows[split]) for split in SPLITS] == [4516, 100, 514] and left_out(tmp_path) == []
    assert rows["valid"][-1]["id"] == "abiayi_2015-09-08-11-33-57_samsung-SM-T530_mdw_elicit_Dico18_20"
    assert sum(row["duration"] for split in rows.values() for row in split) / 3600 == pytest.approx(4.463, abs=0.001)
    assert sum(row["custom"]["subsets"]["reference_in_train"] for row in rows["dev"]) == 65
    references = [row["custom"]["translation"]["fr"].lower() for row in rows["dev"]]
    # ref_len in RESULTS.md of ESPnet's egs/mboshi_french/st1
    assert BLEU().corpus_score(references, [references]).ref_len == 4008
