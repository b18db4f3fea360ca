"""FLEURS from download to manifests, on a miniature in its layout."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import soundfile

import local.fleurs as corpus
from local.fetch import Archive
from tests.corpora import fleurs
from tests.local.written import left_out, rows
from utils.errors import UserError

SIZES = {"train": 32, "dev": 6, "test": 6}
PAIR = ("it_it", "es_419")
NAMED = ("--source", "it", "--target", "es_419")


@pytest.fixture(scope="module")
def whole(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleurs.make(tmp_path_factory.mktemp("fleurs"), PAIR, SIZES)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A corpus to break."""
    return Path(shutil.copytree(whole, tmp_path / "corpus"))


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()]


# ---- facts of the real corpus, and the miniature has them


def test_layout(whole: Path):
    # tensorflow/datasets, xtreme_s.py: <lang>/{train,dev,test}.tsv, <lang>/audio/{train,dev,test}/, seven columns
    # between tabs, no header, no quotes to undo: id, file, raw, normalised, characters, samples, MALE, FEMALE or OTHER
    for language in PAIR:
        for split in corpus.SPLITS:
            lines = table(whole / language / f"{split}.tsv")
            assert {len(columns) for columns in lines} == {7}
            assert all(name.endswith(".wav") and name[:-4].isdigit() for _, name, *_ in lines)
            assert {columns[6] for columns in lines} <= {"MALE", "FEMALE", "OTHER"}
            # lhotse/recipes/fleurs.py makes the fifth column so
            assert all(columns[4] == " ".join("|".join(columns[3].split())) + " |" for columns in lines)
            # 16 kHz, one channel, float32: OpenTypeless' prepare_public_corpora.py refuses anything else of dev
            for path in (whole / language / "audio" / split).iterdir():
                info = soundfile.info(path)
                assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "FLOAT")
    train = table(whole / "it_it/train.tsv")
    assert any(columns[2].startswith('"') and columns[2].count('"') == 1 for columns in train)  # flores issue 36
    # mteb issue 5270: an id is a sentence, several people read it, one in 10.08 s and another in 0.84 s (kn_in, 1956)
    assert len({columns[0] for columns in train}) < len({columns[1] for columns in train})


def test_published_sizes():
    # tensorflow/datasets, docs/catalog/xtreme_s.md, fleurs.all; the paper: 102 languages
    assert len(corpus.SIZES) == 102
    totals = [sum(sizes[split].utterances for sizes in corpus.SIZES.values()) for split in corpus.SPLITS]
    assert totals == [271798, 34452, 77810]
    # the Hugging Face copies yxdu/fleurs_fr and fleurs_en: 289 and 676, 394 and 647 rows
    assert [corpus.SIZES["fr_fr"][split].utterances for split in corpus.SPLITS] == [3193, 289, 676]
    assert [corpus.SIZES["en_us"][split].utterances for split in corpus.SPLITS] == [2602, 394, 647]


@pytest.mark.parametrize(
    ("given", "name", "iso"),
    [
        ("fr", "fr_fr", "fr"),
        ("es_419", "es_419", "es"),
        ("zh", "cmn_hans_cn", "zh"),
        ("nb", "nb_no", "no"),
        ("no", "nb_no", "no"),
        ("ast", "ast_es", "ast"),
    ],
)
def test_languages(given: str, name: str, iso: str):
    assert corpus.check_language(given) == name and corpus.iso_of(name) == iso


# ---- download


def test_what_is_downloaded(monkeypatch: pytest.MonkeyPatch, command, server, tmp_path: Path):
    asked: list[Archive] = []
    monkeypatch.setattr(corpus, "download_archives", lambda archives, folder, **_: asked.extend(archives))
    monkeypatch.setattr(corpus, "fetch_all", lambda archives, folder: asked.extend([*archives, folder]))
    command("download", "--out", tmp_path, "--source", "en", "--target", "fr")
    first, *texts, folder = asked
    assert first.url == "https://storage.googleapis.com/xtreme_translations/FLEURS102/en_us.tar.gz"
    assert (first.size, first.md5) == (1848241090, "d1afa0c6f0417a6f8b3c667d29a11749") and folder == tmp_path / "fr_fr"
    assert texts[1].url == "https://huggingface.co/datasets/google/fleurs/resolve/main/data/fr_fr/dev.tsv"
    assert all(len(md5) == len(hashlib.md5(b"").hexdigest()) and size > 1e9 for md5, size in corpus.MD5.values())


# ---- manifests


def test_manifests(whole: Path, tmp_path: Path, manifests, capsys):
    manifests("--corpus", whole, "--out", tmp_path, *NAMED)
    printed = capsys.readouterr().out
    # of six sentences either language lacks another one
    assert "test: 5 sentences, 4 in es_419" in printed and "(published: 865)" in printed
    lines = {columns[1][:-4]: columns for columns in table(whole / "it_it/test.tsv")}
    spanish = {columns[0]: columns[2] for columns in table(whole / "es_419/test.tsv")}
    found = rows(tmp_path, "test")
    assert [row["id"] for row in found] == list(lines)  # a line that stands twice is one reading
    for row in found:
        sentence, _, raw, text, _, _, gender = lines[row["id"]]
        assert (row["text"], row["language"], row["gender"]) == (text, "it", gender.lower())
        assert row["custom"]["raw_text"] == raw and row["custom"]["sentence"] == int(sentence)
        assert row["custom"].get("translation") == ({"es": spanish[sentence]} if sentence in spanish else None)
        assert row["speaker"] == row["id"]
    assert any(row["custom"]["raw_text"].startswith('"') for row in rows(tmp_path, "train"))
    for recording, row in zip(rows(tmp_path, "test", "recordings"), found, strict=True):
        samples = soundfile.info(recording["sources"][0]["source"]).frames
        assert recording["num_samples"] == samples and row["duration"] == pytest.approx(samples / 16000)
    cut = sum(int(lines[row["id"]][5]) != round(row["duration"] * 16000) for row in found)
    assert cut and f"test.tsv: {cut} recordings are not as long as their lines say" in printed
    named = {fleurs.file_of("it_it", what)[:-4]: reason for what, reason in WRONG.items()}
    assert left_out(tmp_path) == named


WRONG = {"missing": "missing file", "nameless": "no text"}


def test_hugging_faces_layout_gives_the_same(whole: Path, real_corpus: Path, tmp_path: Path, manifests):
    packed = fleurs.make(tmp_path / "packed", PAIR, SIZES, hugging_face=True)
    assert (packed / "data/it_it/audio/dev.tar.gz").is_file() and not (packed / "data/it_it/audio/dev").exists()
    manifests("--corpus", whole, "--out", tmp_path / "a", *NAMED)
    manifests("--corpus", packed, "--out", tmp_path / "b", *NAMED)
    for split in corpus.SPLITS:
        assert rows(tmp_path / "a", split) == rows(tmp_path / "b", split)
    assert "missing file" in left_out(tmp_path / "b").values()
    (packed / "data/it_it/audio/dev.tar.gz").write_bytes(b"nothing")
    shutil.rmtree(tmp_path / "b/audio/it_it/dev")
    with pytest.raises(UserError, match=r"audio/dev\.tar\.gz is damaged .*: fetch it again\.$"):
        manifests("--corpus", packed, "--out", tmp_path / "b", *NAMED)
    (packed / "data/it_it/audio/dev.tar.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"dev\.tar\.gz is a pointer of Git LFS, not the file: run 'git lfs pull'"):
        manifests("--corpus", packed, "--out", tmp_path / "b", *NAMED)


def test_bad_lines_are_left_out_with_the_reason(copy: Path, tmp_path: Path, manifests):
    path = copy / "it_it/train.tsv"
    lines = path.read_text("utf-8").splitlines()
    lines[0] = lines[0].rpartition("\t")[0]
    lines[1] = lines[1].replace(lines[1].split("\t")[3], " ", 1)
    path.write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    with pytest.raises(UserError, match=r"train\.tsv: 5 of its \d+ utterances are unusable"):
        manifests("--corpus", copy, "--out", tmp_path / "m", *NAMED)
    for name in WRONG:  # without these two it is less than one in ten
        (copy / "it_it/audio/train" / fleurs.file_of("it_it", name)).unlink(missing_ok=True)
    path.write_text("\n".join(line for line in lines[:-1] if not line.startswith("9999")) + "\n", "utf-8")
    manifests("--corpus", copy, "--out", tmp_path / "m", *NAMED)
    assert sorted(left_out(tmp_path / "m").values()) == ["malformed", "no text", "no text"]


# ---- wrong input


def test_unknown_languages(whole: Path, command, refused, tmp_path: Path):
    message = refused("--corpus", whole, "--source", "it_ti")
    assert message == "FLEURS has no language 'it_ti' (did you mean 'it_it'?): give a code such as fr_fr, or fr."
    assert refused("--corpus", whole, "--source", "it", "--target", "it_it").startswith(
        "--source and --target are both"
    )
    message = refused("--corpus", whole, "--source", "it", "--target", "ru")
    assert message.startswith(f"{whole} lacks ru_ru: run 'python -m local.fleurs download' (stage 0)")


def test_wrong_folders(whole: Path, tmp_path: Path, refused):
    assert f"(did you mean '--corpus {whole}'?)" in refused("--corpus", whole / "it_it", *NAMED)
    assert f"(did you mean '--corpus {whole}'?)" in refused("--corpus", whole.parent, *NAMED)
    assert "does not exist: run 'python -m local.fleurs download'" in refused("--corpus", tmp_path / "x", *NAMED)


def test_half_a_download(copy: Path, refused):
    for path in sorted((copy / "it_it/audio/dev").iterdir())[:2]:
        path.write_bytes(b"")
    message = refused("--corpus", copy, *NAMED)
    assert "it_it/dev.tsv: 2 of its" in message and "has no bytes" in message
    (copy / "es_419/test.tsv").unlink()
    (copy / "it_it/dev.tsv").write_text("")
    assert "dev.tsv has no line for " in refused("--corpus", copy, *NAMED)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is not there"),
        ("Città\n".encode("latin-1"), "is not text in UTF-8"),
        (b"1,a.wav\n", "no line of 7 columns"),
    ],
)
def test_texts_that_cannot_be_read(copy: Path, refused, content: bytes | None, told: str):
    path = copy / "es_419/train.tsv"
    path.unlink()
    if content:
        path.write_bytes(content)
    message = refused("--corpus", copy, *NAMED)
    assert str(path) in message and told in message and "run 'python -m local.fleurs download'" in message


def test_lines_of_the_other_language(copy: Path, tmp_path: Path, manifests, refused):
    path = copy / "es_419/train.tsv"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0].rpartition("\t")[0], "²" + lines[1], *lines[2:], ""]), "utf-8")
    manifests("--corpus", copy, "--out", tmp_path / "n", *NAMED)
    reasons = left_out(tmp_path / "n")
    assert reasons["es_419/train.tsv:1"] == reasons["es_419/train.tsv:2"] == "malformed"
    path.write_text("".join(f"9{line}\n" for line in lines), "utf-8")
    assert f"{path} has none of the sentences of {copy / 'it_it/train.tsv'}: run" in refused("--corpus", copy, *NAMED)


def test_two_lines_for_one_recording(copy: Path, tmp_path: Path, manifests):
    path = copy / "it_it/train.tsv"
    first = path.read_text("utf-8").split("\n")[0]
    path.write_text(path.read_text("utf-8") + first.replace("\t", "\tAltro: ", 2).replace("Altro: ", "", 1) + "\n")
    manifests("--corpus", copy, "--out", tmp_path / "m", *NAMED)
    assert "duplicate id" in left_out(tmp_path / "m").values()
