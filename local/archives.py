"""Archives of a corpus: downloaded, checked, unpacked once, put right where something is missing or damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from local.apt import Apt
from local.fetch import Archive, ask_size, fetch_http, is_complete
from utils.errors import UserError
from utils.files import read_json, write_json

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
STREAMS: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".tar": open}


def fetch_all(archives: list[Archive], folder: Path, apt: Apt | None = None) -> list[Path]:
    """Download `archives` into `folder`, where they stay as they are; those that are there and whole are left alone."""
    missing = [archive for archive in _with_sizes(archives, folder) if not (folder / archive.name).exists()]
    require_space(folder, sum(_to_fetch(archive, folder) for archive in missing), missing)
    _fetch(missing, folder, apt)
    return [folder / archive.name for archive in archives]


def download_archives(archives: list[Archive], folder: Path, apt: Apt | None = None, keep: bool = True) -> int:
    """Download `archives` to `folder`/archives and unpack them below `folder`, one after the other; their files.

    What is unpacked and whole needs neither its archive nor the network; a damaged or deleted file brings back all of
    its archive. Without `keep` an archive goes when it is unpacked. `UserError` before anything is fetched where the
    disk is too small.
    """
    store = folder / "archives"
    missing = [archive for archive in archives if not is_unpacked(store / archive.name, folder, archive)]
    missing = _with_sizes(missing, store)
    require_space(folder, _peak(missing, store, keep), missing)
    for archive in missing:
        if not (store / archive.name).exists():
            _fetch([archive], store, apt)
        unpack(store / archive.name, folder, archive)
        if not keep:
            (store / archive.name).unlink()
    for archive in () if keep else archives:  # of a run that was stopped before it, or that kept them
        (store / archive.name).unlink(missing_ok=True)
    return sum(len(_stamp(store / archive.name)["files"]) for archive in archives)


def _with_sizes(archives: list[Archive], folder: Path) -> list[Archive]:
    """`archives` with their sizes in `folder` (what is there but wrong is deleted) or at their servers."""
    sizes = []
    for archive in archives:
        path = folder / archive.name
        sizes.append(path.stat().st_size if is_complete(path, archive) else ask_size(archive))
    return [replace(archive, size=size) for archive, size in zip(archives, sizes, strict=True)]


def _fetch(archives: list[Archive], folder: Path, apt: Apt | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(archive.size for archive in archives)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not archives, desc="download") as bar:
        for archive in archives:
            part = folder / f"{archive.name}.part"
            bar.update(part.stat().st_size if part.exists() else 0)
            if apt and archive.package:
                apt.fetch(archive, folder / archive.name, bar)
            else:
                fetch_http(archive, folder / archive.name, bar)
    shutil.rmtree(folder / ".apt", ignore_errors=True)


# ---- disk space


def require_space(folder: Path, needed: int, archives: list[Archive]) -> None:
    """`UserError` where the disk of `folder` has less than `needed` bytes free."""
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        names = ", ".join(archive.name for archive in archives[:3]) + (", …" if len(archives) > 3 else "")
        raise UserError(
            f"{folder} needs {needed / 1e9:.1f} GB for {names} and its disk has {free / 1e9:.1f} GB free: "
            "free some, or choose a folder on another disk."
        )


def _to_fetch(archive: Archive, folder: Path) -> int:
    """Bytes that are not yet here."""
    for path in (folder / archive.name, folder / f"{archive.name}.part"):
        if path.exists():
            return max(archive.size - path.stat().st_size, 0)
    return archive.size


def _peak(archives: list[Archive], store: Path, keep: bool) -> int:
    """The most bytes that are needed at a time while `archives` are fetched and unpacked in turn."""
    used = peak = 0
    for archive in archives:
        used += _to_fetch(archive, store) + (archive.unpacked or int(1.2 * archive.size))
        peak = max(peak, used)
        used -= 0 if keep else archive.size
    return peak


# ---- unpacking


def _stamp(path: Path) -> dict:
    stamp = path.with_name(path.name + ".files.json")
    return read_json(stamp) if stamp.exists() else {}


def is_unpacked(path: Path, folder: Path, archive: Archive) -> bool:
    """Whether all files of the archive that had its place at `path` are below `folder`, with their sizes."""
    known = _stamp(path)
    kind, published = archive.published
    if not known or known.get(kind, "") != published:
        return False
    return all(_size(folder / name) == size for name, size in known["files"].items())


def is_at_hand(archive: Archive, folder: Path) -> bool:
    """Whether `download_archives` would need no network for `archive`."""
    path = folder / "archives" / archive.name
    return is_unpacked(path, folder, archive) or is_complete(path, archive)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1


def unpack(path: Path, folder: Path, archive: Archive) -> None:
    """Unpack `path` below `folder`; what would land elsewhere is left out. `UserError` where it is damaged.

    Files appear under their names only when all are whole; `<archive>.files.json` lists them with sizes afterwards.
    """
    temporary = folder / ".tmp-unpack"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    (temporary / archive.into).mkdir(parents=True)
    try:
        _unpack(path, temporary / archive.into)
        files = {str(p.relative_to(temporary)): p.lstat().st_size for p in temporary.rglob("*") if not _is_folder(p)}
        move_tree(temporary, folder)
    except DAMAGE as error:
        path.unlink()
        raise UserError(f"{path} is damaged ({error}): it was deleted, give the same command again.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    kind, published = archive.published
    write_json(path.with_name(path.name + ".files.json"), {kind: published, "files": files})


def _unpack(path: Path, folder: Path) -> None:
    if path.suffix == ".deb":
        Apt.unpack(path, folder)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for member in tqdm(archive.infolist(), desc=f"unpack {path.name}", unit="file"):
                if _inside(folder, member.filename):
                    archive.extract(member, folder)
    elif path.suffix in (".tar", ".tgz") or path.suffixes[-2:-1] == [".tar"]:
        with STREAMS[path.suffix](path, "rb") as stream:
            _unpack_tar(stream, folder, tqdm(desc=f"unpack {path.name}", unit="file"))
    else:
        with STREAMS[path.suffix](path, "rb") as stream, open(folder / path.stem, "wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)


def _unpack_tar(stream, folder: Path, bar: tqdm) -> None:
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(fileobj=stream, mode="r|") as tar, bar:  # one pass: a large archive is decompressed once
        for member in tar:
            if _is_safe(folder, member):
                tar.extract(member, folder, **safe)
            bar.update()
    while stream.read(1 << 20):  # to the checksum at its end
        pass


def _is_safe(folder: Path, member: tarfile.TarInfo) -> bool:
    """Whether `member` is a file or a link, and it and what it links to are below `folder`."""
    if not (member.isfile() or member.issym() or member.islnk()):
        return False
    beside = str(Path(member.name).parent) if member.issym() else ""
    return _inside(folder, member.name) and (not member.linkname or _inside(folder, beside, member.linkname))


def _inside(folder: Path, *parts: str) -> bool:
    return os.path.realpath(folder.joinpath(*parts)).startswith(os.path.realpath(folder) + os.sep)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def move_tree(source: Path, target: Path) -> None:
    """Move every file and link below `source` to the same place below `target`, replacing what is there."""
    for path in list(source.rglob("*")):
        place = target / path.relative_to(source)
        if _is_folder(path):
            place.mkdir(parents=True, exist_ok=True)
        else:
            os.replace(path, place)
