"""Debian packages through apt, where there is apt."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.apt import Apt
from local.archives import fetch_all
from local.fetch import is_complete

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
