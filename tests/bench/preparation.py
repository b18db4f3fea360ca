"""How long does it take from a LibriSpeech folder to cuts with features? Seconds and memory, beside Lhotse's commands.

    python tests/bench/preparation.py [--hours 20] [--jobs 2] [--rounds 3] [--folder build/preparation]

A corpus in LibriSpeech's layout, of real prompts that are repeated until there are so many hours, is prepared by
`local.librispeech manifests` and `steps.prepare.features`, and by `lhotse prepare librispeech`, `lhotse cut simple` and
`lhotse feat extract-cuts` (lilcom in chunks, as icefall stores it, and as ours), each with as many jobs. The two take
turns; the table holds medians. Ours checks every utterance besides. Memory is the largest sum of the resident (here:
proportional) sizes of all processes at one time. Both must find the same utterances and the same features.
"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from lhotse import CutSet

from tests.corpora.prompts import Prompt, read, write_audio
from utils.errors import UserError, run
from utils.options import Parser, count, positive

PART = "train-clean-5"
CHAPTER = 50  # utterances


def make_corpus(folder: Path, hours: float) -> Path:
    """LibriSpeech/train-clean-5 with prompts for `hours`; each prompt's audio is one file with many names."""
    corpus = folder / "LibriSpeech"
    if (folder / f"{hours:g}-hours").exists():
        return corpus
    shutil.rmtree(corpus, ignore_errors=True)
    prompts = read(shortest=2.0, longest=12.0)
    seconds, number = 0.0, 0
    while seconds < hours * 3600:
        prompt = prompts[number % len(prompts)]
        write_utterance(corpus / PART, folder / "prompts", prompt, number)
        seconds += prompt.files["en"].stat().st_size / 8000
        number += 1
    (corpus / "dev-clean-2").mkdir()
    write_utterance(corpus / "dev-clean-2", folder / "prompts", prompts[0], number)
    (folder / f"{hours:g}-hours").touch()
    return corpus


def write_utterance(part: Path, store: Path, prompt: Prompt, number: int) -> None:
    """Utterance `number` of the corpus: a chapter is `CHAPTER` utterances, a speaker ten chapters."""
    audio = store / f"{prompt.name.replace('/', '-')}.flac"
    if not audio.exists():
        write_audio(audio, prompt.samples("en"))
    speaker, chapter = 1000 + number // (10 * CHAPTER), 1 + number // CHAPTER
    place = part / str(speaker) / str(chapter)
    place.mkdir(parents=True, exist_ok=True)
    key = f"{speaker}-{chapter}-{number % CHAPTER:04d}"
    os.link(audio, place / f"{key}.flac")
    with open(place / f"{speaker}-{chapter}.trans.txt", "a", encoding="utf-8") as lines:
        lines.write(f"{key} {prompt.texts['en'].upper()}\n")


OURS = """
{python} -m local.librispeech manifests --corpus {corpus} --parts mini --jobs {jobs} --out {out}/manifests
{python} -m steps.prepare.features --manifests {out}/manifests --out {out} --splits train --jobs {jobs}
"""
LHOTSES = """
{lhotse} prepare librispeech -p {part} -j {jobs} {corpus} {out}
{lhotse} cut simple --force-eager -r {out}/librispeech_recordings_{part}.jsonl.gz \\
  -s {out}/librispeech_supervisions_{part}.jsonl.gz {out}/cuts.jsonl.gz
{lhotse} feat extract-cuts -j {jobs} --storage-type lilcom_chunky {out}/cuts.jsonl.gz \\
  {out}/features.jsonl.gz {out}/feats
"""


def commands(lines: str, corpus: Path, out: Path, jobs: int) -> list[list[str]]:
    """The commands of `lines`."""
    lhotse = Path(sys.executable).with_name("lhotse")
    filled = lines.format(python=sys.executable, lhotse=lhotse, corpus=corpus, out=out, jobs=jobs, part=PART)
    return [shlex.split(line) for line in filled.replace("\\\n", " ").strip().splitlines()]


def measure(program: list[list[str]]) -> tuple[list[float], float]:
    """Seconds of each command, and the most memory in MiB; `UserError` where one fails."""
    seconds, peak = [], Peak()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    for command in program:
        began = time.perf_counter()
        done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True)
        with peak.of(done.pid):
            _, told = done.communicate()
        seconds.append(time.perf_counter() - began)
        if done.returncode:
            raise UserError(f"{' '.join(command)} failed: {told[-500:]}")
    return seconds, peak.mebibytes


class Peak:
    """The largest sum of proportional set sizes (Linux) of a process and all that it started, sampled while it runs."""

    def __init__(self) -> None:
        self.mebibytes = 0.0
        self._ended = threading.Event()

    def of(self, pid: int) -> Peak:
        """Watch a process within a `with`."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._watch, args=(pid,))
        return self

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self, pid: int) -> None:
        while not self._ended.wait(0.2):
            self.mebibytes = max(self.mebibytes, sum(map(proportional, family(pid))))


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def proportional(pid: int) -> float:
    """MiB of a process, shared pages divided by those who share them."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024
    except OSError:
        return 0.0


def check_same(mine: Path, theirs: Path) -> int:
    """Refuse different utterances or features; how many there are."""
    one = {cut.supervisions[0].id: cut for cut in CutSet.from_file(mine)}
    other = {cut.supervisions[0].id: cut for cut in CutSet.from_file(theirs)}
    if one.keys() != other.keys():
        raise UserError(f"{len(one)} utterances here, {len(other)} by Lhotse.")
    for key in sorted(one)[:: max(1, len(one) // 50)]:
        if not np.allclose(one[key].load_features(), other[key].load_features(), atol=1e-3):
            raise UserError(f"The features of {key} differ.")
    return len(one)


def main() -> None:
    parser = Parser(prog="tests/bench/preparation.py", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=positive, default=20.0)
    parser.add_argument("--jobs", type=count, default=2)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/preparation"), help="what is made; kept")
    options = parser.parse_args()
    corpus = make_corpus(options.folder, options.hours)
    sides = {"here": OURS, "Lhotse": LHOTSES}
    found: dict[str, list[tuple[list[float], float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, lines in sides.items():
            out = options.folder / name
            shutil.rmtree(out, ignore_errors=True)
            found[name].append(measure(commands(lines, corpus, out, options.jobs)))
    utterances = check_same(options.folder / "here/train/cuts.jsonl.gz", options.folder / "Lhotse/features.jsonl.gz")
    print(f"{utterances} utterances, {options.hours:g} h, {options.jobs} jobs, {options.rounds} rounds\n")
    print("| | manifests | cuts and features | together | peak memory (MiB) |\n|---|--:|--:|--:|--:|")
    totals = {}
    for name, rounds in found.items():
        parts = [[seconds[0], sum(seconds[1:]), sum(seconds)] for seconds, _ in rounds]
        first, rest, totals[name] = (statistics.median(column) for column in zip(*parts, strict=True))
        memory = statistics.median(peak for _, peak in rounds)
        print(f"| {name} | {first:.1f} s | {rest:.1f} s | {totals[name]:.1f} s | {memory:,.0f} |")
    print(f"\nLhotse's time over ours: {totals['Lhotse'] / totals['here']:.2f}")


if __name__ == "__main__":
    run(main)
