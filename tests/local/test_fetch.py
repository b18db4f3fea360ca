"""Downloads from a server that breaks off, lies or knows no Range."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tqdm import tqdm

from local.fetch import OPENSLR, Archive, ask_size, fetch_http, is_complete, openslr
from tests.local.server import DATA, Server
from utils.errors import UserError


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


def get(archive: Archive, path: Path, patience: int = 2) -> None:
    with tqdm(disable=True) as bar:
        fetch_http(archive, path, bar, patience=patience)


def test_mirrors_are_tried_in_order_and_continue_what_is_there(server: Server, tmp_path: Path, capsys):
    server.files["gone.bin"] = None
    server.files["lying.bin"] = bytes(len(DATA))
    archive = Archive(
        "a", len(DATA), md5=hashlib.md5(DATA).hexdigest(), url="http://127.0.0.1:9/a",
        mirrors=(server.url("gone.bin"), server.url("lying.bin"), server.url()),
    )  # fmt: skip
    get(archive, tmp_path / "a")
    assert is_complete(tmp_path / "a", archive)
    told = capsys.readouterr().out.splitlines()
    assert [line.rpartition("trying ")[2] for line in told] == [*archive.mirrors]
    assert "has the checksum" in told[2]
    server.starts.clear()
    (tmp_path / "a").rename(tmp_path / "a.part")
    (tmp_path / "a.part").write_bytes(DATA[:1000])
    get(replace(archive, mirrors=(server.url("gone.bin"), server.url())), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.starts == [1000, 1000]


def test_md5_that_is_wrong(server: Server, tmp_path: Path):
    with pytest.raises(UserError, match=r"has the checksum .* instead of 0000"):
        get(Archive("a", len(DATA), md5="0" * 32, url=server.url()), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_without_a_published_size_the_server_is_asked(server: Server, tmp_path: Path):
    archive = Archive("a", url="http://127.0.0.1:9/a", mirrors=(server.url(),))
    assert ask_size(archive) == len(DATA)
    server.most = 100_000  # breaks off: what came is not the whole
    get(archive, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.starts == [0, 100_000, 200_000]
    (tmp_path / "a").rename(tmp_path / "a.part")  # killed before it got its name
    get(archive, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    server.tells_length = False
    with pytest.raises(UserError, match="does not say how large it is"):
        get(archive, tmp_path / "b")


def test_a_file_of_another_size_is_not_taken(server: Server, tmp_path: Path):
    with pytest.raises(UserError, match=f"has {len(DATA)} bytes instead of 1000"):
        get(Archive("a", 1000, url=server.url()), tmp_path / "a")
    (tmp_path / "a").write_bytes(DATA)
    assert not is_complete(tmp_path / "a", Archive("a", 1000, url=server.url()))


def test_openslr_and_its_mirrors():
    """The mirrors that openslr.org's pages link to (US, EU, CN), each with its paths."""
    archive = openslr(17, "musan.tar.gz", md5="0c472d4fc0c5141eca47ad1ffeb2a7df")
    assert archive.url == "https://www.openslr.org/resources/17/musan.tar.gz"
    assert archive.mirrors == tuple(f"https://{host}/resources/17/musan.tar.gz" for host in OPENSLR[1:])
    assert archive.published == ("md5", "0c472d4fc0c5141eca47ad1ffeb2a7df")
