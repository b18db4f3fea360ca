"""Text (and translation) of any audio or video files, with a model folder.

    python -m steps.transcribe --model exp/joint meeting.mp3 talk.wav
    python -m steps.transcribe --model exp/joint --format srt --out subtitles film.mp4

A long file is cut into pieces of at most --longest seconds, at the quietest point of the last part of each. Without
--search, each target of the model (the transcript, a translation) is written by one head, with its beam search.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from steps.model_folder import load_model_config
from steps.prepare.audio import compute_features, load_audio
from steps.prepare.dataset import pad_features
from steps.prepare.sampler import BatchPlan
from steps.recogniser import Recogniser
from steps.search.hypothesis import Hypothesis
from steps.search.plan import Search
from steps.search_options import add_arguments, search_options, wanted_searches
from steps.subtitles import subtitles
from utils.errors import UserError, run
from utils.files import write_text
from utils.options import Parser, positive

SUBTITLES = ("srt", "vtt")
SHORTEST = 0.1  # seconds; nothing is said in less
BEST = {"attention": "beam", "ctc": "prefix_beam", "llm": "beam", "transducer": "modified_beam"}  # by type of head
LEAST_PIECE = 1.0  # seconds; shorter pieces would cut most words


@dataclass
class Piece:
    """A stretch of a file, in seconds, and the best hypothesis of each search by its label."""

    start: float
    end: float
    best: dict[str, Hypothesis]


def main(argv: list[str] | None = None) -> int:
    """The command line; status 1 when a file could not be transcribed (the others are)."""
    parser = Parser(prog="steps.transcribe", description=__doc__.splitlines()[0])
    add_arguments(parser, files_follow=True, leave_out=("nbest",))
    parser.add_argument("audio", nargs="+", help="files of any format that libsndfile or FFmpeg reads")
    parser.add_argument("--language", help="that is spoken, for models whose prompt wants it: en, fr ...")
    parser.add_argument("--format", default="txt", choices=("txt", "json", *SUBTITLES))
    parser.add_argument("--out", help="folder for a file per recording (and target); else everything is printed")
    parser.add_argument(
        "--longest", type=piece_length, default=20.0, help="seconds of the pieces that long files are cut into"
    )
    args = parser.parse_args(argv)
    check_names(args.audio, args.format, args.out)
    names = wanted_searches(args) or best_searches(args.model)
    recogniser = Recogniser(args.model, names, search_options(args), args.checkpoint, args.device, args.precision)
    labels = label_searches(recogniser)
    failed = 0
    for path in args.audio:
        try:
            samples = read(path, recogniser.features.sampling_rate)
            pieces = transcribe(recogniser, labels, samples, args.longest, args.max_duration, args.language)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        for name, content in render(recogniser, labels, path, pieces, args.format):
            if args.out:
                write_text(Path(args.out) / name, content)
                print(Path(args.out) / name)
            else:
                print(content, end="", flush=True)
    return 1 if failed else 0


def piece_length(text: str) -> float:
    """An argument type: seconds of a piece."""
    if (value := positive(text)) < LEAST_PIECE:
        raise argparse.ArgumentTypeError(f"{text} is too short for words, give {LEAST_PIECE:g} or more seconds")
    return value


def check_names(paths: list[str], form: str, out: str | None) -> None:
    """`UserError` where outputs would overwrite each other, or subtitles would run into each other on the screen."""
    if out is None:
        if form in SUBTITLES:
            raise UserError(
                f"--format {form} makes a file per recording and target: give a folder for them with --out."
            )
        return
    stems: dict[str, str] = {}
    for path in paths:
        other = stems.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(f"{other} and {path} would both be written as '{Path(path).stem}': use two --out folders.")


def best_searches(folder: str) -> list[str]:
    """One search per target: of a transducer head where there is one, with the best method that needs no files."""
    chosen: dict[str, str] = {}
    heads = load_model_config(folder).heads
    for key, head in sorted(heads.items(), key=lambda item: item[1].name != "transducer"):
        chosen.setdefault(head.target, f"{key}:{BEST[head.name]}")
    return [chosen[target] for target in sorted(chosen, key=lambda target: target != "text")]


def label_searches(recogniser: Recogniser) -> dict[str, Search]:
    """The searches by their target; with the search's name where several share it."""
    targets = [recogniser.target(search) for search in recogniser.searches]
    return {
        target if targets.count(target) == 1 else f"{target}.{search.head}.{search.label}": search
        for target, search in zip(targets, recogniser.searches, strict=True)
    }


def read(path: str, rate: int) -> np.ndarray:
    """Mono samples (time,) at `rate`; `UserError` for what cannot be read and for what is too short to say anything."""
    samples = load_audio(path, rate)
    if len(samples) < SHORTEST * rate:
        raise UserError(f"{path}: {len(samples) / rate:.3f} s of audio are too short, {SHORTEST} s are the least.")
    return samples


def transcribe(
    recogniser: Recogniser,
    labels: dict[str, Search],
    samples: np.ndarray,
    longest: float,
    max_duration: float,
    language: str | None = None,
) -> list[Piece]:
    """The pieces of `samples` (time,), recognised in batches of like length of at most `max_duration` seconds."""
    features = recogniser.features
    rate = features.sampling_rate
    spans = cut_at_pauses(samples, rate, longest)
    durations = [(end - start) / rate for start, end in spans]
    pieces = [Piece(start / rate, end / rate, {}) for start, end in spans]
    with tqdm(total=round(sum(durations)), unit="s", disable=None if len(spans) > 1 else True, leave=False) as progress:
        for batch in BatchPlan(durations, max_duration, shuffle=False).batches(0):
            matrices = [compute_features(samples[slice(*spans[i])], features) for i in batch]
            encoded, _ = recogniser.encode(*pad_features(matrices))
            spoken = recogniser.spoken(encoded, [language] * len(batch))
            for label, search in labels.items():
                for i, hypotheses in zip(batch, recogniser.search(search, spoken)[0], strict=True):
                    pieces[i].best[label] = hypotheses[0]
            progress.update(round(sum(durations[i] for i in batch)))
    return pieces


def cut_at_pauses(samples: np.ndarray, rate: int, longest: float) -> list[tuple[int, int]]:
    """Spans of at most `longest` seconds that cover all samples (time,), cut where 0.2 s are quietest.

    Each cut is looked for from 40 % of `longest` on, and leaves at least as much for the last piece.
    """
    hop, limit = rate // 100, int(longest * rate)
    squares = samples[: len(samples) // hop * hop].astype(np.float64) ** 2
    energy = np.convolve(squares.reshape(-1, hop).mean(axis=1), np.ones(20) / 20, mode="same")
    spans, start = [], 0
    while len(samples) - start > limit:
        low = start + int(0.4 * limit)
        high = min(start + limit, len(samples) - int(0.4 * limit))
        cut = hop * (low // hop + 1 + int(energy[low // hop + 1 : high // hop].argmin()))
        spans.append((start, cut))
        start = cut
    return [*spans, (start, len(samples))]


def render(
    recogniser: Recogniser, labels: dict[str, Search], path: str, pieces: list[Piece], form: str
) -> Iterator[tuple[str, str]]:
    """(file name, content) of each output for one recording."""
    stem = Path(path).stem
    texts = {label: text_of(recogniser, search, label, pieces) for label, search in labels.items()}
    if form == "txt":
        yield f"{stem}.txt", "".join(f"{path}\t{label}\t{text}\n" for label, text in texts.items())
    elif form == "json":
        yield f"{stem}.json", json.dumps(as_json(recogniser, labels, path, pieces, texts), ensure_ascii=False) + "\n"
    else:
        for label, search in labels.items():
            timed = [(piece.start, piece.end, piece.best[label]) for piece in pieces]
            tokenizer = recogniser.tokenizers[search.head]
            yield f"{stem}.{label}.{form}", subtitles(timed, tokenizer, recogniser.seconds_per_frame, form)


def text_of(recogniser: Recogniser, search: Search, label: str, pieces: list[Piece]) -> str:
    """The text of all pieces in a row."""
    return " ".join(filter(None, (recogniser.text(search, piece.best[label]) for piece in pieces)))


def as_json(
    recogniser: Recogniser, labels: dict[str, Search], path: str, pieces: list[Piece], texts: dict[str, str]
) -> dict:
    """One recording as an object: times in seconds from its beginning, scores in nats."""
    rows = []
    for piece in pieces:
        row = {"start": round(piece.start, 3), "end": round(piece.end, 3)}
        for label, search in labels.items():
            best = piece.best[label]
            tokens = recogniser.tokens(search, best, piece.start)
            row[label] = {"text": recogniser.text(search, best), "score": round(best.score, 4), "tokens": tokens}
        rows.append(row)
    searches = {label: search.name for label, search in labels.items()}
    return {"file": path, "duration": round(pieces[-1].end, 3), "searches": searches, "text": texts, "pieces": rows}


if __name__ == "__main__":
    run(main)
