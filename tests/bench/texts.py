"""How long language models' text takes to become tokens and batches, and the memory of it.

python tests/bench/texts.py --text librispeech-lm-norm.txt.gz --lang data/lang_bpe_500
python tests/bench/texts.py --count 40000000 --processes 8
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from steps.prepare.sentences import SentenceSection, TextSet, TokenCache
from steps.prepare.text_batches import TextPlan, TextTable, TokenRows


def memory() -> str:
    """This process's resident memory, its own and that of mapped files (shared with other processes)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    rss = {words[0]: int(words[1]) >> 10 for words in lines if words[0].startswith("Rss")}
    return f"{rss['RssAnon:']} MiB, and {rss['RssFile:']} MiB of files"


def store(text: Path, lang: Path) -> TokenRows:
    """The text's tokens, made in a folder that is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        cache, source = TokenCache(Path(folder), lang, 250), TextSet(path=str(text))
        started = time.perf_counter()
        cache.make(source)
        seconds, found = time.perf_counter() - started, cache.open(source)
        print(
            f"{len(found)} texts, {found.totals.sum()} tokens in {seconds:.0f} s, {len(found) / seconds:.0f} a second"
        )
        return found


def drawn(folder: Path, count: int) -> TokenRows:
    """So many texts with lengths as in LibriSpeech's text (about 43 pieces), in files of zeros that take no room."""
    offsets = np.memmap(folder / "offsets.bin", dtype=np.int64, mode="w+", shape=count + 1)
    draw, end = np.random.default_rng(0), 0
    for start in range(0, count, 1 << 20):
        lengths = draw.lognormal(3.6, 0.6, min(1 << 20, count - start)).clip(1, 250).astype(np.int64)
        offsets[start + 1 : start + 1 + len(lengths)] = end + np.cumsum(lengths)
        end = int(offsets[start + len(lengths)])
    return TokenRows(np.memmap(folder / "tokens.bin", dtype=np.uint16, mode="w+", shape=end), offsets)


def plan(rows: TokenRows, weight: float, max_tokens: int, processes: int) -> None:
    """Plan two epochs and find the largest batch, as one of several processes."""
    config = SentenceSection.model_validate({"train": "unused", "max_tokens": max_tokens})
    planned = TextPlan(TextTable([rows], [weight]), config, 0, processes)
    print(f"{len(rows)} texts, {rows.totals.sum()} tokens: {memory()}")
    for epoch in (0, 1):
        started = time.process_time()
        batches = planned.batches(epoch)
        print(f"epoch {epoch}: {len(batches)} batches in {time.process_time() - started:.1f} s, {memory()}")
    started = time.process_time()
    size = len(planned.worst_batch())
    print(f"largest batch: {size} texts, {time.process_time() - started:.1f} s, {memory()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="a sentence a line")
    parser.add_argument("--lang", type=Path, help="lang folder")
    parser.add_argument("--count", type=int, default=40_000_000, help="texts, without --text")
    parser.add_argument("--weight", type=float, default=1.0, help="share of the texts that an epoch has")
    parser.add_argument("--max-tokens", type=int, default=20_000, help="a batch")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    args = parser.parse_args()
    sizes = (args.weight, args.max_tokens, args.processes)
    if args.text:
        plan(store(args.text, args.lang), *sizes)
        return
    with tempfile.TemporaryDirectory() as folder:
        plan(drawn(Path(folder), args.count), *sizes)


if __name__ == "__main__":
    main()
