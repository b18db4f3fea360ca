"""The real Asterisk corpus, downloaded once for all tests; a server to download from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from tests.corpora import asterisk
from tests.local.server import Server
from utils.errors import UserError


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    try:
        return asterisk.real()
    except UserError as error:
        pytest.skip(f"the Asterisk packages cannot be had here: {error}")


@pytest.fixture
def miniature(real_corpus: Path, tmp_path: Path) -> Path:
    return asterisk.make(tmp_path / "corpus", ("en", "it", "ru"), 12, real_corpus)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """`command("download", "--out", ...)` of the corpus module that the test's module imports as `corpus`."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["corpus", *map(str, arguments)])
        request.module.corpus.main()

    return call


@pytest.fixture
def manifests(command):
    return partial(command, "manifests")


@pytest.fixture
def refused(manifests, tmp_path: Path):
    """The sentence with which manifests are refused; nothing is written then."""

    def call(*arguments: object) -> str:
        with pytest.raises(UserError) as error:
            manifests(*arguments, "--out", tmp_path / "m")
        assert not (tmp_path / "m").exists() and "\n" not in str(error.value)
        return str(error.value)

    return call
