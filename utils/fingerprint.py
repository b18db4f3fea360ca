"""Has an input changed? By content, at the price of a `stat` where size and time are as they were."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator

WHOLE = 256 << 20  # bytes: files up to this size are hashed whole, larger ones by samples
SAMPLES, SAMPLE = 32, 1 << 20
AUDIO = (".flac", ".wav", ".sph", ".mp3", ".opus", ".ogg", ".m4a")
HEAD = 4096  # bytes

Prints = dict  # path -> [size in bytes, mtime in ns, digest]


def expand(values: Iterable[str]) -> list[str]:
    """The paths and globs in `values`, several to a value where it is not itself a path with spaces; order kept."""
    paths: list[str] = []
    for value in values:
        for word in [value] if os.path.exists(value) else value.split():
            paths += sorted(glob.glob(word)) or [word]
    return list(dict.fromkeys(paths))


def files_below(path: str) -> Iterator[str]:
    """`path` if it is a file, else the files in it at any depth, sorted, but hidden ones and links to nothing."""
    if not os.path.isdir(path):
        yield path
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.startswith(".") and os.path.exists(entry.path):
                yield from files_below(entry.path)


def bases(path: str) -> list[str]:
    """The files that a YAML file is based on: what its line `base: other.yaml` or `base: [one.yaml, two.yaml]` names.

    Read without a YAML parser, as each `run` of a recipe asks; `utils.options.load_yaml` takes no other notation.
    """
    with open(path, encoding="utf-8", errors="replace") as text:
        found = re.search(r"^base:[ \t]*([^#\n]*)", text.read(), re.MULTILINE)
    names = [name.strip(" \t'\"") for name in found[1].strip(" \t[]").split(",")] if found else []
    folder = os.path.realpath(os.path.dirname(path))  # of a folder that is a link, what lies beside the real one
    files = [os.path.normpath(os.path.join(folder, name)) for name in names if name]
    return files if os.path.isabs(path) else [os.path.relpath(file) for file in files]


def with_bases(path: str) -> Iterator[str]:
    """`path`, and where it is YAML all files that it is based on, however deep."""
    paths = [path]
    for one in paths:
        yield one
        if one.endswith((".yaml", ".yml")):
            paths += [base for base in bases(one) if base not in paths]


def digest(path: str, size: int) -> str:
    """Content hash; above `WHOLE` bytes of 32 samples of 1 MiB spread from the first byte to the last.

    Of audio, its head: a corpus may have terabytes of it.
    """
    total = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as data:
        if path.lower().endswith(AUDIO):
            total.update(data.read(HEAD))
        elif size <= WHOLE:
            while block := data.read(SAMPLE):
                total.update(block)
        else:
            for number in range(SAMPLES):
                data.seek((size - SAMPLE) * number // (SAMPLES - 1))
                total.update(data.read(SAMPLE))
    return total.hexdigest()


def fingerprint(paths: Iterable[str], known: Prints | None = None) -> Prints:
    """Prints of all files at or below `paths`, and of what YAML files among them are based on.

    A file as large and as old as in `known` is not read again.
    """
    known = known or {}
    prints: Prints = {}
    for top in paths:
        for path in (path for file in files_below(top) for path in with_bases(file)):
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
