"""Decode folders as steps.decode leaves them, and the command line in this process."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

SENTENCES = {
    "en": ["please hold the line", "you have no new messages", "that is not a valid extension"],
    "fr": ["ne quittez pas", "vous n'avez pas de nouveau message", "ce n'est pas un poste valide"],
    "ru": ["не кладите трубку", "у вас нет новых сообщений", "это неверный добавочный номер"],
}


def worsen(text: str, rng: random.Random, rate: float) -> str:
    words = [word[::-1] if rng.random() < rate else word for word in text.split()]
    return " ".join(word for word in words if rng.random() > rate / 2)


@pytest.fixture
def decode_folder(tmp_path):
    """Writes `exp/<model>/decode/<split>.<head>.<method>` and returns it; `rows` and `about` replace what is usual."""

    def write(model="joint", split="test", target="text", method="greedy", rate=0.3, rows=None, about=None) -> Path:
        head = "ctc" if target == "text" else "transducer"
        folder = tmp_path / "exp" / model / "decode" / f"{split}.{head}.{method}"
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(f"{model} {split} {method}")
        usual = []
        for language, lines in SENTENCES.items():
            for number, line in enumerate(lines * 4):
                into = target.partition(".")[2]
                reference = line if not into else SENTENCES[into][number % 3] if into != language else None
                hypothesis = worsen(reference or "ok", rng, rate)
                row = {"id": f"{language}_{number}", "language": language, "target": target, "ref": reference}
                usual.append({**row, "hyp": hypothesis, "score": -1.5, "tokens": [], "duration": 2.0})
        rows = usual if rows is None else rows
        record = {
            **{"model": f"exp/{model}", "head": head, "method": method, "target": target, "split": split},
            **{"options": {"beam": 4} if method != "greedy" else {}, "checkpoint": f"exp/{model}/averaged.pt"},
            **{"seconds": 2.5, "audio_seconds": 72.0, "rtf": 0.0347, "utterances": len(rows), "commit": "abc1234"},
            **{"command": f"python -m steps.decode --model exp/{model} --cuts data/{split}/cuts.jsonl.gz"},
            **{"date": f"2026-11-22 04:0{len(method) % 10}:00", "hardware": {"cpu": "Sim | 9000", "cores": 2}},
            "versions": {"torch": "1.13.1", "k2": None},
        }
        (folder / "hyp.jsonl").write_text(
            "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows),
            encoding="utf-8",
        )
        (folder / "decode.json").write_text(json.dumps({**record, **(about or {})}), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def score(monkeypatch, capsys):
    """Runs `steps.score`: (arguments) -> (exit status, stdout, stderr)."""
    from steps import score as program
    from utils.errors import run

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["score", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run(program.main)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call
