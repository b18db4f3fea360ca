"""Stage 6: choose the options of searches on a held-out split: which values of the lists in a YAML file are best.

    python -m steps.tune --model exp/m --cuts data/dev/cuts.jsonl.gz --searches conf/searches.yaml \\
        --out exp/m/searches.yaml
    python -m steps.decode --model exp/m --cuts data/test/cuts.jsonl.gz --searches exp/m/searches.yaml ...

Every combination of a search's lists is tried; the first of the best is written, with one value of each option. A batch
is encoded once, and what combinations share (lattices, n-best lists, the scores of other models) is computed once. The
scores of all combinations are printed and written beside `--out`, as JSON. A search without lists stays as it is.
"""

from __future__ import annotations

import itertools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from steps.decode import Output, check_features, decode, split_names
from steps.lang.targets import parse_target
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import DataConfig
from steps.recogniser import Recogniser
from steps.scoring.evaluate import whole_scores
from steps.scoring.hypotheses import decoded_rows
from steps.scoring.text import CASINGS, TextRules
from steps.search_options import add_model_arguments, read_searches
from utils.errors import UserError, run
from utils.files import write_json, write_text
from utils.options import Parser, natural

TRANSCRIPTS, TRANSLATIONS = ("wer", "cer"), ("bleu", "chrf", "ter")
HIGHER_IS_BETTER = ("bleu", "chrf")
Options = dict[str, Any]


def combinations(options: Mapping[str, Sequence]) -> list[Options]:
    """Every choice of one value for each option, the last one's changing fastest."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def trials(searches: Mapping[str, Mapping[str, Sequence]]) -> dict[str, dict[str, Options]]:
    """By search, the combinations to try by the names that they are decoded under; searches without a choice lack."""
    found = {}
    for name, options in searches.items():
        tried = combinations(options)
        if len(tried) > 1:
            found[name] = {f"{name}+{number}": one for number, one in enumerate(tried, 1)}
    return found


def chosen_by(target: str, measure: str | None, search: str) -> str:
    """The measure to choose by; `UserError` for one that texts of this target do not have."""
    known = TRANSLATIONS if parse_target(target) else TRANSCRIPTS
    if measure is not None and measure not in known:
        raise UserError(f"--measure {measure}: {search} writes '{target}': give {' or '.join(known)}.")
    return measure or known[0]


def choose(
    tried: Mapping[str, Mapping[str, Options]], outputs: Sequence[Output], rules: TextRules, measure: str | None
) -> tuple[dict[str, Options], list[dict]]:
    """The best options of each search, and a row of the table for every combination."""
    by_name, best, table = {output.search.name: output for output in outputs}, {}, []
    for name, options in tried.items():
        rows = []
        for trial, one in options.items():
            output = by_name[trial]
            decoded = decoded_rows(Path(name), {}, [row for _, row in sorted(output.rows.items())])
            by, found = chosen_by(output.target, measure, name), whole_scores(decoded, rules)
            if found[by] is None:
                raise UserError(f"--cuts: no reference of {name} has a word: give cuts that have transcripts.")
            value = -found[by] if by in HIGHER_IS_BETTER else found[by]
            seconds = round(output.search_seconds, 3)
            rows.append((value, {"search": name, "options": one, "by": by, **found, "search_seconds": seconds}))
        chosen = min(rows, key=lambda row: row[0])[1]
        best[name] = chosen["options"]
        table += [{**row, "chosen": row is chosen} for _, row in rows]
    return best, table


def show(searches: Mapping[str, Mapping[str, Sequence]], table: Sequence[dict]) -> None:
    """Print the table: scores, and what was chosen among."""
    for row in table:
        varied = {key: value for key, value in row["options"].items() if len(searches[row["search"]][key]) > 1}
        names = [name for name in (*TRANSCRIPTS, *TRANSLATIONS) if row.get(name) is not None]
        scores = "  ".join(f"{name} {row[name]:6.2f}" for name in names)
        mark, values = "*" if row["chosen"] else " ", " ".join(f"{key}={value}" for key, value in varied.items())
        print(f"{mark} {row['search']}  {scores}  {values}")


def write(path: Path, searches: Mapping[str, Mapping[str, Sequence]], best: Mapping[str, Options], told: str) -> None:
    """The YAML file, each search with one value of each option, `told` in comments above."""
    single = {name: best.get(name) or combinations(options)[0] for name, options in searches.items()}
    comment = "".join(f"# {line}\n" for line in told.splitlines())
    write_text(path, comment + yaml.safe_dump(single, sort_keys=False, allow_unicode=True))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.tune", description=__doc__.splitlines()[0])
    add_model_arguments(parser)
    parser.add_argument("--cuts", required=True, help="the held-out split, data/<split>/cuts.jsonl.gz")
    parser.add_argument(
        "--searches", nargs="+", required=True, metavar="YAML", help="'head:method: {lm_scale: [0.5, 1, 1.5]}'"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="YAML", help="file to write")
    parser.add_argument("--measure", choices=(*TRANSCRIPTS, *TRANSLATIONS), help="otherwise wer, of translations bleu")
    parser.add_argument("--casing", choices=CASINGS, default="cased", help="as in steps.score")
    parser.add_argument("--punctuation", choices=("keep", "remove"), default="keep", help="as in steps.score")
    parser.add_argument("--workers", type=natural, default=0, help="processes that read features; 0: this one")
    args = parser.parse_args(argv)
    if args.out.resolve() in {Path(path).resolve() for path in args.searches}:
        raise UserError(f"--out {args.out} is the file with the lists to choose from: give another.")
    started, searches = time.perf_counter(), {}
    for path in args.searches:
        searches |= read_searches(path)
    tried, best, table = trials(searches), {}, []
    command, (split,) = shlex.join(["python", "-m", "steps.tune", *sys.argv[1:]]), split_names([args.cuts])
    if tried:
        count = sum(map(len, tried.values()))
        print(f"{count} combinations of {len(tried)} searches: {', '.join(f'{k} {len(v)}' for k, v in tried.items())}")
        cuts = Cuts.load(args.cuts)
        wanted = {trial: one for options in tried.values() for trial, one in options.items()}
        recogniser = Recogniser(args.model, wanted, {}, args.checkpoint, args.device, args.precision)
        check_features(cuts, recogniser)
        for search in recogniser.searches:
            chosen_by(recogniser.target(search), args.measure, search.name)
        data = DataConfig(max_duration=args.max_duration, workers=args.workers, spec_augment=None)
        outputs = decode(recogniser, cuts, data, split)
        rules = TextRules(args.casing == "lower", args.punctuation == "remove")
        best, table = choose(tried, outputs, rules, args.measure)
        show(searches, table)
        print(f"{time.perf_counter() - started:.1f} s for {outputs[0].audio_seconds:.1f} s of speech")
    write_json(args.out.with_suffix(".json"), {"command": command, "split": split, "combinations": table})
    write(args.out, searches, best, f"chosen on {split}, all scores in {args.out.stem}.json:\n{command}")
    return 0


if __name__ == "__main__":
    run(main)
