"""Downloads from a server that breaks off, lies or knows no Range; and through apt, where there is apt."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tqdm import tqdm

from local.fetch import Apt, Archive, fetch_all, fetch_http, is_complete
from utils.errors import UserError

DATA = random.Random(1).randbytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `data`, at most `most` bytes a connection, `pause` seconds before each 10 kB."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.most, self.ranges, self.status, self.pause = DATA, len(DATA), True, 200, 0.0
        self.starts: list[int] = []

    def archive(self, sha256: str | None = None) -> Archive:
        digest = sha256 or hashlib.sha256(DATA).hexdigest()
        return Archive("sounds.bin", len(DATA), digest, url=f"http://127.0.0.1:{self.server_port}/sounds.bin")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.server.ranges else 0
        self.server.starts.append(start)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        body = self.server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.server.data) - 1}/{len(self.server.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, min(len(body), self.server.most), 10_000):
            time.sleep(self.server.pause)
            self.wfile.write(body[at : min(at + 10_000, self.server.most)])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def fetch(server: Server, path: Path, **options: float) -> None:
    with tqdm(disable=True) as bar:
        fetch_http(server.archive(), path, bar, **options)


def test_continues_where_the_connection_broke_off(server: Server, tmp_path: Path):
    server.most = 100_000
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.starts == [0, 100_000, 200_000]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_starts_again_where_the_server_knows_no_range(server: Server, tmp_path: Path):
    (tmp_path / "a.part").write_bytes(DATA[:1000])
    server.ranges = False
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


def test_gives_up_with_one_sentence_and_keeps_what_it_has(server: Server, tmp_path: Path):
    server.most = 0
    (tmp_path / "a.part").write_bytes(DATA[:1000])
    with pytest.raises(UserError, match=r"broke off.*give the same command again"):
        fetch(server, tmp_path / "a", patience=2)
    assert not (tmp_path / "a").exists()
    server.most = len(DATA)
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.starts[-1] == 1000


def test_a_silent_server_is_left_after_the_timeout(server: Server, tmp_path: Path):
    server.pause = 1.0
    start = time.monotonic()
    with pytest.raises(UserError, match="timed out"):
        fetch(server, tmp_path / "a", timeout=0.1, patience=2)
    assert time.monotonic() - start < 5


def test_not_found_is_not_tried_again(server: Server, tmp_path: Path):
    server.status = 404
    with pytest.raises(UserError, match="404"):
        fetch(server, tmp_path / "a")
    assert len(server.starts) == 1


def test_no_server(tmp_path: Path):
    gone = Archive("a", 10, "0" * 64, url="http://127.0.0.1:9/a")
    with pytest.raises(UserError, match=r"127.0.0.1:9.*refused"), tqdm(disable=True) as bar:
        fetch_http(gone, tmp_path / "a", bar, patience=2)


def test_wrong_content_is_never_taken(server: Server, tmp_path: Path):
    server.data = bytes(len(DATA))
    with pytest.raises(UserError, match="checksum"):
        fetch(server, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


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
    code = f"from pathlib import Path; from local.fetch import *; {call}"
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


needs_apt = pytest.mark.skipif(not Apt.available(), reason="no apt on this machine")


@needs_apt
def test_apt_with_an_empty_index_makes_its_own(real_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not list((real_corpus / "archives").glob("*.deb")):
        pytest.skip("apt does not reach the packages here")
    (tmp_path / "empty/partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(f'Dir::State::lists "{tmp_path}/empty";')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    apt = Apt(tmp_path / "archives")
    archives = apt.archives(["asterisk-core-sounds-it"])
    assert archives is not None
    (path,) = fetch_all(archives, tmp_path / "archives", apt)
    assert is_complete(path, archives[0])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@needs_apt
def test_apt_that_reaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty/partial").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    sources = f'Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "{tmp_path}/none";'
    (tmp_path / "apt.conf").write_text(f'Dir::State::lists "{tmp_path}/empty"; {sources}')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    assert Apt(tmp_path / "archives").archives(["asterisk-core-sounds-it"]) is None
