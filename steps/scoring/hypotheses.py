"""The output of a decoding run (`hyp.jsonl`, `decode.json`), checked, as the texts that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from steps.lang.targets import parse_target
from steps.scoring.references import ReferenceFile
from steps.scoring.text import TextRules
from utils.errors import UserError
from utils.files import read_json, read_jsonl, require
from utils.fingerprint import digest


@dataclass(frozen=True)
class Decoded:
    """One decoding run, utterances in the order of their ids, without those that cannot be scored (counted instead).

    `references` holds one or several texts an utterance; `sources` the transcripts of what was said and `durations`
    the seconds that it took, None where `hyp.jsonl` does not tell; `subsets` the membership (utterances,) by name.
    """

    folder: Path
    about: dict  # decode.json
    target: str
    ids: list[str]
    languages: list[str]  # of the speech
    references: list[tuple[str, ...]]
    hypotheses: list[str]
    without_reference: int
    same_language: int
    sources: list[str | None]
    durations: list[float | None]
    subsets: dict[str, np.ndarray]

    @property
    def target_language(self) -> str | None:
        """The language translated into, None for recognition."""
        return parse_target(self.target)

    @property
    def single_references(self) -> list[str]:
        """The reference of each utterance, for measures that take one; `UserError` where there are several."""
        if any(len(references) > 1 for references in self.references):
            raise UserError(
                f"{self.folder} has several references an utterance: WER and CER take one, "
                "so leave this folder out or score it without --references and 'refs'."
            )
        return [reference for (reference,) in self.references]

    @property
    def stages(self) -> list[dict]:
        """What the parts of a cascade tell of themselves as `decode.json` does; none for a single model."""
        stages = self.about.get("stages")
        return [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []

    def name(self, part: str) -> str:
        """`model`, `split`, `head` or `method`, from decode.json, else the names of the folders.

        A cascade has no model of its own: its `system` stands for it.
        """
        if part == "model":
            named = self.about.get("system") or self.about.get("model") or self.folder.resolve().parent.parent
            return Path(str(named)).name
        from_folder = dict(zip(("split", "head", "method"), self.folder.name.split(".", 2), strict=False))
        return str(self.about.get(part) or from_folder.get(part, "–"))

    def under(self, rules: TextRules) -> Decoded:
        """The same run with references and hypotheses as `rules` have them."""
        references = [tuple(map(rules, texts)) for texts in self.references]
        return replace(self, references=references, hypotheses=[rules(text) for text in self.hypotheses])


def decode_folders(paths: Iterable[str | Path]) -> list[Path]:
    """Decode folders among `paths` and directly below them, each once, in order; `UserError` if there are none."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"{path} is not a decode folder: run stage 6 (decoding) first, or check the path.")
        inside = [path] if (path / "hyp.jsonl").exists() else sorted(hyp.parent for hyp in path.glob("*/hyp.jsonl"))
        if not inside:
            raise UserError(f"{path} holds no hyp.jsonl: run stage 6 (decoding) first.")
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read_decoded(folder: str | Path, more: Sequence[ReferenceFile] = ()) -> Decoded:
    """Read and check a decode folder, its texts as they are, with references of `more` beside its own.

    Errors: `UserError` for lines that are not utterances, duplicates and missing ones, and where nothing can be scored.
    """
    folder = Path(folder)
    path = folder / "hyp.jsonl"
    about = read_json(require(folder / "decode.json", "stage 6 (decoding)"))
    if not isinstance(about, dict):
        raise UserError(f"{folder / 'decode.json'} must hold an object: decode again (stage 6).")
    _check_model(folder, about)
    rows = read_rows(path)
    _check_count(path, about, len(rows))
    return decoded_rows(path, about, rows, more)


def decoded_rows(path: Path, about: dict, rows: list[dict], more: Sequence[ReferenceFile] = ()) -> Decoded:
    """`read_decoded` of what `path` holds, `rows`, and `decode.json`, `about`."""
    target = _target(path, about, rows)
    language = parse_target(target)
    added = [file.of(path, [row["id"] for row in rows]) for file in more]
    translated = [row for row in rows if language is None or row.get("language") != language]
    references = {row["id"]: _references(row, added) for row in translated}
    scored = sorted((row for row in translated if references[row["id"]]), key=lambda row: row["id"])
    if not scored:
        raise UserError(f"{path} has no reference for '{target}' in any of its {len(rows)} utterances to score.")
    named = sorted({name for row in scored for name in row.get("subsets") or {}})
    return Decoded(
        **{"folder": path.parent, "about": about, "target": target},
        ids=[row["id"] for row in scored],
        languages=[row.get("language") or "und" for row in scored],
        references=[references[row["id"]] for row in scored],
        hypotheses=[row["hyp"] for row in scored],
        without_reference=len(translated) - len(scored),
        same_language=len(rows) - len(translated),
        sources=[row.get("source") or None for row in scored],
        durations=[row.get("duration") for row in scored],
        subsets={name: np.array([bool((row.get("subsets") or {}).get(name)) for row in scored]) for name in named},
    )


def _check_model(folder: Path, about: dict) -> None:
    """`UserError` where the model beside the run is no longer the one that it was decoded with."""
    checkpoint = folder.resolve().parent.parent / str(about.get("checkpoint"))
    told = about.get("checkpoint_digest")
    if told and checkpoint.is_file() and digest(str(checkpoint), checkpoint.stat().st_size) != told:
        raise UserError(
            f"{folder} was decoded before {checkpoint.name} was made anew: decode again (stage 6), or delete it."
        )


def _references(row: dict, added: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """The texts of a row's `ref` and `refs` (which may hold `ref` as well), then those of the files."""
    own = [text for text in row.get("refs") or [] if text is not None]
    if row.get("ref") is not None and row["ref"] not in own:
        own.insert(0, row["ref"])
    return (*own, *(texts[row["id"]] for texts in added if row["id"] in texts))


def _check_count(path: Path, about: dict, count: int) -> None:
    expected, record = about.get("utterances"), path.with_name("decode.json")
    if not isinstance(expected, int | None) or isinstance(expected, bool):
        raise UserError(f"{record}: 'utterances' is {expected!r}, no number: decode again (stage 6).")
    if expected is not None and expected != count:
        raise UserError(f"{path} has {count} of the {expected} utterances of decode.json: decode again (stage 6).")


def _is_text(value: object) -> bool:
    return isinstance(value, str | None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | None) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_text, value)))


def _are_answers(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(answer, bool) for answer in value.values()))


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "ref": (_is_text, "is not a text"),
    "refs": (_are_texts, "is not a list of texts"),
    "source": (_is_text, "is not a text"),
    "language": (_is_text, "is not a text"),
    "duration": (_is_number, "is not a number of seconds"),
    "subsets": (_are_answers, "is not true or false by name"),
}


def read_rows(path: Path) -> list[dict]:
    """The utterances of a `hyp.jsonl`; `UserError` where one is none or there twice, and where there is none."""
    rows: dict[str, dict] = {}
    for number, row in enumerate(read_jsonl(require(path, "stage 6 (decoding)")), 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "hyp")):
            raise UserError(f"{path}, entry {number}: no 'id' and 'hyp' texts in it: decode again (stage 6).")
        for key, (fits, wrong) in _FIELDS.items():
            if not fits(row.get(key)):
                raise UserError(f"{path}, entry {number}: '{key}' {wrong}: decode again (stage 6).")
        if row["id"] in rows:
            raise UserError(f"{path}, entry {number}: '{row['id']}' is there twice: decode again (stage 6).")
        rows[row["id"]] = row
    if not rows:
        raise UserError(f"{path} is empty: decode again (stage 6).")
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
