"""Downloads that can be interrupted: resumed where they stopped, complete only when the checksum says so."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.errors import UserError
from utils.files import sha256_of

CHUNK = 1 << 16


@dataclass(frozen=True)
class Archive:
    """One file to download: its `name` on disk, and what it must be. `url` is empty where apt knows it."""

    name: str
    size: int
    sha256: str
    url: str = ""
    package: str = ""


def is_complete(path: Path, archive: Archive) -> bool:
    """Whether `path` is `archive`, whole; a file that is there but wrong is named and deleted."""
    if not path.exists():
        return False
    if path.stat().st_size == archive.size and sha256_of(path) == archive.sha256:
        return True
    tqdm.write(f"{path} is corrupt (its checksum is not that of {archive.name}): fetching it again")
    path.unlink()
    return False


def fetch_http(archive: Archive, path: Path, bar: tqdm, timeout: float = 30.0, patience: int = 8) -> None:
    """Download `archive.url` to `path`, continuing `path`.part by HTTP Range; `patience` failures in a row give up.

    `timeout` is the longest silence of the server in seconds. `UserError` if it cannot be had or has another checksum.
    """
    part = path.with_name(path.name + ".part")
    failures = 0
    while not _have(part, archive):
        before = part.stat().st_size if part.exists() else 0
        try:
            _read_on(archive, part, bar, timeout)
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise UserError(f"{archive.url} cannot be downloaded: the server says {error}.") from None
            reason = str(error)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # our disk, not the network
            reason = str(getattr(error, "reason", error) or type(error).__name__)
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= patience:
            raise UserError(
                f"{archive.url} cannot be downloaded ({reason}): check the connection and give the same command again."
            )
        time.sleep(min(0.1 * 2**failures - 0.1, 10.0))
    part.replace(path)


def _have(part: Path, archive: Archive) -> bool:
    """Whether `part` is all there; one of the full size with a wrong checksum is deleted and refused."""
    if not part.exists() or part.stat().st_size < archive.size:
        return False
    found = sha256_of(part)
    if found != archive.sha256:
        part.unlink()
        raise UserError(
            f"{archive.url} has the checksum {found[:12]}… instead of {archive.sha256[:12]}…: "
            "it was deleted, give the same command again or fetch the file by other means."
        )
    return True


def _read_on(archive: Archive, part: Path, bar: tqdm, timeout: float) -> None:
    """Append what the server sends to `part`; start it again where the server does not know Range."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "dragoman", "Range": f"bytes={have}-"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        continues = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not continues:
            bar.update(-have)
        with open(part, "ab" if continues else "wb") as file:
            while block := answer.read1(CHUNK):
                file.write(block)
                bar.update(len(block))


class Apt:
    """Debian packages through apt's own programs, without root: with an index of ours where the system's lacks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: list[str] = []

    @staticmethod
    def available() -> bool:
        """Whether this machine has apt."""
        return all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg-deb"))

    def archives(self, packages: list[str]) -> list[Archive] | None:
        """What apt's index says of `packages`, or None where it has not got all of them even after an update."""
        found = self._show(packages)
        if len(found) < len(packages):
            tqdm.write("apt's index lacks the packages: fetching an index of our own (apt-get update, no root needed)")
            if not self._update():
                return None
            found = self._show(packages)
        return found if len(found) == len(packages) else None

    def fetch(self, archive: Archive, path: Path, bar: tqdm) -> None:
        """Download one package to `path`; apt resumes and checks it, and so do we before it gets its name."""
        import fcntl  # where apt is, this is

        folder = (self.folder / ".apt" / archive.package).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", *self.options, "-q", "-o", "Acquire::Retries=3", "download", archive.package]
        with open(folder / "lock", "w") as lock, open(folder / "log", "w+") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)  # inherited: the apt-get of a run that was killed ends first
            fds = (lock.fileno(),)
            with subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, pass_fds=fds) as process:
                shown = 0
                while process.poll() is None:
                    time.sleep(0.1)
                    size = sum(file.stat().st_size for file in folder.glob("*.deb*"))
                    bar.update(size - shown)
                    shown = size
            log.seek(0)
            complaints = [line.strip() for line in log if line.startswith(("E:", "Err:"))]
        debs = list(folder.glob("*.deb"))
        if process.returncode or len(debs) != 1 or sha256_of(debs[0]) != archive.sha256:
            shutil.rmtree(folder)
            if any("No space left" in line for line in complaints):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            why = complaints[-1] if complaints else "what it fetched is not what its index says"
            raise UserError(f"apt cannot download {archive.package} ({why}): check the connection and try again.")
        bar.update(archive.size - shown)
        debs[0].replace(path)
        shutil.rmtree(folder)

    @staticmethod
    def unpack(path: Path, folder: Path) -> None:
        """Unpack a .deb below `folder`."""
        done = subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{path} cannot be unpacked ({' '.join(done.stderr.split())}): free space or delete it.")

    def _show(self, packages: list[str]) -> list[Archive]:
        command = ["apt-cache", *self.options, "show", "--no-all-versions", *packages]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        records = {}
        for paragraph in shown.split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in paragraph.splitlines() if not line.startswith(" ") and ": " in line
            )
            if {"Package", "SHA256", "Size", "Filename"} <= fields.keys():
                name = Path(fields["Filename"]).name
                package = fields["Package"]
                records[package] = Archive(name, int(fields["Size"]), fields["SHA256"], package=package)
        return [records[package] for package in packages if package in records]

    def _update(self) -> bool:
        state = (self.folder / ".apt" / "index").resolve()
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        self.options = ["-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
        command = ["apt-get", *self.options, "-q", "-o", "Acquire::Languages=none", "update"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fetch_all(archives: list[Archive], folder: Path, apt: Apt | None) -> list[Path]:
    """Download `archives` into `folder` with a progress bar; those that are there and whole are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / archive.name for archive in archives]
    missing = [(archive, path) for archive, path in zip(archives, paths, strict=True) if not is_complete(path, archive)]
    total = sum(archive.size for archive, _ in missing)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not missing, desc="download") as bar:
        for archive, path in missing:
            part = path.with_name(path.name + ".part")
            bar.update(part.stat().st_size if part.exists() else 0)
            if apt and archive.package:
                apt.fetch(archive, path, bar)
            else:
                fetch_http(archive, path, bar)
    shutil.rmtree(folder / ".apt", ignore_errors=True)
    return paths


def move_tree(source: Path, target: Path) -> None:
    """Move every file below `source` to the same place below `target`, replacing what is there."""
    for folder, _, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(Path(folder) / name, place / name)
