"""Kaldi's data directories: their parts, commands, translations, and what is wrong with them, a sentence each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import local.own as corpus  # noqa: F401  of the fixtures
from tests.local.own_data import change, content, left_out, make_tones, put, rows
from utils.files import read_jsonl


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    return make_tones(tmp_path / "tones")


def test_espnets_translation_directory(tones: Path, tmp_path: Path, manifests):
    # egs2/must_c/st1/local/data.sh: text.{tc,lc,lc.rm}.{en,<target>}; `text` is a copy of the target's
    lines = (tones / "text").read_text().splitlines()
    for language, word in (("en", "Say"), ("de", "Sag")):
        put(tones / f"text.tc.{language}", [line.replace("what", word) for line in lines])
        put(tones / f"text.lc.rm.{language}", [line.replace("what", word.lower()) for line in lines])
    shutil.copy(tones / "text.tc.de", tones / "text")
    manifests("--corpus", tones, "--out", tmp_path / "m", "--language", "en", "--target", "de")
    row = rows(tmp_path / "m")["s0-00"]
    assert (row["text"], row["custom"]["translation"]) == ("Say 00 says", {"de": "Sag 00 says"})


def test_the_parts_of_a_kaldi_recipe(tones: Path, tmp_path: Path, manifests, refused, capsys):
    data = tmp_path / "data"
    for name in ("train_nodup", "train_dev", "eval2000"):
        shutil.copytree(tones, data / name)
        for file in ("wav.scp", "text", "utt2spk"):
            change(data / name / file, "s", f"{name}-s")
    message = refused("--corpus", data)
    assert f"{data} has eval2000, train_dev, train_nodup, none of which is called train: say which is which" in message
    assert "it has eval2000, train_dev" in refused("--corpus", data, "--splits", "train=train_nodub")
    splits = ("train=train_nodup", "dev=train_dev", "test=eval2000")
    manifests("--corpus", data, "--out", tmp_path / "m", "--splits", *splits)
    assert [len(rows(tmp_path / "m", split)) for split in ("train", "dev", "test")] == [12, 12, 12]
    (data / "train_nodup").rename(data / "train.en-de")
    (data / "train_dev").rename(data / "dev")
    capsys.readouterr()
    manifests("--corpus", data, "--out", tmp_path / "n")
    assert "left alone: eval2000" in capsys.readouterr().out
    counts = {split: len(rows(tmp_path / "n", split)) for split in ("train", "dev", "test")}
    assert counts["dev"] == 12 and counts["test"] in (3, 6) and counts["train"] + counts["test"] == 12  # test is made
    manifests("--corpus", data / "train.en-de", "--out", tmp_path / "o")
    (data / "train.en-de").rename(data / "train")
    manifests("--corpus", data / "train", "--out", tmp_path / "p")
    assert f"for the splits dev, eval2000, train, give --corpus {data}" in capsys.readouterr().out


def test_pipes_are_refused_unless_allowed(tones: Path, tmp_path: Path, manifests, refused):
    change(tones / "wav.scp", "s0-00 00.wav", "s0-00 cat 00.wav |")
    message = refused("--corpus", tones)
    assert f"{tones / 'wav.scp'}, 's0-00': 'cat 00.wav |' is a command" in message and "add --allow-pipes" in message
    touched = tmp_path / "runs"
    change(tones / "wav.scp", "cat 00.wav", f"echo x >> {touched}; cat 00.wav")
    for _ in range(2):
        manifests("--corpus", tones, "--out", tmp_path / "m", "--allow-pipes")
    (kept,) = (tmp_path / "m/audio").iterdir()
    np.testing.assert_array_equal(soundfile.read(kept)[0], soundfile.read(tones / "00.wav")[0])
    assert soundfile.info(kept).format == "FLAC" and touched.read_text() == "x\n"  # once
    change(tones / "wav.scp", "; cat 00.wav |", "; echo no such thing >&2; exit 3 |")
    manifests("--corpus", tones, "--out", tmp_path / "n", "--allow-pipes")
    (row,) = read_jsonl(tmp_path / "n/left_out.jsonl")
    assert row["reason"] == "failed command" and "ended with status 3 (no such thing)" in row["detail"]


def test_what_pipes_write_may_have_no_length_and_many_bits(tones: Path, tmp_path: Path, manifests):
    samples = np.linspace(-0.9, 0.9, 8000)
    soundfile.write(tones / "deep.wav", samples, 16000, subtype="PCM_24")
    wav = bytearray((tones / "00.wav").read_bytes())
    at = wav.index(b"data") + 4
    wav[4:8] = wav[at : at + 4] = b"\xff\xff\xff\xff"  # as ffmpeg writes to a pipe
    (tones / "01.wav").write_bytes(wav)
    change(tones / "wav.scp", "s0-00 00.wav", "s0-00 cat deep.wav |")
    change(tones / "wav.scp", "s1-01 01.wav", "s1-01 cat 01.wav |")
    manifests("--corpus", tones, "--out", tmp_path / "m", "--allow-pipes")
    deep, long = sorted((tmp_path / "m/audio").iterdir())
    np.testing.assert_allclose(soundfile.read(deep)[0], samples, atol=2**-23)
    np.testing.assert_array_equal(soundfile.read(long)[0], soundfile.read(tones / "00.wav")[0])


def test_a_place_in_an_archive_is_refused(tones: Path, refused):
    change(tones / "wav.scp", "s0-00 00.wav", "s0-00 data/wav.ark:1234")
    assert "data/wav.ark:1234 is a place in an archive, not a file: write it as a file (Kaldi's 'wav-copy" in refused(
        "--corpus", tones
    )


def test_the_order_of_lines_does_not_matter(tones: Path, tmp_path: Path, manifests, capsys):
    manifests("--corpus", tones, "--out", tmp_path / "m")
    for name in ("wav.scp", "text", "utt2spk"):
        put(tones / name, list(reversed((tones / name).read_text().splitlines())))
    capsys.readouterr()
    manifests("--corpus", tones, "--out", tmp_path / "n")
    assert f"{tones / 'text'} is not in the order of 'LC_ALL=C sort'" in capsys.readouterr().out
    assert content(tmp_path / "m") == content(tmp_path / "n")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("text", "s0-00 what 00 says\n", "", "no text"),
        ("text", "s0-00 what 00 says\n", "s0-00\n", "no text"),
        ("text", "s0-00 what 00 says\n", "s0-00 one\ns0-00 two\n", "duplicate id"),
        ("wav.scp", "s0-00 00.wav\n", "", "no audio"),
        ("wav.scp", "s0-00 00.wav\n", "s0-00 00.wav\ns0-00 01.wav\n", "duplicate id"),
        ("wav.scp", "s0-00 00.wav\n", "s0-00 nothing.wav\n", "missing file"),
        ("wav.scp", "s0-00 00.wav\n", "s0-00 text\n", "corrupt"),
        ("wav.scp", "s0-00 00.wav\n", "s0-00 empty.mp3\n", "empty"),
        ("wav.scp", "s0-00 00.wav\n", f"s0-00 {'a' * 300}.wav\n", "unreadable"),
        ("wav.scp", "s0-00 00.wav\n", "s0-00 a\0.wav\n", "missing file"),
        ("utt2spk", "s0-00 s0\n", "", "no speaker"),
    ],
)
def test_what_one_file_lacks_is_left_out(file, old, new, reason, tones: Path, tmp_path: Path, manifests):
    (tones / "empty.mp3").write_bytes(b"")
    change(tones / file, old, new)
    manifests("--corpus", tones, "--out", tmp_path / "m")
    assert left_out(tmp_path / "m") == {"s0-00": reason}
    assert len(rows(tmp_path / "m")) == 11


@pytest.mark.parametrize(
    ("segment", "reason", "times"),
    [
        ("s0-00 0.5 -1", None, (0.5, 0.5)),
        ("s0-00 0.25 1.4", None, (0.25, 0.75)),  # Kaldi's extract-segments cuts up to half a second
        ("s0-00 0.25 1.6", "wrong times", None),
        ("s0-00 0.5 0.4", "wrong times", None),
        ("s0-00 half 0.9", "wrong times", None),
        ("s0-00 0.5", "corrupt", None),
        ("s9-00 0.5 0.9", "no audio", None),
        ("s0-00 0.5 nan", "wrong times", None),
        ("s0-00 0.5 0.9 1", "no channel", None),
        ("s0-00 0.5 0.9 A", "no channel", None),
    ],
)
def test_segments(segment, reason, times, tones: Path, tmp_path: Path, manifests):
    keys = [line.split()[0] for line in (tones / "text").read_text().splitlines()]
    put(tones / "segments", [f"{key} {key} 0 -1" if key != "s0-00" else f"{key} {segment}" for key in keys])
    manifests("--corpus", tones, "--out", tmp_path / "m")
    if reason:
        assert left_out(tmp_path / "m") == {"s0-00": reason}
    else:
        row = rows(tmp_path / "m")["s0-00"]
        assert (row["start"], row["duration"]) == times and left_out(tmp_path / "m") == {}


def test_a_directory_that_is_mostly_bad_is_refused(tones: Path, refused):
    for number in range(3):
        (tones / f"{number:02d}.wav").unlink()
    assert f"{tones}: 3 of its 12 utterances are unusable" in refused("--corpus", tones)


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk", "segments"])
def test_a_file_that_is_there_without_lines(name: str, tones: Path, refused):
    (tones / name).write_text("")
    assert f"{tones / name} is empty: write its lines, or remove it" in refused("--corpus", tones)


def test_options_that_do_not_fit(tones: Path, tmp_path: Path, refused):
    assert "--columns names the columns of a table, and" in refused("--corpus", tones, "--columns", "text=what")
    for name in ("one", "two"):
        shutil.copytree(tones, tmp_path / "data" / name)
    message = refused("--corpus", tmp_path / "data", "--splits", "dev=one")
    assert message == "--splits dev: say with train=<name>, too, which of one, two is to be learnt from."


def test_texts_that_nobody_can_tell_apart(tones: Path, refused):
    (tones / "text").rename(tones / "text.tc.en")
    assert f"{tones} has no text: of text.tc.en, say with --language which is spoken." in refused("--corpus", tones)
    (tones / "text.tc.en").unlink()
    assert f"{tones} has no text: add it." in refused("--corpus", tones)
