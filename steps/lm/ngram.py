"""Stage 4: n-gram language models in ARPA format: trained, pruned and mixed.

    python -m steps.lm.ngram train --cuts data/train/cuts.jsonl.gz --order 4 --out data/lm/4gram.arpa.gz
    python -m steps.lm.ngram train --text books.txt.gz --lang data/lang_bpe_500 --order 5 --out data/lm/5gram.arpa.gz
    python -m steps.lm.ngram prune --lm data/lm/4gram.arpa.gz --threshold 1e-7 --out data/lm/small.arpa.gz
    python -m steps.lm.ngram mix --lm own.arpa.gz books.arpa.gz --tune-text data/dev.txt --out data/lm/mixed.arpa.gz

Text is a sentence a line (`--text`), or what is said in cuts (`--cuts`, `--target`); its words are those between blanks
or with `--lang` the tokens of that folder. Training is interpolated modified Kneser-Ney: KenLM's lmplz where that is
installed, numpy elsewhere.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from steps.lang.tokenizer import Tokenizer
from steps.lm.arpa import read_arpa, write_arpa
from steps.lm.backoff import BackoffModel, token_scores
from steps.lm.combination import interpolate, mixture_weights, prune
from steps.lm.kneser_ney import FALLBACK, estimate, vocabulary
from steps.lm.text import read_texts, split, text_options
from utils.errors import UserError, run
from utils.files import atomic_path, open_text, read_lines
from utils.hardware import memory_gb
from utils.options import Parser, positive

FIXED, PER_ORDER = 100, 50  # bytes that counting takes for a word of text, and for each order above the first
SAID = 0.25  # share of the memory from which on this is said


class Sentences(Iterable[list[str]]):
    """The words, or tokens, of every sentence of `--text` and `--cuts`: read anew each time, and then counted."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.texts, self.tokenizer = read_texts(args), Tokenizer.load(args.lang) if args.lang else None
        self.count = self.words = 0

    def __iter__(self) -> Iterator[list[str]]:
        self.count = self.words = 0
        for sentence in split(self.texts, self.tokenizer):
            self.count, self.words = self.count + 1, self.words + len(sentence)
            yield sentence


def train(args: argparse.Namespace) -> int:
    """`train`."""
    sentences = Sentences(args)
    given = [line.split()[0] for line in read_lines(args.words) if line.strip()] if args.words else None
    lmplz = args.lmplz or shutil.which("lmplz")
    if args.backend == "lmplz" and (args.words or not lmplz):
        why = "lmplz does not take --words" if args.words else "lmplz is not installed (it is KenLM's)"
        raise UserError(f"{why}: give --backend numpy.")
    if lmplz and args.backend != "numpy" and not args.words:
        _lmplz(lmplz, sentences, args)
        return 0
    words = vocabulary(sentences)
    _check_memory(sentences, args.order)
    found = estimate(sentences, args.order, vocabulary((), given) if given else words, args.cutoffs)
    write_arpa(args.out, found.model)
    for order, unusual in enumerate(found.fallback, 1):
        if unusual:
            values = " ".join(map(str, FALLBACK))
            print(f"warning: {order}-grams: too few to tell discounts from counts: {values} taken.", file=sys.stderr)
    print(f"{args.out}: {_shown(found.model)} of {sentences.count} sentences")
    return 0


def _check_memory(sentences: Sentences, order: int) -> None:
    """`UserError` where counting would take more memory than there is."""
    words = sentences.words + 2 * sentences.count
    needed, there = words * (FIXED + PER_ORDER * (order - 1)) / 2**30, memory_gb()
    if needed > there:
        raise UserError(
            f"Counting {order}-grams of {sentences.count} sentences ({sentences.words} words) takes up to {needed:.0f} "
            f"GiB of memory, and there are {there:.0f}: install KenLM, whose lmplz counts on the disk (on PATH, or "
            "--lmplz), take the ARPA files that the corpus comes with, or less text."
        )
    if needed > SAID * there:
        print(f"counting {order}-grams of {words} words and ends: up to {needed:.1f} GiB of memory", file=sys.stderr)


def _lmplz(program: str, sentences: Sentences, args: argparse.Namespace) -> None:
    """Let lmplz write the model; `UserError` with its own words when it fails."""
    with tempfile.TemporaryDirectory(prefix="lmplz-") as folder:
        text, arpa = Path(folder) / "text", Path(folder) / "lm.arpa"
        command = [program, "-o", str(args.order), "-T", f"{folder}/", "-S", "40%", "--text", str(text)]
        command += ["--arpa", str(arpa), "--discount_fallback", *map(str, FALLBACK)]
        command += ["--prune", *map(str, args.cutoffs)] if args.cutoffs else []
        with open_text(text, "wt") as lines:
            lines.writelines(" ".join(sentence) + "\n" for sentence in sentences)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{program} failed: {' '.join(done.stderr.strip().splitlines()[-1:])[:300]}")
        with atomic_path(args.out) as out, open(arpa, encoding="utf-8") as written, open_text(out, "wt") as copy:
            shutil.copyfileobj(written, copy)
    print(f"{args.out}: by {program}, of {sentences.count} sentences")


def prune_model(args: argparse.Namespace) -> int:
    """`prune`."""
    model = read_arpa(args.lm)
    smaller = prune(model, args.threshold)
    write_arpa(args.out, smaller)
    print(f"{args.out}: {_shown(smaller)}, before: {_shown(model)}")
    return 0


def mix(args: argparse.Namespace) -> int:
    """`mix`."""
    models = [read_arpa(path) for path in args.lm]
    weights = args.weights
    if (weights is None) == (not args.text and not args.cuts):
        raise UserError("Give --weights, one a model, or a text (--text, --cuts) that they are chosen on.")
    if weights is None:
        sentences = Sentences(args)
        scored = [token_scores(model, sentences)[1] for model in models]
        weights = mixture_weights(np.array(scored)).tolist()
    model = interpolate(models, weights)
    write_arpa(args.out, model)
    shown = ", ".join(f"{weight:.3f} {path}" for weight, path in zip(weights, args.lm, strict=True))
    print(f"{args.out}: {_shown(model)} of {shown}")
    return 0


def _shown(model: BackoffModel) -> str:
    return " + ".join(f"{count} {order}-grams" for order, count in enumerate(model.counts, 1))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.lm.ngram", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="train|prune|mix")
    one = commands.add_parser("train", help="estimate a model from text")
    one.add_argument("--order", type=int, default=3, choices=range(1, 11), metavar="N", help="longest n-grams, 1 to 10")
    one.add_argument(
        "--cutoffs", type=int, nargs="+", default=[], help="leave out what was seen so often or less: 0 0 1"
    )
    one.add_argument(
        "--words", type=Path, help="the vocabulary: the first word of each line; otherwise all of the text"
    )
    one.add_argument("--backend", choices=("auto", "lmplz", "numpy"), default="auto", help="what estimates")
    one.add_argument("--lmplz", help="KenLM's program, if it is not on PATH")
    one.set_defaults(main=train)
    two = commands.add_parser("prune", help="leave out n-grams that matter little (relative entropy)")
    two.add_argument("--lm", type=Path, required=True, help="ARPA file")
    two.add_argument("--threshold", type=positive, required=True, help="relative rise of perplexity: 1e-8 to 1e-6")
    two.set_defaults(main=prune_model)
    three = commands.add_parser("mix", help="one model of several")
    three.add_argument("--lm", type=Path, nargs="+", required=True, help="ARPA files")
    three.add_argument("--weights", type=positive, nargs="+", help="one a model; otherwise chosen on the text")
    three.set_defaults(main=mix)
    for command in (one, two, three):
        command.add_argument("--out", type=Path, required=True, help="ARPA file to write (.gz: compressed)")
    for command in (one, three):
        text_options(command)
    args = parser.parse_args(argv)
    return args.main(args)


if __name__ == "__main__":
    run(main)
