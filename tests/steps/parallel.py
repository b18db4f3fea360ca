"""Twenty sentences in two languages, as in Multi30k: what tests of text translation learn by heart."""

from __future__ import annotations

import gzip
import json
from itertools import product
from pathlib import Path

from lhotse import SupervisionSegment, SupervisionSet

from steps.lang.prepare import prepare

WHO = {"a man": "un homme", "a woman": "une femme", "two dogs": "deux chiens", "the child": "l'enfant"}
WHAT = {
    "sleeps": "dort",
    "runs on the beach": "court sur la plage",
    "is reading a red book": "lit un livre rouge",
    "sings": "chante",
    "looks at the sea": "regarde la mer",
}
EN = [f"{who} {what}" for who, what in product(WHO, WHAT)]
FR = [f"{WHO[who].capitalize()} {WHAT[what]}." for who, what in product(WHO, WHAT)]


def write_lines(folder: Path, stem: str = "train") -> dict[str, str]:
    """`<stem>.en.gz` and `<stem>.fr.gz`, a sentence a line, as `data.train` names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, lines in (("en", EN), ("fr", FR)):
        with gzip.open(folder / f"{stem}.{language}.gz", "wt", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
    return {"source": str(folder / f"{stem}.en.gz"), "target": str(folder / f"{stem}.fr.gz")}


def write_supervisions(path: Path, copies: int = 1) -> Path:
    """The sentences as supervisions u00, u01 ...; copies have other ids, as at other speeds."""
    segments = [
        SupervisionSegment(
            id=f"u{i:02d}{'' if not copy else f'_sp{copy}'}",
            recording_id=f"r{i:02d}",
            start=0.0,
            duration=2.0,
            text=one,
            language="en",
            custom={"translation": {"fr": other}},
        )
        for copy in range(copies)
        for i, (one, other) in enumerate(zip(EN, FR, strict=True))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    SupervisionSet.from_segments(segments).to_file(path)
    return path


def write_rows(path: Path, rows: list[dict]) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def write_langs(folder: Path) -> dict[str, str]:
    """Sentencepiece models of both sides: `{"source": <lang folder>, "target": <lang folder>}`."""
    about = {"tags": False, "target": "text", "same_language": False}
    for side, language, lines in (("source", "en", EN), ("target", "fr", FR)):
        prepare({language: lines}, folder / f"lang_{side}", "bpe", about, 60, "bpe")
    return {side: str(folder / f"lang_{side}") for side in ("source", "target")}


def settings(root: Path, layer: dict) -> dict:
    """The values of a `conf.yaml` that trains a transformer of such layers on files that this writes in `root`."""
    langs = write_langs(root)
    return {
        "translator": {"name": "transformer", "encoder": layer, "decoder": layer},
        "source": {"lang": langs["source"]},
        "target": {"target": "translation.fr", "lang": langs["target"]},
        "data": {"train": write_lines(root), "max_tokens": 600},
        "optimizer": {"name": "adamw", "lr": 0.005, "weight_decay": 0.0},
        "schedule": {"name": "cosine", "warmup_steps": 20},
        "precision": "float32",
        "epochs": 2,
        "average": {"last_epochs": 1},
    }
