"""Has an input changed? By content, at the price of a `stat` where size and time are as they were."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator

WHOLE = 256 << 20  # bytes: files up to this size are hashed whole, larger ones by samples
SAMPLES, SAMPLE = 32, 1 << 20

Prints = dict  # path -> [size in bytes, mtime in ns, digest]


def expand(values: Iterable[str]) -> list[str]:
    """The paths and globs in `values`, several to a value where it is not itself a path with spaces; order kept."""
    paths: list[str] = []
    for value in values:
        for word in [value] if os.path.exists(value) else value.split():
            paths += sorted(glob.glob(word)) or [word]
    return list(dict.fromkeys(paths))


def files_below(path: str) -> Iterator[str]:
    """`path` if it is a file, else the files in it at any depth, sorted; temporary and hidden ones are left out."""
    if not os.path.isdir(path):
        yield path
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.startswith("."):
                yield from files_below(entry.path)


def digest(path: str, size: int) -> str:
    """Content hash; above `WHOLE` bytes of 32 samples of 1 MiB spread from the first byte to the last."""
    total = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as data:
        if size <= WHOLE:
            while block := data.read(SAMPLE):
                total.update(block)
        else:
            for number in range(SAMPLES):
                data.seek((size - SAMPLE) * number // (SAMPLES - 1))
                total.update(data.read(SAMPLE))
    return total.hexdigest()


def fingerprint(paths: Iterable[str], known: Prints | None = None) -> Prints:
    """Prints of all files at or below `paths`; a file as large and as old as in `known` is not read again."""
    known = known or {}
    prints: Prints = {}
    for top in paths:
        for path in files_below(top):
            stat = os.stat(path)
            before = known.get(path)
            if before and before[:2] == [stat.st_size, stat.st_mtime_ns]:
                prints[path] = before
            else:
                prints[path] = [stat.st_size, stat.st_mtime_ns, digest(path, stat.st_size)]
    return prints


def same(one: Prints, other: Prints) -> bool:
    """Whether both name the same files with the same content, whatever their times."""
    return {path: (p[0], p[2]) for path, p in one.items()} == {path: (p[0], p[2]) for path, p in other.items()}
