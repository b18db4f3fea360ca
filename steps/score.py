"""Stage 8: error rates or translation scores of decode folders, and RESULTS.md from them.

    python -m steps.score exp/*/decode/* --report RESULTS.md

Each folder gets score.json (with confidence intervals and signatures) and errors.txt (worst utterances first).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steps.report import System, write_report
from steps.scoring.bootstrap import interval, resampled_sums
from steps.scoring.hypotheses import Decoded, TextRules, decode_folders, read_decoded
from steps.scoring.listing import error_listing, translation_listing
from steps.scoring.measures import Measure, error_measures, translation_measures, word_alignments
from utils.errors import UserError, run
from utils.files import read_json, write_json, write_text
from utils.options import Parser

LEAST_REPLICATES = 100  # of which 2.5 % are two or three


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `replicates` bootstrap samples (0: none) drawn with `seed`."""

    replicates: int = 1000
    seed: int = 12345


def score_group(measures: Sequence[Measure], mask: np.ndarray, resampling: Resampling) -> tuple[dict, dict]:
    """Scores of the utterances where `mask` (utterances,), and each measure's replicates (replicates,) by its name."""
    statistics = np.hstack([measure.statistics[mask] for measure in measures])  # resampled together: paired
    sums = statistics.sum(axis=0)
    drawn = resampled_sums(statistics, resampling.replicates, resampling.seed) if resampling.replicates else None
    scores, replicates, start = {}, {}, 0
    for measure in measures:
        columns = slice(start, start := start + measure.statistics.shape[1])
        value = measure.score(sums[columns])
        scores[measure.name] = entry = {"value": _rounded(value)}
        if drawn is not None and value is not None:
            defined = [score for row in drawn[:, columns] if (score := measure.score(row)) is not None]
            replicates[measure.name] = np.array(defined)
            entry["low"], entry["high"] = map(_rounded, interval(replicates[measure.name]))
        entry.update(zip(measure.counts, map(int, sums[columns]), strict=False))
    return scores, replicates


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _sizes(decoded: Decoded, mask: np.ndarray) -> dict:
    references = [len(text.split()) for text, kept in zip(decoded.references, mask, strict=True) if kept]
    hypotheses = [len(text.split()) for text, kept in zip(decoded.hypotheses, mask, strict=True) if kept]
    words = sum(references)
    return {
        "utterances": len(references),
        "reference_words": words,
        "hypothesis_words": sum(hypotheses),
        "length_ratio": _rounded(sum(hypotheses) / words) if words else None,
        "empty_hypotheses": hypotheses.count(0),
        "empty_references": references.count(0),
    }


def score_folder(folder: str | Path, rules: TextRules, resampling: Resampling) -> System:
    """Score one decode folder and write its score.json and errors.txt."""
    decoded = read_decoded(folder, rules)
    if decoded.target_language is None:
        alignments = word_alignments(decoded)
        measures = error_measures(decoded, alignments)
        listing = error_listing(decoded, alignments, measures[0])
    else:
        measures = translation_measures(decoded, rules, resampling.replicates, resampling.seed)
        listing = translation_listing(decoded, measures[1])
    languages = np.array(decoded.languages)
    everything = np.ones(len(languages), dtype=bool)
    scores, replicates = score_group(measures, everything, resampling)
    result = {
        "target": decoded.target,
        "text": rules.describe(decoded.references),
        "characters": "without spaces",
        "bootstrap": {"replicates": resampling.replicates, "seed": resampling.seed, "level": 0.95},
        "signatures": {measure.name: measure.signature for measure in measures if measure.signature},
        "not_scored": {"without_reference": decoded.without_reference, "same_language": decoded.same_language},
        "all": {**_sizes(decoded, everything), **scores},
        "languages": {
            str(language): {**_sizes(decoded, mask), **score_group(measures, mask, resampling)[0]}
            for language in np.unique(languages)
            for mask in [languages == language]
        },
    }
    write_json(decoded.folder / "score.json", result)
    write_text(decoded.folder / "errors.txt", "".join(f"{line}\n" for line in listing))
    return System(decoded, result, _training(decoded.folder), replicates)


def _training(folder: Path) -> dict:
    """The model's train.json, two folders up (`exp/<model>/decode/<run>`), or nothing if it was trained elsewhere."""
    path = folder.resolve().parent.parent / "train.json"
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict):
        raise UserError(f"{path} must hold an object: train again (stage 5) or delete it.")
    return record


def summary(system: System) -> str:
    """One line for the terminal: folder, scores with half of their interval, utterances, what is odd."""
    everything = system.score["all"]
    shown = []
    for name in ("wer", "cer", "bleu", "chrf", "ter"):
        if entry := everything.get(name):
            spread = f" ± {(entry['high'] - entry['low']) / 2:.2f}" if "low" in entry else ""
            shown.append(f"{name} {'–' if entry['value'] is None else format(entry['value'], '.2f')}{spread}")
    notes = [f"{everything['utterances']} utterances"]
    notes += [f"{everything[key]} {key.replace('_', ' ')}" for key in _ODD if everything[key]]
    notes += [f"{n} {key.replace('_', ' ')}" for key, n in system.score["not_scored"].items() if n]
    return f"{system.decoded.folder}: {', '.join(shown)} ({', '.join(notes)})"


_ODD = ("empty_hypotheses", "empty_references")


def _options() -> Parser:
    parser = Parser(prog="steps.score", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="DECODE_DIR", help="folders with hyp.jsonl, or their parents")
    parser.add_argument("--report", metavar="FILE", help="write the tables of all folders to this Markdown file")
    parser.add_argument("--title", default="Results", help="heading of the report")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples for intervals; 0: none")
    parser.add_argument("--seed", type=int, default=12345, help="of the resampling; sacrebleu's default too")
    parser.add_argument("--lowercase", action="store_true", help="compare in lower case")
    parser.add_argument("--remove-punctuation", action="store_true", help="compare without it (but l'hôtel, vis-à-vis)")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """`UserError` for numbers that make no intervals, and for a report that could not be written after the scoring."""
    if options.bootstrap < 0 or options.seed < 0:
        raise UserError("--bootstrap and --seed must not be negative; --bootstrap 0 switches the intervals off.")
    if 0 < options.bootstrap < LEAST_REPLICATES:
        raise UserError(
            f"--bootstrap {options.bootstrap} is too few for intervals: give {LEAST_REPLICATES} or more, or 0 for none."
        )
    if options.report:
        path = Path(options.report)
        if path.is_dir():
            raise UserError(f"--report {path} is a folder: give a file, such as {path / 'RESULTS.md'}.")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        try:
            tempfile.TemporaryFile(dir=folder).close()  # modes alone do not tell what root may, or of /proc
        except OSError as error:
            raise UserError(
                f"--report {path} cannot be written in {folder} ({error.strerror}): give a file elsewhere."
            ) from None


def main() -> None:
    options = _options().parse_args()
    check_options(options)
    rules = TextRules(options.lowercase, options.remove_punctuation)
    resampling = Resampling(options.bootstrap, options.seed)
    systems = []
    for folder in decode_folders(options.folders):
        systems.append(score_folder(folder, rules, resampling))
        print(summary(systems[-1]), flush=True)
    if options.report:
        write_report(options.report, systems, options.title)
        print(f"report: {options.report}")


if __name__ == "__main__":
    run(main)
