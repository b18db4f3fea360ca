"""Archives: fetched, unpacked once, mended; what is unsafe, damaged or too large for the disk is refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from local.archives import download_archives, fetch_all
from local.fetch import Archive
from tests.local.server import DATA, Server
from utils.errors import UserError


def test_corrupt_file_is_named_and_fetched_again(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture):
    for damage in (DATA[:-1], bytes(len(DATA))):
        (tmp_path / "sounds.bin").write_bytes(damage)
        fetch_all([server.archive()], tmp_path, None)
        assert (tmp_path / "sounds.bin").read_bytes() == DATA
        assert "sounds.bin is corrupt" in capsys.readouterr().out
    requests = len(server.starts)
    fetch_all([server.archive()], tmp_path, None)
    assert len(server.starts) == requests  # whole: not fetched again


def test_killed_and_continued(server: Server, tmp_path: Path):
    server.pause = 0.05
    call = f"fetch_all([{server.archive()!r}], Path({str(tmp_path)!r}), None)"
    code = f"from pathlib import Path; from local.archives import *; {call}"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part = tmp_path / "sounds.bin.part"
    deadline = time.monotonic() + 30
    while (not part.exists() or part.stat().st_size < 50_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "sounds.bin").exists()
    have = part.stat().st_size
    server.pause = 0.0
    fetch_all([server.archive()], tmp_path, None)
    assert server.starts == [0, have]
    assert (tmp_path / "sounds.bin").read_bytes() == DATA


TEXTS = {"corpus/a.txt": b"one", "corpus/deep/b.txt": b"two" * 9000}


def tar(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in others:
            archive.addfile(member, io.BytesIO(b""))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def offer(server: Server, name: str, data: bytes, **known) -> Archive:
    server.files[name] = data
    return Archive(name, url=server.url(name), **known)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "archives" not in path.parts
    }


MAKERS = {
    "a.tar.gz": gzip.compress(tar(TEXTS)),
    "a.tgz": gzip.compress(tar(TEXTS)),
    "a.tar.bz2": bz2.compress(tar(TEXTS)),
    "a.tar": tar(TEXTS),
    "a.zip": zipped(TEXTS),
}


@pytest.mark.parametrize("name", MAKERS)
def test_unpacked_once_and_mended(server: Server, tmp_path: Path, name: str):
    archive = offer(server, name, MAKERS[name], md5=hashlib.md5(MAKERS[name]).hexdigest())
    assert download_archives([archive], tmp_path) == 2
    assert tree(tmp_path) == TEXTS
    requests = len(server.starts)
    written = (tmp_path / "corpus/a.txt").stat().st_ino
    (tmp_path / "archives" / name).rename(tmp_path / "away")  # not needed any more
    assert download_archives([archive], tmp_path) == 2
    assert (tmp_path / "corpus/a.txt").stat().st_ino == written and len(server.starts) == requests
    (tmp_path / "away").rename(tmp_path / "archives" / name)
    (tmp_path / "corpus/a.txt").unlink()
    (tmp_path / "corpus/deep/b.txt").write_bytes(b"half")
    (tmp_path / ".tmp-unpack").mkdir()  # of a run that was killed
    download_archives([archive], tmp_path)
    assert tree(tmp_path) == TEXTS and len(server.starts) == requests


def test_without_keep_the_archive_goes_and_comes_back_for_a_damaged_tree(server: Server, tmp_path: Path):
    archives = [offer(server, "a.zip", zipped(TEXTS)), offer(server, "c.txt.gz", gzip.compress(b"lines"), into="lm")]
    assert download_archives(archives, tmp_path, keep=False) == 3
    assert tree(tmp_path) == {**TEXTS, "lm/c.txt": b"lines"}
    assert not [path for path in (tmp_path / "archives").iterdir() if path.suffix != ".json"]
    assert server.starts == [0, 0]
    download_archives(archives, tmp_path, keep=False)
    assert server.starts == [0, 0]
    (tmp_path / "lm/c.txt").unlink()
    download_archives(archives, tmp_path, keep=False)
    assert tree(tmp_path) == {**TEXTS, "lm/c.txt": b"lines"} and server.starts == [0, 0, 0]


def test_a_new_edition_is_fetched(server: Server, tmp_path: Path):
    for texts in (TEXTS, {"corpus/a.txt": b"three"}):
        data = zipped(texts)
        download_archives([offer(server, "a.zip", data, sha256=hashlib.sha256(data).hexdigest())], tmp_path)
        assert (tmp_path / "corpus/a.txt").read_bytes() == texts["corpus/a.txt"]


def test_nothing_lands_elsewhere(server: Server, tmp_path: Path):
    evil = {"../outside.txt": b"x", str(tmp_path / "absolute.txt"): b"x", "corpus/../../up.txt": b"x"}
    links = [
        link("corpus/same.txt", "a.txt"),
        link("corpus/hard.txt", "corpus/a.txt", tarfile.LNKTYPE),
        link("corpus/passwd", "/etc/passwd"),
        link("corpus/up", "../../.."),
        link("here", "."),
        link("over", "here/.."),
        link("corpus/pipe", "", tarfile.FIFOTYPE),
    ]
    out = tmp_path / "inner" / "out"
    packed = gzip.compress(tar({**TEXTS, **evil}, *links))
    download_archives([offer(server, "a.tgz", packed)], out)
    assert tree(out) == {**TEXTS, "corpus/same.txt": b"one", "corpus/hard.txt": b"one"}
    assert (out / "corpus/same.txt").is_symlink()
    shutil.rmtree(out)
    download_archives([offer(server, "a.zip", zipped({**TEXTS, **evil}))], out)
    assert tree(out) == TEXTS
    assert {path.name for path in tmp_path.rglob("*.txt")} == {"a.txt", "b.txt"}


@pytest.mark.parametrize("name", [*MAKERS, "a.txt.gz"])
def test_damaged_archive_without_a_published_checksum(server: Server, tmp_path: Path, name: str):
    whole = MAKERS.get(name, gzip.compress(b"text" * 9999))
    archive = offer(server, name, whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{name} is damaged .*it was deleted, give the same command again"):
        download_archives([archive], tmp_path)
    assert tree(tmp_path) == {}
    server.files[name] = whole
    assert download_archives([archive], tmp_path) > 0


def test_a_wrong_checksum_at_the_end_of_gzip_is_seen(server: Server, tmp_path: Path):
    packed = bytearray(MAKERS["a.tar.gz"])
    packed[-6] ^= 1
    with pytest.raises(UserError, match="is damaged"):
        download_archives([offer(server, "a.tar.gz", bytes(packed))], tmp_path)


def test_disk_space_is_checked_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The archive and what is in it; without keep, no two archives lie there at a time."""
    free = [0]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12 - free[0], free[0]))
    data = zipped(TEXTS)
    archives = [offer(server, name, data, unpacked=2 * 10**9) for name in ("a.zip", "b.zip")]
    archives = [replace(archive, size=10**9) for archive in archives]
    cases = ((True, 5_900_000_000, "6.0"), (False, 4_900_000_000, "5.0"))
    for keep, has, needs in cases:
        free[0] = has
        with pytest.raises(UserError, match=rf"needs {needs} GB for a.zip, b.zip and its disk has [45]\.9 GB free"):
            download_archives(archives, tmp_path / "new", keep=keep)
    assert not (tmp_path / "new").exists() and not server.starts
    free[0] = len(data)
    with pytest.raises(UserError, match="free some, or choose a folder on another disk"):
        fetch_all([offer(server, "c.zip", data), offer(server, "d.zip", data)], tmp_path / "new")
    fetch_all([offer(server, "c.zip", data)], tmp_path / "new")
    assert (tmp_path / "new/c.zip").read_bytes() == data
