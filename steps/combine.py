"""Stage 7: several systems' hypotheses for the same utterances, and of each utterance the one that most agree with.

    python -m steps.combine --in exp/aed/decode/dev.attention.beam exp/cascade/decode/dev.mt.beam \
        --out exp/combination/decode/dev.mbr.bleu

Minimum Bayes risk (Kumar and Byrne, 2004): the hypothesis of the highest expected utility, where any of the others
might be right. A system's n-best list shares its weight by the scores in it; a single system can be rescored too.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from steps.cascade import KEPT, Row, chained, read_lists, read_stages, told_split, write_folder
from steps.lang.targets import parse_target
from steps.scoring.hypotheses import read_rows
from steps.search.risk import Utility, expected, shares, word_accuracy
from utils.errors import UserError, run
from utils.hardware import provenance
from utils.options import Parser, positive


def _metric(metric: BLEU | CHRF) -> Utility:
    return lambda hypothesis, reference: metric.sentence_score(hypothesis, [reference]).score / 100


UTILITIES: dict[str, Callable[[], Utility]] = {
    "bleu": lambda: _metric(BLEU(lowercase=True, smooth_method="add-k", effective_order=True)),
    "chrf": lambda: _metric(CHRF(lowercase=True)),
    "wer": lambda: word_accuracy,
}


def read_weights(folder: Path, scale: float) -> tuple[dict[str, Row], dict[str, dict[str, float]]]:
    """(rows of hyp.jsonl, the probability of each text) by utterance; of n-best lists where the folder has them."""
    rows = {row["id"]: row for row in read_rows(folder / "hyp.jsonl")}
    lists = read_lists(folder / "nbest.jsonl") if (folder / "nbest.jsonl").exists() else {}
    found = {}
    for name, row in rows.items():
        entries = lists.get(name) or [(row["hyp"], 0.0)]
        weights: dict[str, float] = {}
        for (text, _), share in zip(entries, shares([score for _, score in entries], scale), strict=True):
            weights[text] = weights.get(text, 0.0) + float(share)
        found[name] = weights
    return rows, found


def combine(folders: Sequence[Path], weights: Sequence[float], utility: Utility, scale: float) -> tuple[list, list]:
    """(rows of hyp.jsonl, rows of nbest.jsonl); the rows are the first folder's, but for what was chosen.

    Errors: `UserError` for folders that are not of the same utterances and target.
    """
    systems = [read_weights(folder, scale) for folder in folders]
    first = systems[0][0]
    for folder, (rows, _) in zip(folders, systems, strict=True):
        _check_same(folders[0], first, folder, rows)
    chosen, lists = [], []
    for name, row in first.items():
        pool: dict[str, float] = {}
        for weight, (_, found) in zip(weights, systems, strict=True):
            for text, share in found[name].items():
                pool[text] = pool.get(text, 0.0) + weight * share
        entries = [{"hyp": text, "score": round(value, 4)} for text, value in expected(pool, utility)]
        kept = {key: row[key] for key in ("id", "language", "target", "ref", "source", *KEPT) if key in row}
        chosen.append({**kept, **entries[0]})
        lists.append({"id": name, "nbest": entries})
    return chosen, lists


def _check_same(one: Path, first: Mapping[str, Row], other: Path, rows: Mapping[str, Row]) -> None:
    if first.keys() != rows.keys():
        raise UserError(
            f"{other} has {len(rows)} utterances, {one} {len(first)}, and they are not the same: combine systems that "
            "decoded the same cuts."
        )
    targets = {row.get("target", "text") for row in (*first.values(), *rows.values())}
    if len(targets) > 1:
        raise UserError(f"{one} and {other} have the targets {' and '.join(sorted(targets))}: combine those of one.")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.combine", description=__doc__.splitlines()[0])
    parser.add_argument("--in", dest="folders", nargs="+", required=True, metavar="FOLDER", help="decode folders")
    parser.add_argument("--out", required=True, help="decode folder to write: <split>.<head>.<method>")
    parser.add_argument("--system", default="combination", help="name for the table of results")
    parser.add_argument("--utility", choices=UTILITIES, help="what is maximised; otherwise bleu, of transcripts wer")
    parser.add_argument("--weights", nargs="+", type=positive, help="of the systems; otherwise all are alike")
    parser.add_argument("--scale", type=positive, default=1.0, help="of the scores in n-best lists: higher is sharper")
    args = parser.parse_args(argv)
    folders = list(map(Path, args.folders))
    weights = args.weights or [1.0] * len(folders)
    if len(weights) != len(folders):
        raise UserError(f"--weights has {len(weights)} numbers for {len(folders)} folders: give one for each.")
    stages: dict[tuple, dict] = {}
    for folder in folders:
        for stage in read_stages(folder):
            stages.setdefault(tuple(str(stage.get(key)) for key in ("model", "head", "method", "options")), stage)
    started = time.perf_counter()
    target = read_rows(folders[0] / "hyp.jsonl")[0].get("target") or "text"
    name = args.utility or ("bleu" if parse_target(target) else "wer")
    rows, lists = combine(folders, weights, UTILITIES[name](), args.scale)
    audio = round(sum(row.get("duration") or 0.0 for row in rows), 3)
    split = told_split(list(stages.values())) or folders[0].resolve().name.split(".")[0]
    about = {
        "system": args.system,
        **{"split": split, "head": "mbr", "method": name, "target": target, "utterances": len(rows)},
        "options": {"weights": weights, "scale": args.scale},
        **chained([*stages.values(), {"seconds": time.perf_counter() - started}], audio),
        **provenance(shlex.join(["python", "-m", "steps.combine", *sys.argv[1:]])),
        "stages": list(stages.values()),
    }
    write_folder(Path(args.out), rows, lists, about)
    print(f"{args.out}: {len(rows)} utterances of {len(folders)} systems, {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    run(main)
