"""What text translation reads and writes: decode folders, manifests and plain text in, a decode folder out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.lang.corpus import language_of, supervisions
from steps.lang.pair_tokens import SideConfig
from steps.lang.targets import parse_target, target_language, target_text
from steps.scoring.hypotheses import read_rows
from steps.translator import TextTranslator
from utils.errors import UserError
from utils.files import read_json, read_jsonl, read_lines, require, write_json, write_jsonl

Row = dict[str, Any]
KEPT = ("duration", "subsets", "translation")  # what of an utterance's row is passed on


@dataclass
class Utterance:
    """What is translated: `texts` that may have been said with their log-probabilities (None: as is known), best first.

    `said` is what was really said, where that is known; `row` is what is passed on of the recogniser's row.
    """

    name: str
    language: str | None
    texts: list[tuple[str, float | None]]
    reference: str | None
    said: str | None = None
    row: Row = field(default_factory=dict)


def from_decoding(folder: Path, target: str, nbest: int, said: bool, cuts: str | None) -> list[Utterance]:
    """The utterances of a decode folder; with `said` their true transcripts instead of what was recognised.

    References for `target` are taken from `cuts`, or from the rows' own `translation`. Errors: `UserError` for rows
    that are no recognised utterances, and for n-best lists and transcripts that are not there.
    """
    rows = read_rows(folder / "hyp.jsonl")
    lists = _lists(folder, nbest) if nbest > 1 and not said else {}
    by_id = {supervision.id: supervision for supervision in supervisions(cuts)} if cuts else {}
    if cuts and not any(row.get("id") in by_id for row in rows):
        raise UserError(f"--cuts {cuts} has none of the utterances of {folder}: give the cuts that were decoded.")
    found = []
    for row in rows:
        if (written := parse_target(target)) and row.get("language") == written:
            continue  # it is in that language already, as in steps.decode
        heard = lists.get(row["id"], [(row["hyp"], float(row.get("score") or 0.0))])
        truth = row.get("source") if parse_target(row.get("target", "text")) else row.get("ref")
        if said:
            heard = [(truth, None)] if truth else []
        if heard:
            language = parse_target(row.get("target", "text")) if not said else None
            reference = _reference(row, target, by_id.get(row["id"]))
            found.append(Utterance(row["id"], language or row.get("language"), heard, reference, truth, row))
    if not found:
        missing = "transcript ('ref')" if said else f"utterance to translate into {parse_target(target)}"
        raise UserError(f"{folder / 'hyp.jsonl'} has no {missing} in any of its {len(rows)} rows: decode others.")
    return found


def _reference(row: Row, target: str, supervision: Any) -> str | None:
    if supervision is not None:
        return target_text(supervision, target)
    language = parse_target(target)
    return row.get("ref") if language is None else (row.get("translation") or {}).get(language)


def _lists(folder: Path, nbest: int) -> dict[str, list[tuple[str, float]]]:
    """The `nbest` best texts of each utterance, each text once with its best score."""
    file = folder / "nbest.jsonl"
    if not file.exists():
        raise UserError(f"--nbest {nbest}: {file} does not exist: decode with --nbest {nbest} (stage 6), or leave it.")
    lists = {}
    for name, entries in read_lists(file).items():
        best: dict[str, float] = {}
        for text, score in entries[:nbest]:
            best.setdefault(text, score)
        lists[name] = list(best.items())
    return lists


def read_lists(file: Path) -> dict[str, list[tuple[str, float]]]:
    """The (text, score) pairs of each utterance of an `nbest.jsonl`, best first; `UserError` for another file."""
    lists = {}
    for number, row in enumerate(read_jsonl(file), 1):
        try:
            lists[row["id"]] = [(entry["hyp"], float(entry["score"])) for entry in row["nbest"]]
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{file}, entry {number}: no n-best list of an utterance: decode again (stage 6)."
            ) from None
    return lists


def from_manifest(path: str, source: SideConfig, target: SideConfig) -> list[Utterance]:
    """The texts of cuts or supervisions, and their translations as references."""
    found = []
    for supervision in supervisions(path):
        if text := target_text(supervision, source.target):
            row = {"duration": supervision.duration, **{key: (supervision.custom or {}).get(key) for key in KEPT[1:]}}
            language, reference = target_language(supervision, source.target), target_text(supervision, target.target)
            found.append(Utterance(supervision.id, language, [(text, None)], reference, text, row))
    if not any(utterance.reference for utterance in found):
        raise UserError(f"{path}: no utterance has {source.target} and {target.target}: give other cuts.")
    return found


def from_lines(path: str, references: str, language: str | None) -> list[Utterance]:
    """Lines of plain text, and lines with their translations."""
    texts, others = (
        list(read_lines(require(name), "save it as UTF-8, or check the path")) for name in (path, references)
    )
    if len(texts) != len(others):
        raise UserError(
            f"--references {references} has {len(others)} lines, {path} has {len(texts)}: give a translation for each."
        )
    if not texts:
        raise UserError(f"{path} is empty: give a text with a sentence a line.")
    language, stem = language or language_of(path), Path(path).name
    rows = enumerate(zip(texts, others, strict=True), 1)
    return [Utterance(f"{stem}:{i:06d}", language, [(text, None)], other, text) for i, (text, other) in rows]


def translate(
    translator: TextTranslator, utterances: Sequence[Utterance], asr_scale: float
) -> tuple[list[Row], list[Row]]:
    """(rows of hyp.jsonl, rows of nbest.jsonl), where each utterance's text is chosen by both its scores.

    The best has the highest asr_scale * log P(text | speech) + log P(translation | text) / norm of its length.
    """
    texts = [(text, utterance.language) for utterance in utterances for text, _ in utterance.texts]
    unique = list(dict.fromkeys(texts))
    found = dict(zip(unique, translator(*zip(*unique, strict=True)), strict=True))
    rows, lists = [], []
    for utterance in utterances:
        entries = []
        for text, asr_score in utterance.texts:
            best = found[text, utterance.language][0]
            scores = {"score": best.rank, "translation_score": best.score}
            if asr_score is not None:
                scores |= {"score": best.rank + asr_scale * asr_score, "asr_score": asr_score}
            entries.append({"hyp": best.text, "input": text, **{key: round(x, 4) for key, x in scores.items()}})
        entries.sort(key=lambda entry: -entry["score"])
        rows.append(_row(utterance, entries[0], translator.model.config.target.target))
        lists.append({"id": utterance.name, "nbest": entries})
    return rows, lists


def _row(utterance: Utterance, best: Row, target: str) -> Row:
    source = {"source": utterance.said or best["input"]} if parse_target(target) else {}
    kept = {key: value for key in KEPT if (value := utterance.row.get(key)) is not None}
    if parse_target(target):
        kept.pop("translation", None)
    language = utterance.row.get("language", utterance.language)  # of the speech
    about = {"id": utterance.name, "language": language, "target": target, "ref": utterance.reference}
    return {**about, **best, **source, **kept}


def read_stages(folder: Path) -> list[dict]:
    """What the recogniser, or the stages of a cascade, tell of themselves in `decode.json`."""
    about = read_json(require(folder / "decode.json", "stage 6 (decoding)"))
    return about.get("stages") or [about]


def told_split(stages: Sequence[dict]) -> str | None:
    """The split that the first of `stages` that names one was run on."""
    return next((str(stage["split"]) for stage in stages if stage.get("split")), None)


def chained(stages: Sequence[dict], audio: float) -> dict:
    """What `decode.json` says of all `stages` together, which heard `audio` seconds (0: they read text)."""
    seconds = round(sum(stage.get("seconds") or 0.0 for stage in stages), 6)
    total = {"seconds": seconds, "parameters": sum(stage.get("parameters") or 0 for stage in stages)}
    return total | ({"audio_seconds": audio, "rtf": round(seconds / audio, 6)} if audio else {})


def write_folder(folder: Path, rows: list[Row], lists: list[Row], about: dict) -> None:
    """Write a decode folder; `decode.json` last, so that it vouches for the rest."""
    for stale in ("decode.json", "nbest.jsonl"):
        (folder / stale).unlink(missing_ok=True)
    write_jsonl(folder / "hyp.jsonl", rows)
    if any(len(row["nbest"]) > 1 for row in lists):
        write_jsonl(folder / "nbest.jsonl", lists)
    write_json(folder / "decode.json", about)
