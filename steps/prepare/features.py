"""Stage 2: Lhotse manifests to validated cuts with features. `python -m steps.prepare.features --help`."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from steps.prepare.chunks import Chunk, is_done, plan_chunks, process_chunk
from steps.prepare.config import FeatureConfig
from steps.prepare.encoder_features import complete
from steps.prepare.jobs import process_all
from steps.prepare.manifests import manifest_paths, read_manifests
from utils.errors import UserError, run
from utils.files import read_json, read_jsonl, write_json, write_jsonl
from utils.options import Parser, load_config, save_config


def prepare_split(manifests: Path, out: Path, split: str, config: FeatureConfig, jobs: int, chunk_size: int) -> None:
    """Write `out`/`split`/{cuts.jsonl.gz, quarantine.jsonl, feats/}; finished chunks of an earlier run are kept.

    `UserError` when more than `config.max_bad` of the split is unusable; its quarantine is written all the same.
    """
    started = time.time()
    work, bad = read_manifests(manifests, split)
    folder = out / split
    with _only_run(folder):
        chunks = plan_chunks(work, folder / "feats", config, split in config.train_splits, chunk_size)
        marker, fingerprint = folder / "features.json", _digest(chunks, bad)
        old = read_json(marker) if marker.exists() else {}
        if old.get("fingerprint") == fingerprint and _complete(folder, chunks):
            print(f"{split}: done before, nothing changed ({old['utterances']} cuts)")
            return
        for path in (marker, folder / "cuts.jsonl.gz"):  # until the end, nothing here may be taken for finished
            path.unlink(missing_ok=True)
        _remove_leftovers(folder / "feats", chunks)
        todo = [chunk for chunk in chunks if not is_done(chunk)]
        total = sum(chunk.utterances for chunk in chunks)
        rest = sum(chunk.utterances for chunk in todo)
        slow = 0.5 if sys.stderr.isatty() else 20.0  # in a log file, a line now and then
        with tqdm(total=total, initial=total - rest, desc=split, unit="utt", mininterval=slow) as bar:
            for _, count in process_all(process_chunk, todo, jobs):
                bar.update(count)
        summary = _join(chunks, bad, folder, config)
        write_json(marker, {"fingerprint": fingerprint, "seconds": round(time.time() - started, 1), **summary})
        for chunk in chunks:
            chunk.rows.unlink(missing_ok=True)
        _print_summary(split, summary, folder, time.time() - started)


def _digest(chunks: list[Chunk], bad: list[dict]) -> str:
    text = json.dumps([[chunk.fingerprint for chunk in chunks], bad])
    return hashlib.sha256(text.encode()).hexdigest()


def _complete(folder: Path, chunks: list[Chunk]) -> bool:
    """Whether all that a finished split consists of is still there."""
    archives = [chunk.archive for chunk in chunks if chunk.config.storage == "disk"]
    return all(path.exists() for path in (folder / "cuts.jsonl.gz", folder / "quarantine.jsonl", *archives))


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Hold the split's lock (released by the system however the process ends); `UserError` if another run has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is being written by another run: wait for it, or stop it.") from None
        yield


def _remove_leftovers(folder: Path, chunks: list[Chunk]) -> None:
    """Delete what an interrupted or a differently configured run left: half files, chunks beyond the last."""
    wanted = {name for chunk in chunks for name in (chunk.archive.name, chunk.rows.name)}
    for path in folder.glob("*") if folder.exists() else []:
        if path.name not in wanted and path.suffix in (".lca", ".jsonl"):
            path.unlink()


def _join(chunks: list[Chunk], bad: list[dict], folder: Path, config: FeatureConfig) -> dict:
    """Write cuts and quarantine of all chunks, in the manifests' order; returns their counts, and what they took."""
    rejected, seconds, spent, count = list(bad), 0.0, 0.0, 0

    def cuts() -> Iterator[dict]:
        nonlocal seconds, spent, count
        for chunk in chunks:
            for row in read_jsonl(chunk.rows):
                if "bad" in row:
                    rejected.append(row["bad"])
                elif "fingerprint" in row:
                    spent += row.get("seconds", 0.0)
                else:
                    seconds += row["cut"]["duration"]
                    count += 1
                    yield row["cut"]

    write_jsonl(folder / "cuts.jsonl.gz", cuts())
    write_jsonl(folder / "quarantine.jsonl", rejected)
    _refuse_bad_split(rejected, sum(chunk.utterances for chunk in chunks) + len(bad), folder, config)
    reasons = dict(Counter(row["reason"] for row in rejected).most_common())
    hours = round(seconds / 3600, 4)
    return {"utterances": count, "hours": hours, "process_seconds": round(spent, 3), "quarantined": reasons}


def _refuse_bad_split(rejected: list[dict], total: int, folder: Path, config: FeatureConfig) -> None:
    if len(rejected) <= config.max_bad * total:
        return
    (folder / "cuts.jsonl.gz").unlink()
    (reason, count) = Counter(row["reason"] for row in rejected).most_common(1)[0]
    example = next(row for row in rejected if row["reason"] == reason)
    raise UserError(
        f"{folder}: {len(rejected)} of {total} utterances are unusable, {count} of them for '{reason}' "
        f"(for instance {example['id']}: {example['detail']}): see {folder / 'quarantine.jsonl'}, "
        f"then mend the corpus or set max_bad (now {config.max_bad:g})."
    )


def _print_summary(split: str, summary: dict, folder: Path, seconds: float) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["quarantined"].items())
    left_out = f"; quarantined: {reasons} (see {folder / 'quarantine.jsonl'})" if reasons else "; none quarantined"
    print(f"{split}: {summary['utterances']} cuts, {summary['hours']:.2f} h, in {seconds:.0f} s{left_out}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.prepare.features", description=__doc__)
    parser.add_argument("--manifests", type=Path, required=True, help="folder of <split>_{recordings,supervisions}")
    parser.add_argument("--out", type=Path, required=True, help="data folder; each split gets a folder in it")
    parser.add_argument("--splits", nargs="+", default=["train", "dev", "test"])
    parser.add_argument("--config", type=Path, help="YAML of FeatureConfig's keys (steps/prepare/config.py)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--chunk-size", type=int, default=100, help="utterances that are lost at most by a kill -9")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a key of the config")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or options.chunk_size < 1:
        raise UserError("--jobs and --chunk-size must be at least 1.")
    splits = [word for word in options.splits if "=" not in word]  # argparse gives --splits all words up to an option
    overrides = [word for word in options.splits if "=" in word] + options.overrides
    config = complete(load_feature_config(options.config, overrides))
    for split in splits:  # a wrong name, before hours of work on the others
        manifest_paths(options.manifests, split)
    for split in splits:
        prepare_split(options.manifests, options.out, split, config, options.jobs, options.chunk_size)
    save_config(options.out / "features.yaml", config)
    return 0


def load_feature_config(path: Path | None, overrides: list[str]) -> FeatureConfig:
    """`FeatureConfig` from a YAML file (or the defaults) with `key=value` overrides."""
    from utils.options import check_config, override

    if path is not None:
        return load_config(path, FeatureConfig, overrides)
    return check_config(override({}, overrides), FeatureConfig, "the command line")


if __name__ == "__main__":
    run(main)
