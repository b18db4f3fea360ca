"""Forced alignment with a CTC head: when each word and token of a known text is said, and how sure the model is.

    python -m steps.align --model exp/asr --cuts data/dev/cuts.jsonl.gz --out exp/asr/align/dev
    python -m steps.align --model exp/asr --cuts data/dev/cuts.jsonl.gz --hyp exp/asr/decode/dev.ctc.greedy/hyp.jsonl \\
        --out exp/asr/align/dev.hyp
    python -m steps.align --model exp/asr --recording talk.mp3 --text talk.txt --out talk

writes `cuts.jsonl.gz` (Lhotse, `alignment` of "word" and "token"), `<split>.ctm`, with --format also TextGrids and
subtitles, `skipped.jsonl` (what could not be aligned, and why) and `align.json`. A long recording is aligned as a
whole: words that nobody says and speech that the text lacks are left out, and listed in `doubtful.jsonl`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from steps.alignment.aligner import Aligner
from steps.alignment.cuts import align_cuts, texts_of
from steps.alignment.formats import FORMATS, Row, file_name, write_alignments
from steps.alignment.recording import align_recording, doubtful
from steps.model_folder import load_model_config
from steps.prepare.cuts import Cuts
from steps.recogniser import Recogniser
from steps.search_options import add_model_arguments
from utils.errors import UserError, run
from utils.files import read_lines, write_json, write_jsonl
from utils.hardware import provenance
from utils.options import Parser, count, scale


def main(argv: list[str] | None = None) -> int:
    """The command line; status 1 when nothing could be aligned."""
    args = options().parse_args(argv)
    check_options(args)
    head = ctc_head(args.model, args.head)
    recogniser = Recogniser(args.model, [f"{head}:greedy"], {}, args.checkpoint, args.device, args.precision)
    aligner = Aligner(recogniser, head, args.prior_scale, args.graph)
    if args.cuts:
        cuts = Cuts.load(args.cuts)
        rows, skipped = align_cuts(aligner, cuts, texts_of(cuts, aligner.target, args.hyp), args.max_duration)
        name, extra = Path(args.cuts).resolve().parent.name, {}
    else:
        text = " ".join(read_lines(args.text, "save it as UTF-8"))
        row = align_recording(aligner, args.recording, text, args.language, args.chunk, args.max_duration)
        rows, skipped, name = [row], [], Path(args.recording).stem
        extra = {"doubtful": doubtful(row)}
    write(Path(args.out), name, args, rows, skipped, extra)
    pictures(Path(args.out), args.plot, rows, aligner)
    return 0 if rows else 1


def options() -> Parser:
    """The options."""
    parser = Parser(prog="steps.align", description=__doc__.splitlines()[0])
    add_model_arguments(parser)
    parser.add_argument("--head", help="CTC head to align with; needed where the model has several")
    parser.add_argument("--cuts", help="data/<split>/cuts.jsonl.gz")
    parser.add_argument("--hyp", help="hyp.jsonl of a decode folder: align what was recognised, not the transcript")
    parser.add_argument("--recording", help="a recording of any length instead of cuts")
    parser.add_argument("--text", help="text file: what is said in the recording")
    parser.add_argument("--language", help="that is spoken in the recording, for token sets with tags")
    parser.add_argument(
        "--chunk", type=count, default=30, help="seconds of a recording that are encoded at a time (30)"
    )
    parser.add_argument(
        "--graph", help="folder of steps.lang.graph: pronunciations and silence of its lexicon (needs k2)"
    )
    parser.add_argument(
        "--prior-scale", type=scale, default=0.3, help="how much of the tokens' own probability is taken off (0: none)"
    )
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=["cuts", "ctm"], help="what to write")
    parser.add_argument("--plot", nargs="+", default=[], metavar="ID", help="utterances to draw, as plot/<id>.png")
    parser.add_argument("--out", required=True, help="folder to write")
    return parser


def check_options(args: argparse.Namespace) -> None:
    """`UserError` for what does not go together."""
    if bool(args.cuts) == bool(args.recording):
        raise UserError("Give either --cuts or --recording.")
    if bool(args.recording) != bool(args.text):
        raise UserError("--recording and --text belong together: give both.")
    for name in ("hyp", "graph"):
        if args.recording and getattr(args, name):
            raise UserError(f"--{name} is for --cuts: leave it out with --recording.")


def ctc_head(model: str, wanted: str | None) -> str:
    """The head to align with; `UserError` where there is none, or not one alone."""
    heads = [key for key, head in load_model_config(model).heads.items() if head.name == "ctc"]
    if not heads:
        raise UserError(f"{model} has no CTC head, which alignment needs: train one beside the others.")
    if wanted is not None and wanted not in heads:
        raise UserError(f"--head {wanted}: the CTC heads of {model} are {', '.join(heads)}.")
    if wanted is None and len(heads) > 1:
        raise UserError(f"{model} has several CTC heads: give one of {', '.join(heads)} with --head.")
    return wanted or heads[0]


def write(
    out: Path, name: str, args: argparse.Namespace, rows: list[Row], skipped: list[dict], extra: dict[str, list[dict]]
) -> None:
    """The folder; `align.json` last, so that it vouches for the rest."""
    (out / "align.json").unlink(missing_ok=True)
    for path in write_alignments(out, name, rows, args.format):
        print(path)
    for kind, found in {"skipped": skipped, **extra}.items():
        write_jsonl(out / f"{kind}.jsonl", found)
    words = [word.score for row in rows for word in row.aligned.words]
    reasons = Counter(row["reason"] for row in skipped)
    characters = Counter("".join(row.get("characters", "") for row in skipped))
    about = {
        "model": args.model,
        "checkpoint": args.checkpoint,
        "head": args.head,
        "prior_scale": args.prior_scale,
        "graph": args.graph,
        "utterances": len(rows),
        "words": len(words),
        "confidence": round(sum(words) / len(words), 4) if words else None,
        "skipped": dict(reasons.most_common()),
        "unknown_characters": dict(characters.most_common()),
        **provenance(shlex.join(["python", "-m", "steps.align", *sys.argv[1:]])),
    }
    write_json(out / "align.json", about)
    told = "".join(f"; skipped {number}: {reason}" for reason, number in reasons.most_common())
    print(f"{out}: {len(rows)} utterances, {len(words)} words, mean confidence {about['confidence']}{told}")
    if characters:
        listed = ", ".join(f"'{character}' {number}" for character, number in characters.most_common(10))
        print(f"warning: characters that the tokens cannot spell: {listed}", file=sys.stderr)


def pictures(out: Path, wanted: list[str], rows: list[Row], aligner: Aligner) -> None:
    """Draw the utterances that were asked for; `UserError` for one that was not aligned."""
    from steps.alignment.picture import draw  # matplotlib takes a while

    found = {row.cut.id: row for row in rows}
    for name in wanted:
        if name not in found:
            raise UserError(f"--plot {name}: no utterance of this name was aligned.")
        draw(out / "plot" / f"{file_name(name)}.png", found[name], *aligner.of_cut(found[name].cut))
        print(out / "plot" / f"{file_name(name)}.png")


if __name__ == "__main__":
    run(main)
