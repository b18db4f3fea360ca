"""The output of a decoding run (`hyp.jsonl`, `decode.json`), checked, with one rule of text handling for both sides."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.lang.tables import UNKNOWN_SURFACE
from steps.lang.targets import parse_target
from utils.errors import UserError
from utils.files import read_json, read_jsonl, require

_INTERNAL = "'’-‐"  # kept between letters: l'hôtel, rendez-vous


@dataclass(frozen=True)
class TextRules:
    """What is done to references and hypotheses alike before they are compared; NFC and single spaces always."""

    lowercase: bool = False
    remove_punctuation: bool = False

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if self.lowercase:
            text = text.lower()
        if self.remove_punctuation:
            text = without_punctuation(text)
        return " ".join(text.split())

    def describe(self, references: Sequence[str]) -> dict:
        """What was applied, and what the references then look like (measured, not promised)."""
        return {
            "unicode": "NFC",
            "casing": "lower" if self.lowercase else "as it is",
            "punctuation": "removed" if self.remove_punctuation else "as it is",
            "references": {
                "casing": _casing(references),
                "punctuation": "none" if all(_bare(reference) for reference in references) else "present",
            },
        }


def _casing(texts: Sequence[str]) -> str:
    for name, change in (("lower", str.lower), ("upper", str.upper)):
        if all(change(text) == text for text in texts):
            return name
    return "mixed"


def _bare(text: str) -> bool:
    return " ".join(without_punctuation(text).split()) == text


def without_punctuation(text: str) -> str:
    """`text` with a space for punctuation and symbols, but for apostrophes and hyphens between letters or digits."""

    def letter(index: int) -> bool:
        return 0 <= index < len(text) and unicodedata.category(text[index])[0] in "LNM"

    def keep(index: int, character: str) -> bool:
        if character == UNKNOWN_SURFACE or unicodedata.category(character)[0] not in "PS":
            return True
        return character in _INTERNAL and letter(index - 1) and letter(index + 1)

    return "".join(character if keep(index, character) else " " for index, character in enumerate(text))


@dataclass(frozen=True)
class Decoded:
    """One decoding run, utterances in the order of their ids, without those that cannot be scored (counted instead)."""

    folder: Path
    about: dict  # decode.json
    target: str
    ids: list[str]
    languages: list[str]  # of the speech
    references: list[str]
    hypotheses: list[str]
    without_reference: int
    same_language: int

    @property
    def target_language(self) -> str | None:
        """The language translated into, None for recognition."""
        return parse_target(self.target)

    def name(self, part: str) -> str:
        """`model`, `split`, `head` or `method`, from decode.json, else the names of the folders."""
        if part == "model":
            return Path(str(self.about.get("model") or self.folder.parent.parent)).name
        from_folder = dict(zip(("split", "head", "method"), self.folder.name.split(".", 2), strict=False))
        return str(self.about.get(part) or from_folder.get(part, "–"))


def decode_folders(paths: Iterable[str | Path]) -> list[Path]:
    """Decode folders among `paths` and directly below them, each once, in order; `UserError` if there are none."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"{path} is not a decode folder: run stage 6 (decoding) first, or check the path.")
        inside = [path] if (path / "hyp.jsonl").exists() else sorted(hyp.parent for hyp in path.glob("*/hyp.jsonl"))
        if not inside:
            raise UserError(f"{path} holds no hyp.jsonl: run stage 6 (decoding) first.")
        found.update(dict.fromkeys(inside))
    return list(found)


def read_decoded(folder: str | Path, rules: TextRules) -> Decoded:
    """Read and check a decode folder; `UserError` for lines that are not utterances, duplicates and missing ones."""
    folder = Path(folder)
    path = folder / "hyp.jsonl"
    about = read_json(require(folder / "decode.json", "stage 6 (decoding)"))
    if not isinstance(about, dict):
        raise UserError(f"{folder / 'decode.json'} must hold an object: decode again (stage 6).")
    rows = _rows(path)
    if not rows:
        raise UserError(f"{path} is empty: decode again (stage 6).")
    expected = about.get("utterances")
    if not isinstance(expected, int | None) or isinstance(expected, bool):
        raise UserError(f"{folder / 'decode.json'}: 'utterances' is {expected!r}, no number: decode again (stage 6).")
    if expected is not None and expected != len(rows):
        raise UserError(f"{path} has {len(rows)} of the {expected} utterances of decode.json: decode again (stage 6).")
    target = _target(path, about, rows)
    language = parse_target(target)
    translated = [row for row in rows if language is None or row.get("language") != language]
    scored = sorted((row for row in translated if row.get("ref") is not None), key=lambda row: row["id"])
    if not scored:
        raise UserError(f"{path} has no reference for '{target}' in any of its {len(rows)} utterances to score.")
    return Decoded(
        **{"folder": folder, "about": about, "target": target},
        ids=[row["id"] for row in scored],
        languages=[row.get("language") or "und" for row in scored],
        references=[rules(row["ref"]) for row in scored],
        hypotheses=[rules(row["hyp"]) for row in scored],
        without_reference=len(translated) - len(scored),
        same_language=len(rows) - len(translated),
    )


def _rows(path: Path) -> list[dict]:
    rows: dict[str, dict] = {}
    for number, row in enumerate(read_jsonl(require(path, "stage 6 (decoding)")), 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "hyp")):
            raise UserError(f"{path}, entry {number}: no 'id' and 'hyp' texts in it: decode again (stage 6).")
        for key in ("ref", "language"):
            if not isinstance(row.get(key), str | None):
                raise UserError(f"{path}, entry {number}: '{key}' is not a text: decode again (stage 6).")
        if row["id"] in rows:
            raise UserError(f"{path}, entry {number}: '{row['id']}' is there twice: decode again (stage 6).")
        rows[row["id"]] = row
    return list(rows.values())


def _target(path: Path, about: dict, rows: list[dict]) -> str:
    named = {str(row["target"]) for row in (about, *rows) if row.get("target")}
    if len(named) > 1:
        raise UserError(
            f"{path} and its decode.json mix the targets {' and '.join(sorted(named))}: score one at a time."
        )
    target = named.pop() if named else "text"
    parse_target(target)
    return target
