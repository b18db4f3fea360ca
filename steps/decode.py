"""Stage 6: recognise cuts with a model, one pass of the encoder for all searches.

    python -m steps.decode --model exp/joint --cuts data/dev/cuts.jsonl.gz data/test/cuts.jsonl.gz \
        --search ctc:greedy transducer:modified_beam --out exp/joint/decode

writes `exp/joint/decode/<split>.<head>.<method>/` with `hyp.jsonl` (an utterance a line, in the order of the cuts) and
`decode.json` (what it cost, with what it was made).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lhotse import SupervisionSegment
from tqdm import tqdm

from steps.lang.targets import parse_target, target_text
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import DataConfig, make_loader
from steps.recogniser import Recogniser
from steps.search.hypothesis import NO_PATH, Hypothesis
from steps.search.plan import Search
from steps.search.spoken import Spoken
from steps.search_options import add_arguments, search_options, wanted_searches
from utils.errors import UserError, run
from utils.files import read_json, write_json, write_jsonl
from utils.hardware import provenance
from utils.options import Parser, natural


@dataclass
class Output:
    """What one search found in one split: rows of `hyp.jsonl` (and of `nbest.jsonl`) by the cut's place, and the cost.

    The encoder's time is shared by all searches; an output bears as much of it as it has of each batch's audio. The
    peak of the memory is that of the encoder and this search, in a process that holds what all searches need.
    """

    search: Search
    target: str
    rows: dict[int, dict] = field(default_factory=dict)
    nbest: dict[int, dict] = field(default_factory=dict)
    audio_seconds: float = 0.0
    encoder_seconds: float = 0.0
    search_seconds: float = 0.0
    peak_memory_mb: int = 0

    def wants(self, supervision: SupervisionSegment) -> bool:
        """Whether the utterance is to be decoded: not for a translation into the language that it is in."""
        language = parse_target(self.target)
        return language is None or language != supervision.language


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.decode", description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--cuts", nargs="+", required=True, help="data/<split>/cuts.jsonl.gz")
    parser.add_argument("--out", required=True, help="folder that gets <split>.<head>.<method>/")
    parser.add_argument("--workers", type=natural, default=0, help="processes that read features; 0: this one")
    args = parser.parse_args(argv)
    splits = split_names(args.cuts)
    tables = {split: Cuts.load(path) for split, path in splits.items()}
    recogniser = Recogniser(
        args.model, wanted_searches(args), search_options(args), args.checkpoint, args.device, args.precision
    )
    for cuts in tables.values():
        check_features(cuts, recogniser)
    data = DataConfig(max_duration=args.max_duration, workers=args.workers, spec_augment=None)
    for split, cuts in tables.items():
        for output in decode(recogniser, cuts, data, split):
            write(Path(args.out), split, output, recogniser)
    return 0


def split_names(paths: Sequence[str]) -> dict[str, str]:
    """Names for the output folders: `test` of `data/test/cuts.jsonl.gz`, otherwise the file's own name."""
    splits: dict[str, str] = {}
    for path in map(Path, paths):
        name = path.name.split(".")[0]
        split = path.resolve().parent.name if name == "cuts" else name
        if split in splits:
            raise UserError(
                f"--cuts {splits[split]} and {path} would both be written as '{split}': give one at a time."
            )
        splits[split] = str(path)
    return splits


def check_features(cuts: Cuts, recogniser: Recogniser) -> None:
    """`UserError` where the cuts' features are not the kind that the model was trained on."""
    wanted = recogniser.config.feature_dim
    found = cuts[0].num_features if cuts.stored else cuts.config.feature_dim
    if found != wanted:
        raise UserError(
            f"{cuts.source} has features of dimension {found}, {recogniser.folder} was trained on {wanted}: "
            "make them with the model's features.yaml (stage 2)."
        )
    ours, theirs = recogniser.features, cuts.config
    pairs = [(key, getattr(ours, key), getattr(theirs, key)) for key in ("type", "sampling_rate")]
    if ours.encoder is not None and theirs.encoder is not None:
        keys = ("name", "layer", "downsample")
        pairs += [(f"encoder.{key}", getattr(ours.encoder, key), getattr(theirs.encoder, key)) for key in keys]
    for key, wanted, found in pairs:
        if wanted != found:
            raise UserError(
                f"{cuts.source} has features with {key} {found}, {recogniser.folder} was trained on {wanted}: "
                "make them with the model's features.yaml (stage 2)."
            )


def decode(recogniser: Recogniser, cuts: Cuts, data: DataConfig, split: str) -> list[Output]:
    """All searches over one split; each batch is encoded once."""
    outputs = [Output(search, recogniser.target(search)) for search in recogniser.searches]
    supervisions = [cut.supervisions[0] for cut in cuts]
    for output in outputs:
        if not any(map(output.wants, supervisions)):
            raise UserError(f"{cuts.source}: all utterances are in the language of '{output.target}' already.")
    keep = [i for i, supervision in enumerate(supervisions) if any(output.wants(supervision) for output in outputs)]
    table = cuts.subset(keep)
    loader = make_loader(table, {}, data, train=False)
    before = stored_encoder_seconds(cuts)
    with tqdm(total=round(table.durations.sum(), 1), unit="s", desc=split, disable=None) as progress:
        for batch, indices in zip(loader, loader.plan.batches(0), strict=True):
            places = [keep[index] for index in indices]
            encoded, seconds = recogniser.encode(batch.features, batch.feature_lens)
            peak = recogniser.peak_memory_mb
            spoken: dict[tuple[int, ...], Spoken] = {}  # searches of the same utterances share what they compute
            for output in outputs:
                rows = [row for row, place in enumerate(places) if output.wants(supervisions[place])]
                if not rows:
                    continue
                if tuple(rows) not in spoken:
                    languages = [supervisions[places[row]].language for row in rows]
                    spoken[tuple(rows)] = recogniser.spoken(encoded.select(rows), languages)
                found, search_seconds = recogniser.search(output.search, spoken[tuple(rows)])
                output.search_seconds += search_seconds
                output.peak_memory_mb = max(output.peak_memory_mb, peak, recogniser.peak_memory_mb)
                audio = float(batch.durations[rows].sum())
                output.audio_seconds += audio
                output.encoder_seconds += audio * (before + seconds / float(batch.durations.sum()))
                for row, hypotheses in zip(rows, found, strict=True):
                    place, duration = places[row], float(batch.durations[row])
                    keep_row(output, place, supervisions[place], batch.ids[row], duration, hypotheses, recogniser)
            progress.update(float(batch.durations.sum()))
    return outputs


def stored_encoder_seconds(cuts: Cuts) -> float:
    """What a frozen encoder, whose output is the features, took in stage 2 for a second of speech (0: none did)."""
    about = Path(cuts.source).with_name("features.json")
    if not cuts.stored or cuts.config.encoder is None or not about.exists():
        return 0.0
    told = read_json(about)
    return told.get("process_seconds", 0.0) / max(told["hours"] * 3600, 1.0)


def keep_row(
    output: Output,
    place: int,
    supervision: SupervisionSegment,
    name: str,
    duration: float,
    hypotheses: list[Hypothesis],
    recogniser: Recogniser,
) -> None:
    """Add an utterance to the output."""

    def entry(hypothesis: Hypothesis) -> dict:
        parts = {name: round(value, 4) for name, value in (hypothesis.parts or {}).items()}
        return {
            "hyp": recogniser.text(output.search, hypothesis),
            "score": round(hypothesis.score, 4),
            **({"parts": parts} if parts else {}),
            "tokens": recogniser.tokens(output.search, hypothesis),
            "words": recogniser.words(output.search, hypothesis),
        }

    output.rows[place] = {
        "id": name,
        "language": supervision.language,
        "target": output.target,
        "ref": target_text(supervision, output.target),
        **entry(hypotheses[0]),
        "duration": round(duration, 3),
        **told(supervision, output.target),
    }
    if output.search.options.get("nbest", 1) > 1:
        output.nbest[place] = {"id": name, "nbest": [entry(hypothesis) for hypothesis in hypotheses]}


def told(supervision: SupervisionSegment, target: str) -> dict:
    """What scoring uses beside the reference, of a translation the transcript (`source`), and `subsets` by name; and
    of a transcript its `translation` by language, which text translation then has as reference."""
    custom = supervision.custom or {}
    found = {
        "source": target_text(supervision, "text") if parse_target(target) else None,
        "translation": None if parse_target(target) else custom.get("translation"),
        "subsets": custom.get("subsets"),
    }
    return {key: value for key, value in found.items() if value}


def write(out: Path, split: str, output: Output, recogniser: Recogniser) -> None:
    """Write the folder of one search on one split; `decode.json` last, so that it vouches for the rest."""
    folder = out / f"{split}.{output.search.head}.{output.search.label}"
    for stale in ("decode.json", "nbest.jsonl"):
        (folder / stale).unlink(missing_ok=True)
    write_jsonl(folder / "hyp.jsonl", (row for _, row in sorted(output.rows.items())))
    if output.nbest:
        write_jsonl(folder / "nbest.jsonl", (row for _, row in sorted(output.nbest.items())))
    write_json(folder / "decode.json", about(split, output, recogniser))
    if without := sum(row["score"] == NO_PATH for row in output.rows.values()):
        wider = "give a larger --search-beam and --max-active, or a graph that allows more"
        print(f"warning: {folder}: no path for {without} utterances, left empty: {wider}", file=sys.stderr)
    seconds = output.encoder_seconds + output.search_seconds
    print(f"{folder}: {len(output.rows)} utterances, real-time factor {seconds / output.audio_seconds:.4f}")


def about(split: str, output: Output, recogniser: Recogniser) -> dict:
    """`decode.json`. `rtf` is encoder and search time over audio time, without loading the model and the features (but
    with the time of a frozen encoder that made the features)."""
    seconds = output.encoder_seconds + output.search_seconds
    return {
        "model": str(recogniser.folder),
        "checkpoint": recogniser.checkpoint,
        "checkpoint_digest": recogniser.digest,
        "split": split,
        "head": output.search.head,
        "method": output.search.label,
        "options": output.search.options,
        "target": output.target,
        "utterances": len(output.rows),
        "audio_seconds": round(output.audio_seconds, 3),
        "seconds": round(seconds, 6),
        "encoder_seconds": round(output.encoder_seconds, 6),
        "search_seconds": round(output.search_seconds, 6),
        "rtf": round(seconds / output.audio_seconds, 6),
        "parameters": recogniser.parameters(output.search),
        "device": str(recogniser.device),
        "precision": recogniser.precision,
        "peak_memory_mb": output.peak_memory_mb,
        **provenance(shlex.join(["python", "-m", "steps.decode", *sys.argv[1:]])),
    }


if __name__ == "__main__":
    run(main)
