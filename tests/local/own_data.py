"""Somebody's data to break, and what manifests hold of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from tests.corpora import own
from utils.files import read_jsonl


def put(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}


def rows(folder: Path, split: str | None = None) -> dict[str, dict]:
    found = folder.glob(f"{split or '*'}_supervisions.jsonl.gz")
    return {row["id"]: row for path in found for row in read_jsonl(path)}


def left_out(folder: Path) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in read_jsonl(folder / "left_out.jsonl")}


def make_tones(folder: Path) -> Path:
    """A Kaldi directory of twelve files of noise by four speakers."""
    rng = np.random.default_rng(0)
    for number in range(12):
        own.write(folder / f"{number:02d}.wav", rng.integers(-9000, 9000, 16000).astype(np.int16), 16000)
    keys = sorted(f"s{number % 4}-{number:02d}" for number in range(12))
    put(folder / "wav.scp", [f"{key} {key[-2:]}.wav" for key in keys])
    put(folder / "text", [f"{key} what {key[-2:]} says" for key in keys])
    put(folder / "utt2spk", [f"{key} {key[:2]}" for key in keys])
    return folder


def table(folder: Path, lines: list[str], name: str = "own.tsv", encoding: str = "utf-8") -> Path:
    for number in range(12):
        own.write(folder / f"{number:02d}.wav", np.arange(16000, dtype=np.int16), 16000)
    return put(folder / name, lines, encoding)


def twelve(first: str, *more: str) -> list[str]:
    return [first, *more, *(f"{number:02d}.wav\twhat {number} says" for number in range(len(more), 12))]
