"""Stage 8: error rates or translation scores of decode folders, and RESULTS.md from them.

    python -m steps.score exp/*/decode/* --report RESULTS.md

Each folder gets score.json (with confidence intervals, signatures and cost), failures.json (empty, looping, too long
and untranslated outputs) and errors.txt (worst utterances first).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from steps.reporting.report import Layout, write_report
from steps.scoring.comet import load_comet
from steps.scoring.evaluate import Resampling, Settings, System, score_folder
from steps.scoring.hypotheses import decode_folders
from steps.scoring.references import ReferenceFile
from steps.scoring.text import CASINGS, TextRules
from utils.errors import UserError, run
from utils.options import Parser

LEAST_REPLICATES = 100  # of which 2.5 % are two or three


def summary(system: System) -> str:
    """One line for the terminal: folder, scores with half of their interval, utterances, what is odd."""
    everything = system.score["all"]
    shown = []
    for name in ("wer", "cer", "bleu", "chrf", "ter", "comet"):
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
    parser.add_argument(
        "--references", nargs="+", default=[], metavar="FILE", help='more of them: lines, or .jsonl of {"id", "text"}'
    )
    parser.add_argument(
        "--casing", nargs="+", choices=CASINGS, default=["cased"], help="how texts are compared; the first decides"
    )
    parser.add_argument(
        "--punctuation", choices=("keep", "remove"), default="keep", help="remove: but l'hôtel, vis-à-vis"
    )
    parser.add_argument("--comet", metavar="FOLDER", help="a COMET model: hparams.yaml and checkpoints/model.ckpt")
    parser.add_argument(
        "--baseline", nargs="+", default=[], metavar="DECODE_DIR", help="compare every system with these runs as well"
    )
    parser.add_argument(
        "--select", metavar="SPLIT", help="the summary shows each system's run that is best on this split, not on each"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples for intervals; 0: none")
    parser.add_argument("--seed", type=int, default=12345, help="of the resampling; sacrebleu's default too")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """`UserError` for numbers that make no intervals, and for a report that could not be written after the scoring."""
    if options.bootstrap < 0 or options.seed < 0:
        raise UserError("--bootstrap and --seed must not be negative; --bootstrap 0 switches the intervals off.")
    if 0 < options.bootstrap < LEAST_REPLICATES:
        raise UserError(
            f"--bootstrap {options.bootstrap} is too few for intervals: give {LEAST_REPLICATES} or more, or 0 for none."
        )
    if len(set(options.casing)) < len(options.casing):
        raise UserError(f"--casing {' '.join(options.casing)}: give each once.")
    for name in ("baseline", "select"):
        if getattr(options, name) and not options.report:
            raise UserError(f"--{name} is for the report: give --report FILE as well.")
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
    baselines = decode_folders(options.baseline)
    folders = decode_folders([*options.folders, *baselines])
    settings = Settings(
        rules=[TextRules(casing == "lower", options.punctuation == "remove") for casing in options.casing],
        resampling=Resampling(options.bootstrap, options.seed),
        references=[ReferenceFile.read(path) for path in options.references],
        comet=load_comet(options.comet) if options.comet else None,
    )
    systems = []
    for folder in folders:
        systems.append(score_folder(folder, settings))
        print(summary(systems[-1]), flush=True)
    if options.report:
        layout = Layout(options.title, [folder.resolve() for folder in baselines], options.select)
        write_report(options.report, systems, layout)
        print(f"report: {options.report}")


if __name__ == "__main__":
    run(main)
