"""Some folders of a repository: from a real one at a file:// address, through breaks, damage and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

import local.clone as module
from local.clone import Clone
from tests.corpora.repository import git, serve
from utils.errors import UserError


@pytest.fixture
def server(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    for place in ("a/b", "a/c", "other"):
        (folder / place).mkdir(parents=True)
        for number in range(12):
            (folder / place / f"{number}.txt").write_text(f"{place} {number}\n")
    (folder / "README.md").write_text("terms\n")
    return folder


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    monkeypatch.setattr(module, "PART", 5)


def clone(server: Path, target: Path, commit: str) -> Clone:
    return Clone(f"file://{server}", commit, ["README.md", "a/b"], target)


def names(target: Path) -> list[str]:
    """The files below `target`, but for git's own."""
    files = [path.relative_to(target) for path in target.rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if ".git" not in path.parts)


def test_fetches_what_is_asked_for_and_no_more(server: Path, tmp_path: Path):
    commit = serve(server)
    target = tmp_path / "out" / "clone"
    (server / "a/b/0.txt").write_text("newer\n")
    git(server, "commit", "--quiet", "-am", "after the pinned one")
    assert clone(server, target, commit).fetch() == 13
    assert names(target) == ["README.md", *sorted(f"a/b/{number}.txt" for number in range(12))]
    assert (target / "a/b/0.txt").read_text() == "a/b 0\n"
    assert git(target, "status", "--porcelain") == ""
    lacking = git(target, "rev-list", "--objects", "--missing=print", commit).count("?")
    assert lacking == 24  # a/c and other


def test_continues_where_it_was_interrupted(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commit, target = serve(server), tmp_path / "clone"
    online, asked = Clone._online, []

    def breaking(self, *arguments, given="", **options):
        if len(asked) == 3:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(given.split()))
        online(self, *arguments, given=given, **options)

    monkeypatch.setattr(Clone, "_online", breaking)
    with pytest.raises(KeyboardInterrupt):
        clone(server, target, commit).fetch()
    assert names(target) == []
    (target / ".git/index.lock").write_text("")  # of a git that was killed
    (target / ".git/objects/pack/tmp_pack_x").write_text("")
    clone(server, target, commit).fetch()
    assert asked == [0, 5, 5, 0, 3]  # the list of files, two parts; the third again
    assert len(names(target)) == 13
    assert not list(target.rglob("tmp_*"))


def test_repairs_without_the_network(server: Path, tmp_path: Path):
    commit, target = serve(server), tmp_path / "clone"
    clone(server, target, commit).fetch()
    server.rename(tmp_path / "gone")
    (target / "a/b/1.txt").unlink()
    (target / "a/b/2.txt").write_text("damaged\n")
    assert clone(server, target, commit).fetch() == 13
    assert (target / "a/b/1.txt").exists() and (target / "a/b/2.txt").read_text() == "a/b 2\n"


def test_no_network_is_one_sentence(server: Path, tmp_path: Path):
    with pytest.raises(UserError) as error:
        clone(server, tmp_path / "clone", "0" * 40).fetch()
    assert str(error.value).startswith(f"file://{server} cannot be fetched (")
    assert "give --corpus the folder of a copy" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_somebody_else_is_left_alone(server: Path, tmp_path: Path):
    commit, target = serve(server), tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(server), str(target))
    before = names(target)
    with pytest.raises(UserError, match="exists and was not made by this command"):
        clone(server, target, commit).fetch()
    assert names(target) == before


def test_no_git_and_a_git_that_is_too_old(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(UserError, match=r"git is not installed: .* --corpus"):
        clone(server, tmp_path / "clone", "0" * 40).fetch()
    (programs / "git").write_text("#!/bin/sh\necho git version 2.18.4\n")
    (programs / "git").chmod(0o755)
    with pytest.raises(UserError, match=r"git version 2.18.4 is too old .* 2.30 or newer"):
        clone(server, tmp_path / "clone", "0" * 40).fetch()
    assert not (tmp_path / "clone").exists()
