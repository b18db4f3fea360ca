"""Some folders of a public git repository at a pinned commit, fetched in parts so that nothing is fetched twice."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from utils.errors import UserError

NEEDED = (2, 30)  # of git: fetch --stdin
PART = 500  # files fetched at a time: what an interruption can cost


class GitError(Exception):
    """What git said."""


class Clone:
    """A sparse, partial clone: one commit, and of its files only those at or below `paths`.

    git checks everything by its hash. A folder at `target` that was made otherwise is refused, not changed.
    """

    def __init__(self, url: str, commit: str, paths: Sequence[str], target: Path) -> None:
        self.url, self.commit, self.paths, self.target = url, commit, list(paths), target
        self._own = target / ".git" / "dragoman"
        self._fds: tuple[int, ...] = ()

    def fetch(self) -> int:
        """Fetch what is missing, put right what is damaged, without the network where all is there; files in all.

        `UserError` where there is no git, no network, or something else at `target`.
        """
        _require_git()
        if self.target.exists() and any(self.target.iterdir()) and not self._own.exists():
            raise UserError(
                f"{self.target} exists and was not made by this command: move it away, choose another --out, "
                "or give it to --corpus if it is the corpus."
            )
        self.target.mkdir(parents=True, exist_ok=True)
        self._own.mkdir(parents=True, exist_ok=True)
        with self._lock():
            try:
                self._fetch()
                self._git("checkout", "--force", "--quiet", self.commit)
            except GitError as error:
                raise UserError(f"{self.target}: git says '{error}': free space, or delete the folder.") from None
        return len(self._git("ls-tree", "-r", "--name-only", self.commit, "--", *self.paths).splitlines())

    def _fetch(self) -> None:
        known = self._own / "commit"  # whose list of files is here
        if not known.exists() or known.read_text("utf-8") != self.commit:
            self._git("init", "--quiet")
            self._git("config", "remote.origin.url", self.url)
            self._git("config", "core.sparseCheckout", "true")
            (self.target / ".git" / "info" / "sparse-checkout").write_text("".join(f"/{path}\n" for path in self.paths))
            self._online("fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", self.commit)
            known.write_text(self.commit, "utf-8")
        listed = self._git("rev-list", "--objects", "--missing=print", self.commit, "--", *self.paths)
        missing = [line[1:] for line in listed.splitlines() if line.startswith("?")]
        with tqdm(total=len(missing), unit="file", desc="download", disable=not missing) as bar:
            for start in range(0, len(missing), PART):
                part = missing[start : start + PART]
                # the options with which git itself fetches the files that a partial clone lacks
                options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin")
                self._online(
                    "-c", "fetch.negotiationAlgorithm=noop", "fetch", *options, "origin", given="\n".join(part)
                )
                bar.update(len(part))

    def _online(self, *arguments: str, given: str = "", patience: int = 4) -> None:
        slow = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # bytes a second, for how many seconds
        for failures in range(1, patience + 1):
            try:
                self._git(*slow, *arguments, given=given)
                return
            except GitError as error:
                if failures == patience:
                    raise UserError(
                        f"{self.url} cannot be fetched ({error}): check the connection and give the same command "
                        "again, or give --corpus the folder of a copy that you have."
                    ) from None
            time.sleep(0.5 * 2**failures)

    def _git(self, *arguments: str, given: str = "") -> str:
        # both named: otherwise a damaged .git would let git take a repository further up for ours
        command = ["git", "-C", str(self.target), "--git-dir=.git", "--work-tree=.", *arguments]
        environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, env=environment, pass_fds=self._fds
        )
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.target))
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            told = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:] or ["no reason"]
            raise GitError((told[0].partition(": ")[2] or told[0]).replace(f"unable to access '{self.url}/': ", ""))
        return done.stdout

    @contextmanager
    def _lock(self):
        """One run at a time; a git that outlives its killed run holds on to the lock, so left-over files are dead."""
        import fcntl

        with open(self._own / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._fds = (lock.fileno(),)
            for dead in [*self._own.parent.rglob("*.lock"), *self._own.parent.glob("objects/pack/tmp_*")]:
                dead.unlink(missing_ok=True)
            yield


def _require_git() -> None:
    if not shutil.which("git"):
        raise UserError("git is not installed: install it, or give --corpus the folder of a copy that you have.")
    told = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", told)
    if found and (int(found[1]), int(found[2])) < NEEDED:
        needed = ".".join(map(str, NEEDED))
        raise UserError(f"{told.strip()} is too old to fetch a part of a repository: install git {needed} or newer.")
