"""What the tests of corpora read of manifests, and how they break a corpus."""

from __future__ import annotations

from pathlib import Path

from utils.files import read_jsonl


def rows(folder: Path, split: str, kind: str = "supervisions") -> list[dict]:
    """The supervisions, or recordings, of a split."""
    return list(read_jsonl(folder / f"{split}_{kind}.jsonl.gz"))


def left_out(folder: Path) -> dict[str, str]:
    """{id: reason} of left_out.jsonl."""
    return {row["id"]: row["reason"] for row in read_jsonl(folder / "left_out.jsonl")}


def change(path: Path, old: str, new: str) -> None:
    """Put `new` in the place of the first `old` in a text file, which has it."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
