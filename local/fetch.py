"""Downloads that can be interrupted: resumed where they stopped, complete only when the published checksum says so."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.errors import UserError
from utils.files import digest_of

CHUNK = 1 << 16
OPENSLR = ("www.openslr.org", "openslr.trmal.net", "openslr.elda.org", "openslr.magicdatatech.com")


@dataclass(frozen=True)
class Archive:
    """One file to download: its `name` on disk, where it is, and what its publisher says that it must be.

    `url` and then `mirrors` are tried in order; `url` is empty where apt knows the `package`.
    """

    name: str
    size: int = 0  # bytes; 0: not published, the server is asked
    sha256: str = ""
    url: str = ""
    package: str = ""
    md5: str = ""
    mirrors: tuple[str, ...] = ()
    into: str = ""  # the folder, below the corpus's, that it is unpacked into
    unpacked: int = 0  # bytes of the files in it; 0: not known, taken as a fifth more than `size`

    @property
    def published(self) -> tuple[str, str]:
        """(kind, digest): the published checksum, ("sha256", "") where there is none."""
        return ("md5", self.md5) if self.md5 and not self.sha256 else ("sha256", self.sha256)


def openslr(number: int, name: str, **known) -> Archive:
    """The file `name` of resource `number` of OpenSLR, at openslr.org or any of its mirrors."""
    url, *mirrors = (f"https://{host}/resources/{number}/{name}" for host in OPENSLR)
    return Archive(Path(name).name, url=url, mirrors=tuple(mirrors), **known)


def is_complete(path: Path, archive: Archive) -> bool:
    """Whether `path` is `archive`, whole; a file that is there but wrong is named and deleted."""
    if not path.exists():
        return False
    size = path.stat().st_size
    if size == (archive.size or size) and _mismatch(path, archive) is None:
        return True
    tqdm.write(f"{path} is corrupt (its checksum or size is not that of {archive.name}): fetching it again")
    path.unlink()
    return False


def _mismatch(path: Path, archive: Archive) -> tuple[str, str] | None:
    """(found, published) checksums of a file where they differ."""
    kind, published = archive.published
    found = digest_of(path, kind) if published else ""
    return (found, published) if found != published else None


def ask_size(archive: Archive, timeout: float = 30.0) -> int:
    """Bytes of `archive`: as published, else what the first server that answers says, else 0."""
    for url in () if archive.size or archive.package else (archive.url, *archive.mirrors):
        try:
            with _open(url, None, timeout) as answer:
                return int(answer.headers.get("Content-Length", 0))
        except (OSError, http.client.HTTPException):
            continue  # the download itself says what is wrong
    return archive.size


def fetch_http(archive: Archive, path: Path, bar: tqdm, timeout: float = 30.0, patience: int = 8) -> None:
    """Download `archive` to `path`, continuing `path`.part by HTTP Range, from the first of its servers that has it.

    `timeout` is the longest silence of a server in seconds, `patience` how many failures in a row give it up.
    `UserError` if it cannot be had or has another checksum.
    """
    part = path.with_name(path.name + ".part")
    sources = (archive.url, *archive.mirrors)
    for number, url in enumerate(sources, 1):
        try:
            _fetch_from(url, archive, part, bar, timeout, patience)
            break
        except UserError as error:
            if number == len(sources):
                raise
            tqdm.write(f"{str(error).partition(': ')[0]}; trying {sources[number]}")
    part.replace(path)


def _fetch_from(url: str, archive: Archive, part: Path, bar: tqdm, timeout: float, patience: int) -> None:
    failures = 0
    size = archive.size
    while not _have(url, part, archive, size):
        before = part.stat().st_size if part.exists() else 0
        try:
            stated = _read_on(url, part, bar, timeout)
            size = archive.size or stated
            if not size:
                raise UserError(f"{url} cannot be downloaded: its server does not say how large it is.")
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before and not archive.size:  # nothing after what we have
                size = int(error.headers.get("Content-Range", "").rpartition("/")[2] or 0)
            elif error.code < 500 and error.code not in (408, 416, 429):
                raise UserError(f"{url} cannot be downloaded: the server says {error}.") from None
            reason = str(error)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # our disk, not the network
            reason = str(getattr(error, "reason", error) or type(error).__name__)
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= patience:
            raise UserError(
                f"{url} cannot be downloaded ({reason}): check the connection and give the same command again."
            )
        time.sleep(min(0.1 * 2**failures - 0.1, 10.0))


def _have(url: str, part: Path, archive: Archive, size: int) -> bool:
    """Whether `part` is all there; one of the full size or more with a wrong checksum is deleted and refused."""
    if not size or not part.exists() or part.stat().st_size < size:
        return False
    if part.stat().st_size == size and (wrong := _mismatch(part, archive)) is None:
        return True
    told = f"has {part.stat().st_size} bytes instead of {size}"
    if part.stat().st_size == size:
        told = f"has the checksum {wrong[0][:12]}… instead of {wrong[1][:12]}…"
    part.unlink()
    raise UserError(f"{url} {told}: it was deleted, give the same command again or fetch the file by other means.")


def _open(url: str, start: int | None, timeout: float):
    headers = {"User-Agent": "dragoman"} | ({} if start is None else {"Range": f"bytes={start}-"})
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)


def _read_on(url: str, part: Path, bar: tqdm, timeout: float) -> int:
    """Append what the server sends to `part`, or start it again where the server knows no Range; the whole's bytes."""
    have = part.stat().st_size if part.exists() else 0
    with _open(url, have, timeout) as answer:
        stated = answer.headers.get("Content-Range", "")
        continues = answer.status == 206 and stated.startswith(f"bytes {have}-")
        if not continues:
            bar.update(-have)
        with open(part, "ab" if continues else "wb") as file:
            while block := answer.read1(CHUNK):
                file.write(block)
                bar.update(len(block))
        whole = stated.rpartition("/")[2] if continues else answer.headers.get("Content-Length", "")
        return int(whole) if whole.isdigit() else 0
