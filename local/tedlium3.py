"""TED-LIUM release 3: 2,351 TED talks in English with aligned captions (452 hours), and 19 transcribed by hand.

    python -m local.tedlium3 download --out downloads
    python -m local.tedlium3 manifests --corpus downloads --out data/manifests
    python -m local.tedlium3 text --corpus downloads --out data/lm/text.en.gz
    python -m local.tedlium3 ngrams --out downloads/tedlium3-lm

Hernandez et al., SPECOM 2018 (arXiv:1805.04699); OpenSLR 51. Splits are those of `legacy/`, as in Kaldi, icefall and
ESPnet. Texts are Kaldi's (egs/tedlium/s5_r3): marks of noise, silence and pronunciation go, "it 's" is "it's". A
speaker is who the STM file says: the talk in train, the person in dev and test.

Lhotse's recipe is not used: it reads SPHERE files only with sph2pipe installed, leaves texts as they are or, with
`kaldi`, takes `<unk>` out of references, too; it ends where one talk lacks its audio or has a line that is no STM; it
cuts or drops what reaches beyond the audio without a word; and it calls all speakers by the talk.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from math import inf
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from local.archives import download_archives, fetch_all
from local.corpus import (
    AudioFiles,
    Program,
    Published,
    Unusable,
    compare_with_published,
    decode_text,
    find_folder,
    leave_manifests,
    read_utterances,
    usable,
)
from local.fetch import Archive, openslr
from local.manifests import Utterance, make_utterance
from utils.errors import UserError, run
from utils.files import atomic_path, open_text, read_lines
from utils.options import count

FOLDER = "TEDLIUM_release-3"
SPLITS = ("train", "dev", "test")
# icefall's egs/tedlium3/ASR/local/display_manifest_statistics.py; train, there in three speeds, has 1370.6 h in all
PUBLISHED = {"train": Published(268263, 453.81), "dev": Published(507, 1.6), "test": Published(1155, 2.6)}
SHA256 = "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb"  # as in torchaudio.datasets.tedlium
# what Kaldi's ted_train_lm.sh made of the corpus' transcripts and LM text: 2 and 10 million n-grams
NGRAMS = tuple(
    Archive(name, url=f"http://kaldi-asr.org/models/5/{name}") for name in ("4gram_small.arpa.gz", "4gram_big.arpa.gz")
)
UNKNOWN = "<unk>"
NOT_SCORED = "ignore_time_segment_in_scoring"
OVERSHOOT = 0.5  # seconds that a segment may end after its audio, and is cut then (Kaldi's extract-segments)
# [NOISE] and {NOISE}, silence, "for(2)" of the dictionary, and the utterance's name that may end a line
MARKS = re.compile(r"[\[{][A-Z_]+[\]}]|<sil>|\(\d\)|\([^ ]*\)$")
SUFFIX = re.compile(r"(\S+) ('\S*)")
SPELLED = re.compile(r"[a-z']+")
AGAIN = "run 'python -m local.tedlium3 download' (stage 0), which fetches only what is missing"


def download(arguments: Namespace) -> None:
    """Fetch and unpack the corpus; the same command continues, and mends what is damaged."""
    archive = openslr(51, f"{FOLDER}.tgz", sha256=SHA256)
    download_archives([archive], Path(arguments.out), keep=arguments.keep_archives)


def download_ngrams(arguments: Namespace) -> None:
    """Fetch Kaldi's n-gram models of the corpus."""
    for path in fetch_all(list(NGRAMS), Path(arguments.out)):
        print(path)


# ---- texts


def normalise(text: str) -> str:
    """A transcript without marks, in lower case; suffixes joined two by two, as Kaldi's join_suffix.py does."""
    return SUFFIX.sub(r"\1\2", " ".join(MARKS.sub(" ", text).lower().split()))


def make_text(arguments: Namespace) -> None:
    """Write the sentences of LM/*.en.gz, or the first `--lines` of each file, one a line.

    Words with anything but a to z and the apostrophe are left out, as in icefall's prepare_transcripts.py.
    """
    folder = find_corpus(Path(arguments.corpus)) / "LM"
    if not (files := visible(folder, "*.en.gz")):
        raise UserError(f"{folder} has no text (*.en.gz) in it: {AGAIN}.")
    lines = words = 0
    with atomic_path(arguments.out) as temporary, open_text(temporary, "wt") as out:
        for path in files:
            for line in tqdm(islice(read_lines(path, AGAIN), arguments.lines), path.name, unit="line"):
                kept = [word for word in normalise(line.removesuffix("</s>")).split() if SPELLED.fullmatch(word)]
                if kept:
                    out.write(" ".join(kept) + "\n")
                    lines, words = lines + 1, words + len(kept)
    print(f"{arguments.out}: {lines} lines, {words} words of {len(files)} files")


# ---- STM files


class Segment(NamedTuple):
    """A line of an STM file that is scored: "talk channel speaker start end <label> text"."""

    talk: str
    speaker: str
    start: float  # seconds
    end: float
    text: str

    @property
    def id(self) -> str:
        """As Kaldi's: talk, and start and end in hundredths of a second."""
        return f"{self.talk}-{int(round(self.start * 100, 4)):07d}-{int(round(self.end * 100, 4)):07d}"


def parse(line: str, where: str) -> Segment:
    """One line; `Unusable` where it is none of the STM format."""
    fields = line.split(maxsplit=6)
    try:
        talk, _, speaker, start, end, label = fields[:6]
        segment = Segment(talk, speaker, float(start), float(end), fields[6] if len(fields) > 6 else "")
    except ValueError:
        raise Unusable("corrupt", f"{where} is not 'talk channel speaker start end <label> text'.") from None
    if not (label.startswith("<") and label.endswith(">")):
        raise Unusable("corrupt", f"{where} has '{label}' where a label such as <o,f0,male> belongs.")
    if not 0 <= segment.start < segment.end < inf:
        raise Unusable("corrupt", f"{where} is from {start} to {end} s.")
    return segment


def read_stm(path: Path) -> Iterator[tuple[str, Segment | Unusable]]:
    """The scored lines of an STM file by their ids, what is wrong with a line in its place; without comments (;;)."""
    try:
        lines = decode_text(path).split("\n")
    except Unusable as error:
        yield path.stem, error
        return
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;") or NOT_SCORED in line:
            continue
        where = f"{path}, line {number},"
        try:
            segment = parse(line, where)
            yield segment.id, segment
        except Unusable as error:
            yield f"{path.stem}, line {number}", error


def read_split(folder: Path) -> dict[str, Segment | Unusable]:
    """All segments of legacy/<split>/stm by their ids, in order; a talk of which only the audio is there has none."""
    found: dict[str, Segment | Unusable] = {}
    for path in visible(folder / "stm", "*.stm"):
        nothing = (path.stem, Unusable("no text", f"{path} has no segment."))
        for key, item in list(read_stm(path)) or [nothing]:
            if key in found:
                item = Unusable("duplicate id", f"{path} has two segments {key}.")
                key += " again"
            found[key] = item
    for path in visible(folder / "sph", "*.sph"):
        stm = folder / "stm" / f"{path.stem}.stm"
        if not stm.exists():
            found[path.stem] = Unusable("no text", f"{stm} is not there, {path} is.")
    return found


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files that match, in order, without hidden ones such as a Mac leaves."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


# ---- manifests


def find_corpus(folder: Path) -> Path:
    """The folder that has legacy/ in it, at or below the `folder` given; `UserError` where there is none."""
    return find_folder(folder, [f"legacy/{split}" for split in SPLITS], (FOLDER,), AGAIN)


def read_folder(folder: Path, jobs: int, left_out: list[dict]) -> list[Utterance]:
    """The utterances of legacy/<split> without those added to `left_out`; train's texts have no `<unk>`, as a model
    cannot learn to write it, those of dev and test keep theirs, each of which is an error (as in Kaldi and icefall)."""
    found = read_split(folder)
    talks = {item.talk: folder / "sph" / f"{item.talk}.sph" for item in found.values() if isinstance(item, Segment)}
    files = AudioFiles(talks.values(), jobs, folder.name)

    def read(key: str, segment: Segment) -> Utterance:
        path = talks[segment.talk]
        recording = files.recording(path)
        if segment.end > recording.duration + OVERSHOOT or segment.start >= recording.duration:
            raise Unusable("truncated", f"{path} has {recording.duration:.2f} s, {key} ends at {segment.end:.2f} s.")
        text = normalise(segment.text)
        if folder.name == "train":
            text = " ".join(word for word in text.split() if word != UNKNOWN)
        if not text:
            raise Unusable("no text", f"{folder / 'stm'}: {key} has no words but {UNKNOWN}.")
        duration = round(min(segment.end, recording.duration) - segment.start, 8)
        return make_utterance(key, recording, text, "en", segment.speaker, {}, segment.start, duration)

    return usable(read_utterances(found, read, left_out, folder, AGAIN))


def make_manifests(arguments: Namespace) -> None:
    """Write recordings and supervisions of every split and `left_out.jsonl`; print their sizes beside the published."""
    legacy = find_corpus(Path(arguments.corpus)) / "legacy"
    left_out: list[dict] = []
    splits = {split: read_folder(legacy / split, arguments.jobs, left_out) for split in SPLITS}
    leave_manifests(Path(arguments.out), splits, left_out)
    compare_with_published(splits, PUBLISHED)


def main() -> None:
    """Command line."""
    program = Program("tedlium3", "TED-LIUM release 3: download, manifests, text for language models.")
    fetch = program.download(download, "fetch the corpus from OpenSLR (54 GB)", FOLDER)
    fetch.add_argument("--keep-archives", action="store_true", help="do not delete what was unpacked")
    where = f"folder that download made, or {FOLDER} itself"
    program.manifests(make_manifests, where)
    ngrams = program.add(download_ngrams, "ngrams", "fetch Kaldi's 4-grams of the corpus' transcripts and text")
    ngrams.add_argument("--out", required=True, help="folder for the ARPA files")
    text = program.add(make_text, "text", "write the corpus' text for language models")
    text.add_argument("--corpus", required=True, help=where)
    text.add_argument("--lines", type=count, help="take only so many of each of the corpus' text files, the first")
    text.add_argument("--out", required=True, type=Path, help="file to write, a sentence a line (.gz: compressed)")
    program.main()


if __name__ == "__main__":
    run(main)
