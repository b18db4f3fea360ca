"""Your own data: a Kaldi data directory, Lhotse manifests or a table, for recognition and for translation.

    python -m local.own manifests --corpus data/train --language en --out data/manifests
    python -m local.own manifests --corpus talks.tsv --language en --target fr --text plain --out data/manifests

What it is, is seen from its files (`local/own_parts.py`; `--format` says so where that is not clear). The readers are
`local/kaldi_dir.py`, `local/lhotse_files.py` and `local/tables.py`; the same data give the same manifests in all three.
Splits are those that the data have, or are made (`local/hashed_splits.py`). egs/own says what the files look like.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from local.corpus import Header, Program, leave_manifests, read_utterances, usable
from local.hashed_splits import WAYS, choose_way, describe, make_splits
from local.manifests import Utterance, spread_of_seconds
from local.own_parts import FORMATS, read_splits
from local.pipes import Pipes
from local.rows import Given, Recordings, Row, Splits, to_utterance
from local.text import lower, plain, tidy
from utils.errors import UserError, nearest, run
from utils.options import natural, share

TEXTS = {"keep": lambda text, language: text, "lower": lower, "plain": plain}
REMEDY = "mend the data, or what the command says of it"


def make_manifests(options: Namespace) -> None:
    """Write recordings and supervisions of every split and `left_out.jsonl`; print what there is."""
    out, place = Path(options.out), Path(options.corpus)
    pipes = Pipes(out / "audio")
    given = Given(
        options.language,
        options.target,
        Path(options.base) if options.base else None,
        pairs(options.columns, "--columns"),
        pipes.keep if options.allow_pipes else None,
    )
    rows = read_splits(place, given, options.format, pairs(options.splits, "--splits"), options.split_by in WAYS)
    check_target(rows, given, place)
    left_out: list[dict] = []
    splits = fill_up(read_all(rows, given, options, pipes.measure, left_out), options)
    leave_manifests(out, splits, left_out)
    describe_splits(splits)


def pairs(words: list[str], option: str) -> dict[str, str]:
    """name=value words as a dict; `UserError` for others."""
    if wrong := next((word for word in words if not re.fullmatch(r"[^=]+=.+", word)), None):
        raise UserError(f"{option} {wrong}: write name=value.")
    return dict(word.split("=", 1) for word in words)


def check_target(splits: Splits, given: Given, place: Path) -> None:
    """`UserError` where no utterance is translated into what --target asks for, or without it none has a transcript."""
    rows = [row for found in splits.values() for row in found.values() if isinstance(row, Row)]
    there = sorted({language for row in rows for language in row.translation})
    if there and not given.target and not any(row.text for row in rows):
        raise UserError(
            f"{place} has no transcripts: add them, or say with --target what to learn ({', '.join(there)})."
        )
    if given.target and given.target not in there:
        known = f"only into {', '.join(there)}" if there else "into no language"
        raise UserError(f"{place} has translations {known}: --target {given.target}{nearest(given.target, there)}.")


def read_all(
    splits: Splits, given: Given, options: Namespace, measure: Callable[[Path], Header], left_out: list[dict]
) -> dict[str, list[Utterance]]:
    """The usable utterances of each split, by id; the others are added to `left_out`."""
    rows = [row for found in splits.values() for row in found.values() if isinstance(row, Row)]
    recordings = Recordings(rows, options.jobs, measure)
    change, change_translation = TEXTS[options.text], TEXTS[options.translation_text]

    def read(_: str, row: Row) -> Utterance:
        text = change(tidy(row.text), row.language or given.language)
        translation = {language: change_translation(tidy(said), language) for language, said in row.translation.items()}
        return to_utterance(replace(row, text=text, translation=translation), recordings.of(row), given)

    found = {}
    for split, items in splits.items():
        where = Path(options.corpus) / split if len(splits) > 1 else Path(options.corpus)
        found[split] = usable(read_utterances(dict(sorted(items.items())), read, left_out, where, REMEDY))
    return found


def fill_up(splits: dict[str, list[Utterance]], options: Namespace) -> dict[str, list[Utterance]]:
    """`splits` with a dev and a test taken from train where the data have none and they are asked for."""
    wanted = {"test": options.test, "dev": options.dev}
    shares = {split: part for split, part in wanted.items() if part and split not in splits}
    if not shares or options.split_by == "given":
        return splits
    if sum(shares.values()) >= 1:
        raise UserError(f"--dev {options.dev:g} and --test {options.test:g} leave nothing to train on: lower them.")
    way = options.split_by if options.split_by in WAYS else choose_way(splits["train"], len(shares) + 1)
    made = make_splits(splits["train"], shares, way, options.seed)
    print(describe(made, way))
    return {split: (splits | made)[split] for split in ("train", *sorted({*splits, *made} - {"train"}))}


def describe_splits(splits: dict[str, list[Utterance]]) -> None:
    """Print languages, speakers, lengths and rates of each split, and how many of its texts train has, too."""
    known = {plain(item.supervision.text) for item in splits["train"]}
    for split, items in splits.items():
        spoken = [item.supervision for item in items]
        spread, speakers = spread_of_seconds(spoken), {item.speaker for item in spoken if item.speaker}
        languages = ", ".join(sorted({item.language for item in spoken}))
        rates = " and ".join(map(str, sorted({item.recording.sampling_rate for item in items})))
        line = f"{split}: {languages}, {len(speakers)} speakers, {rates} Hz, "
        line += f"median {spread['p50']} s, longest {spread['p100']} s"
        if split != "train":
            line += f"; the texts of {sum(plain(item.text) in known for item in spoken)} also stand in train"
        print(line)


def main() -> None:
    """Command line."""
    program = Program("own", "Your own data: a Kaldi data directory, Lhotse manifests, or a table.")
    make = program.manifests(make_manifests, "Kaldi data directory or a folder of them, manifests, or a table")
    add = make.add_argument
    add("--format", choices=tuple(FORMATS), help="what it is, where its files do not show it")
    add("--language", help="code of what is spoken, where the data do not say it: en")
    add("--target", help="code of the translation that is wanted; utterances without it are left out")
    add("--base", help="folder that relative audio paths start from (otherwise the data's, or one above it)")
    add("--columns", nargs="+", default=[], metavar="NAME=COLUMN", help="of a table: text=my_column")
    add("--text", choices=tuple(TEXTS), default="keep", help="transcripts: lower case, or also no punctuation")
    add("--translation-text", choices=tuple(TEXTS), default="keep", help="the same for translations")
    add("--splits", nargs="+", default=[], metavar="SPLIT=NAME", help="which part is which: train=my_train")
    add("--split-by", choices=("auto", "given", *WAYS), default="auto", help="auto: as given; what lacks, by speaker")
    add("--dev", type=share, default=0.05, help="part of the speakers (recordings, texts) that is held out")
    add("--test", type=share, default=0.05, help="the same, to be scored")
    add("--seed", type=natural, default=0, help="of the splits that are made")
    add("--allow-pipes", action="store_true", help="run the commands that the data name in place of files")
    program.main()


if __name__ == "__main__":
    run(main)
