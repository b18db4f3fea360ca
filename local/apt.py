"""Debian packages through apt's own programs, without root."""

from __future__ import annotations

import errno
import shutil
import subprocess
import time
from pathlib import Path

from tqdm import tqdm

from local.fetch import Archive
from utils.errors import UserError
from utils.files import digest_of


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
        if process.returncode or len(debs) != 1 or digest_of(debs[0]) != archive.sha256:
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
