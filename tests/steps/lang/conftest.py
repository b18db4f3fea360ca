"""Real prompts in five languages, with accents, Cyrillic, apostrophes and hyphens, as cuts on disk."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

SENTENCES = {
    "en": [
        "please leave your message after the tone",
        "you have no new messages",
        "i'm sorry that's not a valid extension",
        "the conference is full please try again later",
    ],
    "es": [
        "por favor deje su mensaje después del tono",
        "no tiene mensajes nuevos",
        "lo siento la extensión no es válida",
        "la compañía está llena inténtelo mañana en el vigésimo número",
    ],
    "fr": [
        "veuillez laisser votre message après le bip",
        "vous n'avez pas de nouveau message",
        "désolé cette extension n'est pas valide",
        "réessayez plus tard rendez-vous à l'hôtel où ça naît dès noël",
    ],
    "it": [
        "lasciate un messaggio dopo il segnale acustico",
        "non c'è nessun nuovo messaggio",
        "l'interno non è valido",
        "la conferenza è piena riprovi più tardi perché sì può",
    ],
    "ru": [
        "пожалуйста оставьте сообщение после сигнала",
        "у вас нет новых сообщений",
        "извините неверный добавочный номер",
        "конференция заполнена попробуйте ещё раз во-первых подъезд",
    ],
}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def sentences() -> dict[str, list[str]]:
    return SENTENCES


@pytest.fixture
def cut_rows() -> list[dict]:
    """Cuts of every sentence, with its translations into the other four languages."""
    rows = []
    for number in range(4):
        for language, sentences in SENTENCES.items():
            name = f"{language}_prompt{number}"
            translation = {other: SENTENCES[other][number] for other in SENTENCES if other != language}
            supervision = {
                **{"id": name, "recording_id": name, "start": 0.0, "duration": 2.0, "channel": 0},
                **{"text": sentences[number], "language": language, "speaker": language},
                "custom": {"translation": translation, "prompt": f"prompt{number}"},
            }
            cut = {"id": name, "start": 0, "duration": 2.0, "channel": 0, "supervisions": [supervision]}
            rows.append({**cut, "type": "MonoCut"})
    return rows


@pytest.fixture
def cuts(cut_rows, tmp_path: Path) -> Path:
    path = tmp_path / "cuts.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in cut_rows)
    return path


@pytest.fixture
def prepare_lang(program):
    """Runs `steps.lang.prepare`: (arguments ...) -> (exit status, stdout, stderr)."""
    from steps.lang import prepare

    return partial(program, prepare)


@pytest.fixture
def in_new_process():
    """Runs Python code in a fresh interpreter, as another machine would, and returns its output."""

    def call(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    return call
