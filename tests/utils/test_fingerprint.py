"""Fingerprints change with content and with nothing else."""

from __future__ import annotations

import os

from utils import fingerprint as module
from utils.fingerprint import expand, fingerprint, same


def test_folder_at_any_depth(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    before = fingerprint([str(tmp_path)])
    os.utime(tmp_path / "a" / "b" / "c", (1, 1))
    assert same(before, fingerprint([str(tmp_path)], before))
    (tmp_path / "a" / "b" / "c").write_text("2")
    assert not same(before, fingerprint([str(tmp_path)], before))
    (tmp_path / "a" / "b" / "c").write_text("1")
    assert same(before, fingerprint([str(tmp_path)], before))
    (tmp_path / "a" / "d").write_text("")
    assert not same(before, fingerprint([str(tmp_path)], before))


def test_temporary_files_do_not_count(tmp_path):
    before = fingerprint([str(tmp_path)])
    (tmp_path / ".tmp-1-x").write_text("1")
    assert fingerprint([str(tmp_path)]) == before


def test_links_to_nothing_do_not_count(tmp_path):
    before = fingerprint([str(tmp_path)])
    (tmp_path / "x").symlink_to(tmp_path / "gone")
    assert fingerprint([str(tmp_path)]) == before


def test_of_audio_the_head_is_read(tmp_path):
    audio = tmp_path / "a.flac"
    audio.write_bytes(b"fLaC" + bytes(5000))
    before = fingerprint([str(tmp_path)])
    audio.write_bytes(b"fLaC" + bytes(4999) + b"1")
    assert same(before, fingerprint([str(tmp_path)]))
    audio.write_bytes(b"OggS" + bytes(5000))
    assert not same(before, fingerprint([str(tmp_path)]))


def test_unchanged_file_is_not_read_again(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("1")
    before = fingerprint([str(tmp_path)])
    monkeypatch.setattr(module, "digest", lambda *_: "read")
    assert fingerprint([str(tmp_path)], before) == before
    assert fingerprint([str(tmp_path)]) != before


def test_samples_of_a_large_file_see_its_ends_and_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 100)
    monkeypatch.setattr(module, "SAMPLE", 10)
    content = bytearray(range(200)) * 5
    path = tmp_path / "a"
    digests = set()
    middle = (len(content) - 10) * 16 // 31
    for place in (None, 0, middle, len(content) - 1):
        changed = bytearray(content)
        if place is not None:
            changed[place] ^= 255
        path.write_bytes(changed)
        digests.add(module.digest(str(path), len(changed)))
    assert len(digests) == 4


def test_expand_takes_lists_globs_and_paths_with_spaces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.x", "a.x", "my file", "c"):
        (tmp_path / name).touch()
    assert expand(["c *.x", "my file", "c", "missing *.no"]) == ["c", "a.x", "b.x", "my file", "missing", "*.no"]
