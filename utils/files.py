"""Files as the interface between stages: written whole or not at all, read with errors that name the line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` (same suffixes); rename it to `path` on success, delete it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def open_text(path: str | Path, mode: str = "rt"):
    """Open plain or gzipped (`.gz`) UTF-8 text; a byte order mark is dropped when reading."""
    encoding = "utf-8-sig" if "r" in mode else "utf-8"
    if str(path).endswith(".gz"):
        return gzip.open(path, mode, encoding=encoding)
    return open(path, mode, encoding=encoding)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary, open_text(temporary, "wt") as out:
        out.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line (gzipped where the name ends in `.gz`), atomically."""
    with atomic_path(path) as temporary, open_text(temporary, "wt") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON in `path`; `UserError` when it is missing or is not JSON."""
    try:
        return json.loads(require(path).read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and run the stage that makes it again.") from None


def read_lines(path: str | Path, remedy: str = "run the stage that makes it again") -> Iterator[str]:
    """The lines of a text file (gzipped where the name ends in `.gz`) without their ends; `UserError` with `remedy`."""
    try:
        with open_text(require(path)) as lines:
            for line in lines:
                yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: {remedy}.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is truncated or not gzip ({error}): {remedy}.") from None


def read_jsonl(path: str | Path) -> Iterator[dict]:
    """The objects of a JSON-lines file; `UserError` with the line number where a line is not JSON."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            if line.strip():
                yield json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}): run the stage that makes it again.") from None


def require(path: str | Path, made_by: str = "") -> Path:
    """`path` if it exists, else a `UserError` that names it and `made_by`, for instance "stage 2 (features)"."""
    path = Path(path)
    if not path.exists():
        hint = f"run {made_by} first" if made_by else "check the path, or run the stage that makes it"
        raise UserError(f"{path} does not exist: {hint}.")
    return path


def digest_of(path: str | Path, kind: str = "sha256") -> str:
    """The checksum of a file, in hexadecimal: SHA-256, or another `kind` that hashlib knows."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
