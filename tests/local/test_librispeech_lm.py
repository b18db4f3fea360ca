"""LibriSpeech's language model data: names and facts as published, downloads of the parts asked for."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

import local.librispeech_lm as lm
from local.fetch import Archive
from tests.local.server import Server


def test_published_facts():
    """Names: OpenSLR 11, icefall's egs/librispeech/ASR/local/download_lm.py; sizes: Kaldi's local/download_lm.sh."""
    names = {archive.name for archive in lm.FILES.values()}
    icefall = "3-gram.pruned.1e-7.arpa.gz 3-gram.arpa.gz 4-gram.arpa.gz librispeech-lm-norm.txt.gz"
    assert {*icefall.split(), "librispeech-lexicon.txt", "librispeech-vocab.txt"} <= names
    sizes = {archive.name: archive.size for archive in lm.FILES.values()}
    assert (sizes["4-gram.arpa.gz"], sizes["3-gram.pruned.1e-7.arpa.gz"]) == (1355172078, 34094057)
    for archive in lm.FILES.values():
        assert archive.url == f"https://www.openslr.org/resources/11/{archive.name}" and len(archive.mirrors) == 3
        assert len(archive.sha256) in (0, 64)


def test_download_of_parts(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    files = {"3-gram": gzip.compress(b"\\data\\\n"), "lexicon": b"A\tAH0\n", "vocab": b"A\n"}
    for part, data in files.items():
        server.files[part] = data
        monkeypatch.setitem(lm.FILES, part, Archive(f"{part}.file", url=server.url(part)))
    monkeypatch.setattr(sys, "argv", ["lm", "download", "--out", str(tmp_path), "--parts", "3-gram", "lexicon"])
    for _ in range(2):
        lm.main()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "3-gram.file": files["3-gram"], "lexicon.file": files["lexicon"],
    }  # fmt: skip
    assert server.starts == [0, 0]
    assert capsys.readouterr().out.splitlines()[:2] == [f"{tmp_path}/3-gram.file", f"{tmp_path}/lexicon.file"]
