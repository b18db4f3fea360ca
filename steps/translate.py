"""Stage 7: translate text: what a recogniser wrote (the cascade), transcripts, or plain text.

    python -m steps.translate --model exp/mt --in exp/asr/decode/dev.ctc.prefix_beam --nbest 4 --out exp/cascade/decode/dev.mt.beam
    python -m steps.translate --model exp/mt --in exp/asr/decode/dev.ctc.prefix_beam --reference --out exp/mt/decode/dev.reference.beam
    python -m steps.translate --model exp/mt --in data/dev/cuts.jsonl.gz --out exp/mt/decode/dev.reference.beam
    python -m steps.translate --model exp/mt --in test.en.gz --references test.fr.gz --out exp/mt/decode/test.mt.beam
    echo "good morning" | python -m steps.translate --model Helsinki-NLP/opus-mt-en-fr --target-language fr

The first writes a decode folder with `hyp.jsonl` as steps.decode does: the translations of the best of `--nbest`
hypotheses of each utterance, chosen by recognition and translation score together. The second translates what was
really said, so that the errors that the recogniser adds can be seen.
"""  # noqa: E501

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from steps.cascade import (
    Utterance,
    chained,
    from_decoding,
    from_lines,
    from_manifest,
    read_stages,
    told_split,
    translate,
    write_folder,
)
from steps.decode import split_names
from steps.lang.corpus import language_of
from steps.search.translation import SearchOptions
from steps.translator import TextTranslator
from steps.translator_folder import open_translator
from utils.devices import PRECISIONS, choose_device, inference_precision, peak_memory_mb
from utils.errors import UserError, run
from utils.files import read_lines, require, write_text
from utils.hardware import provenance
from utils.options import Parser, count, natural, positive, scale

SEARCH = ("beam", "length_penalty", "min_tokens", "max_tokens", "max_length_ratio", "no_repeat_ngram")
MANIFESTS = (".jsonl", ".jsonl.gz")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    args = _options().parse_args(argv)
    kind = kind_of(args)
    check_options(args, kind)
    device = choose_device(args.device)
    precision = inference_precision(args.precision, device)
    names = (args.target_language, args.source_code, args.target_code, args.prefix)
    model, tokens = open_translator(args.model, args.checkpoint, device, *names)
    options = SearchOptions(**{name: getattr(args, name) for name in SEARCH})
    translator = TextTranslator(model, tokens, options, device, precision, args.batch_tokens)
    if kind == "lines":
        return translate_lines(translator, args.input, args.source_language, args.out)
    utterances, stages = read_input(args, kind, translator)
    empty = sum(not any(text.strip() for text, _ in utterance.texts) for utterance in utterances)
    rows, lists = translate(translator, utterances, args.asr_scale)
    write_folder(Path(args.out), rows, lists, about(args, translator, rows, stages))
    notes = f", {empty} empty, whose translations are empty too" if empty else ""
    notes += f", {translator.cut} longer than {model.longest} tokens and cut there" if translator.cut else ""
    print(f"{args.out}: {len(rows)} texts{notes}, {translator.seconds:.1f} s")
    return 0


def kind_of(args: argparse.Namespace) -> str:
    """What `--in` is: a decode "folder", a "manifest" of cuts, a "test" set of plain text, or "lines" of it."""
    if args.input != "-" and require(args.input, "stage 6 (decoding)").is_dir():
        return "folder"
    if args.input.endswith(MANIFESTS):
        return "manifest"
    return "test" if args.references else "lines"


def check_options(args: argparse.Namespace, kind: str) -> None:
    """`UserError` for options that do nothing for this kind of input, and for no place for a folder."""
    takes = {"nbest": "folder", "asr_scale": "folder", "reference": "folder", "cuts": "folder", "references": "test"}
    for name, wanted in takes.items():
        if kind != wanted and getattr(args, name) != _options().get_default(name):
            what = {"folder": "a decode folder", "test": "plain text"}[wanted]
            raise UserError(f"--{name.replace('_', '-')} is for {what}: leave it out for --in {args.input}.")
    if kind != "lines" and not args.out:
        raise UserError(f"--in {args.input}: give the decode folder to write with --out.")
    if args.reference and args.nbest > 1:
        raise UserError("--reference translates what was said, of which there is one text: leave --nbest out.")
    if args.source_language and kind in ("folder", "manifest"):
        raise UserError(f"--source-language is for plain text: {args.input} has the languages of its texts.")


def read_input(args: argparse.Namespace, kind: str, translator: TextTranslator) -> tuple[list[Utterance], list[dict]]:
    """What is to be translated, and what the stages before tell of themselves."""
    source, target = translator.model.config.source, translator.model.config.target
    if kind == "test":
        return from_lines(args.input, args.references, args.source_language), []
    if kind == "manifest":
        return from_manifest(args.input, source, target), []
    folder = Path(args.input)
    found = from_decoding(folder, target.target, args.nbest, args.reference, args.cuts)
    return found, [] if args.reference else read_stages(folder)


def translate_lines(translator: TextTranslator, path: str, language: str | None, out: str | None) -> int:
    """Plain text (`-`: standard input) to plain text, line by line."""
    if path == "-":
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    else:
        lines = list(read_lines(path, "save it as UTF-8, or check the path"))
    text = "".join(f"{best[0].text}\n" for best in translator(lines, [language or language_of(path)] * len(lines)))
    if out:
        write_text(out, text)
    else:
        print(text, end="", flush=True)
    return 0


def about(args: argparse.Namespace, translator: TextTranslator, rows: list[dict], stages: list[dict]) -> dict:
    """`decode.json`: this stage as one of `stages`, and what all of them cost together."""
    options = {name: getattr(args, name) for name in SEARCH}
    if args.nbest > 1:
        options |= {"nbest": args.nbest, "asr_scale": args.asr_scale}
    own = {
        "model": args.model,
        "checkpoint": args.checkpoint,
        "split": _split(args, stages),
        "head": "mt",
        "method": "beam" if args.beam > 1 else "greedy",
        "options": options,
        "target": translator.model.config.target.target,
        "utterances": len(rows),
        "seconds": round(translator.seconds, 6),
        "parameters": sum(parameter.numel() for parameter in translator.model.parameters()),
        "device": str(translator.device),
        "precision": translator.precision,
        "peak_memory_mb": peak_memory_mb(translator.device),
    }
    audio = round(sum(row.get("duration") or 0.0 for row in rows), 3)
    if audio:
        own |= {"audio_seconds": audio, "rtf": round(own["seconds"] / audio, 6)}
    every = [*stages, own]
    named = {"system": args.system} if args.system else {}
    command = shlex.join(["python", "-m", "steps.translate", *sys.argv[1:]])
    chain = {"stages": every} if stages else {}
    return {**named, **own, **chained(every, audio), **provenance(command), **chain}


def _split(args: argparse.Namespace, stages: list[dict]) -> str:
    """`dev` of a decode folder `dev.ctc.greedy`, of `data/dev/cuts.jsonl.gz` and of `dev.en.gz`."""
    if split := told_split(stages):
        return split
    path = Path(args.input)
    return path.resolve().name.split(".")[0] if path.is_dir() else next(iter(split_names([args.input])))


def _options() -> Parser:
    parser = Parser(prog="steps.translate", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder, or a seq2seq model of transformers as it is")
    parser.add_argument("--in", dest="input", required=True, metavar="PATH", help="decode folder, cuts, text, or -")
    parser.add_argument("--out", help="decode folder to write; of plain text a file (otherwise it is printed)")
    parser.add_argument("--system", help="name for the table of results; otherwise the model's")
    parser.add_argument("--checkpoint", default="averaged.pt", help="a file of the model folder, such as epoch-3.pt")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number>")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--batch-tokens", type=count, default=3000, help="tokens a batch, padding included")
    group = parser.add_argument_group("a decode folder")
    group.add_argument("--cuts", help="cuts or supervisions with reference translations, where hyp.jsonl has none")
    group.add_argument("--reference", action="store_true", help="translate what was said, not what was recognised")
    group.add_argument("--nbest", type=count, default=1, help="recognised texts to choose among")
    group.add_argument("--asr-scale", type=scale, default=0.3, help="weight of the recogniser's score in the choice")
    group = parser.add_argument_group("plain text")
    group.add_argument("--references", metavar="FILE", help="its translations, line by line: writes a decode folder")
    group.add_argument("--source-language", help="otherwise the ending of the file's name: test.en.gz")
    group = parser.add_argument_group("a model of transformers as it is")
    group.add_argument("--target-language", help="ISO 639: fr")
    group.add_argument("--source-code", help="the model's own name of the language: eng_Latn")
    group.add_argument("--target-code", help="the model's own name of the language: fra_Latn")
    group.add_argument("--prefix", default="", help='before every text, such as "translate English to French: "')
    group = parser.add_argument_group("search")
    group.add_argument("--beam", type=count, default=4, help="hypotheses kept; 1: greedy")
    group.add_argument("--length-penalty", type=float, default=1.0, help="power of the length that scores are over")
    group.add_argument("--min-tokens", type=natural, default=0, help="shortest translation")
    group.add_argument("--max-tokens", type=count, default=200, help="longest translation")
    group.add_argument("--max-length-ratio", type=positive, default=4.0, help="longest, per token; not transformers'")
    group.add_argument("--no-repeat-ngram", type=natural, default=0, help="no so many tokens twice (0)")
    return parser


if __name__ == "__main__":
    run(main)
