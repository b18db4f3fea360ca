"""What corpus modules share: files that cannot be read, audio that is cut short, a file in place of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local.corpus import AudioFiles, Unusable, decode_text, find_folder, measure
from utils.errors import UserError

NAMELESS = ["a" * 300, "a\0b"]  # no file can be called so


def reason(function, *arguments: object) -> str:
    with pytest.raises(Unusable) as error:
        function(*arguments)
    assert str(arguments[0]) in str(error.value)
    return error.value.reason


@pytest.fixture
def denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that may not be opened, whoever runs the test."""
    path = tmp_path / "denied"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    return path


def test_files_that_may_not_be_read(denied: Path):
    assert reason(measure, denied) == reason(decode_text, denied) == "unreadable"


@pytest.mark.parametrize("name", NAMELESS)
def test_names_that_no_file_can_have(name: str, tmp_path: Path):
    path = tmp_path / name
    assert reason(measure, path) in ("unreadable", "missing file")
    assert reason(lambda path: AudioFiles([path]).recording(path), path) in ("unreadable", "missing file")


@pytest.mark.parametrize(
    ("form", "subtype"), [("WAV", "PCM_16"), ("WAVEX", "FLOAT"), ("WAV", "ULAW"), ("AIFF", "PCM_24")]
)
def test_audio_that_is_cut_short(form: str, subtype: str, tmp_path: Path):
    path = tmp_path / "a"
    soundfile.write(path, np.linspace(-0.9, 0.9, 16000), 16000, subtype=subtype, format=form)
    assert measure(path).samples == 16000
    path.write_bytes(path.read_bytes()[:10000])
    assert reason(measure, path) == "truncated"


def test_a_header_without_a_length_or_with_one_that_is_a_little_wrong(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(-0.9, 0.9, 16000), 16000)
    wav = bytearray(path.read_bytes())
    at = wav.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f", (32044).to_bytes(4, "little")):  # ffmpeg's, sox's to a pipe
        wav[at : at + 4] = size
        path.write_bytes(wav)
        assert measure(path).samples == 16000


def test_a_file_in_place_of_the_folder(tmp_path: Path):
    (tmp_path / "corpus.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"corpus\.tar\.gz is a file, not a folder: fetch it, or give --corpus the"):
        find_folder(tmp_path / "corpus.tar.gz", ["train"], [], "fetch it")
