"""LibriSpeech: a thousand hours of English read aloud (LibriVox), and its small extract mini-LibriSpeech.

    python -m local.librispeech download --parts 100 --out downloads
    python -m local.librispeech manifests --parts 100 --corpus downloads --out data/manifests

Panayotov et al., ICASSP 2015; OpenSLR 12 and 31. Splits, ids and texts (upper case, no punctuation but the apostrophe)
are as published. Lhotse's recipe ends at the first file that cannot be read and drops lines without audio in silence;
here such utterances are left out by name, and audio without a line is, too.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from local.archives import download_archives
from local.corpus import (
    AudioFiles,
    Program,
    Published,
    Unusable,
    compare_with_published,
    find_folder,
    leave_manifests,
    read_text,
    read_utterances,
    usable,
)
from local.fetch import openslr
from local.manifests import Utterance, make_utterance
from utils.errors import run

FOLDER = "LibriSpeech"
# utterances as counted by Lhotse's and torchaudio's tests of the whole corpus; hours: the paper's table 1
PUBLISHED = {
    "train-clean-5": Published(1519),
    "train-clean-100": Published(28539, 100.6),
    "train-clean-360": Published(104014, 363.6),
    "train-other-500": Published(148688, 496.7),
    "dev-clean-2": Published(1089),
    "dev-clean": Published(2703, 5.4),
    "dev-other": Published(2864, 5.3),
    "test-clean": Published(2620, 5.4),
    "test-other": Published(2939, 5.1),
}
EVALUATED = ("dev-clean", "dev-other", "test-clean", "test-other")
TRAINED = ("train-clean-100", "train-clean-360", "train-other-500")
# split -> folders of the corpus, by how much of it is used
PARTS = {
    "960": {"train": TRAINED, **{name: (name,) for name in EVALUATED}},
    "100": {"train": TRAINED[:1], **{name: (name,) for name in EVALUATED}},
    "mini": {"train": ("train-clean-5",), "dev-clean-2": ("dev-clean-2",)},
}
SHA256 = {  # as in torchaudio.datasets.librispeech; of OpenSLR 31, OpenSLR's md5sum.txt
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}
MD5 = {"train-clean-5": "5df7d4e78065366204ca6845bb08f490", "dev-clean-2": "6d7ab67ac6a1d2c993d050e16d61080d"}
AGAIN = "run 'python -m local.librispeech download' (stage 0), which fetches only what is missing"


def folders(parts: str) -> list[str]:
    """The corpus' folders that `parts` (960, 100 or mini) consists of."""
    return [name for names in PARTS[parts].values() for name in names]


def download(arguments: Namespace) -> None:
    """Fetch and unpack the folders of `--parts`; the same command continues, and mends what is damaged."""
    archives = [
        openslr(12 if name in SHA256 else 31, f"{name}.tar.gz", sha256=SHA256.get(name, ""), md5=MD5.get(name, ""))
        for name in folders(arguments.parts)
    ]
    download_archives(archives, Path(arguments.out), keep=arguments.keep_archives)


# ---- manifests


def read_lines(folder: Path) -> dict[str, list[str]]:
    """{id: texts} of all `<speaker>-<chapter>.trans.txt` in a folder such as train-clean-100.

    Two texts are a mistake, and audio files that no line names have none.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*/*/*.trans.txt")):
        for line in filter(None, map(str.strip, read_text(path, AGAIN))):
            key, _, text = line.partition(" ")
            found.setdefault(key, []).append(" ".join(text.split()))
    for path in folder.glob("*/*/*.flac"):
        found.setdefault(path.stem, [])
    return dict(sorted(found.items()))


def audio_of(folder: Path, key: str) -> Path:
    """Where the audio of an utterance is: 84-121123-0001 in 84/121123/."""
    return folder.joinpath(*key.split("-")[:2], f"{key}.flac")


def read_folder(folder: Path, jobs: int, left_out: list[dict]) -> list[Utterance]:
    """The utterances of a folder such as train-clean-100 by id, without those added to `left_out`."""
    lines = read_lines(folder)
    files = AudioFiles((audio_of(folder, key) for key in lines), jobs, folder.name)

    def read(key: str, texts: list[str]) -> Utterance:
        path = audio_of(folder, key)
        recording = files.recording(path)
        if len(set(texts)) > 1:
            raise Unusable("duplicate id", f"{path.parent} has {len(texts)} different lines for {key}.")
        if not any(texts):
            raise Unusable("no text", f"{path} has no line in {path.parent}'s .trans.txt.")
        return make_utterance(key, recording, texts[0], "en", key.split("-")[0], {})

    return usable(read_utterances(lines, read, left_out, folder, AGAIN))


def make_manifests(arguments: Namespace) -> None:
    """Write recordings and supervisions of every split and `left_out.jsonl`; print their sizes beside the published."""
    wanted = PARTS[arguments.parts]
    corpus = find_folder(Path(arguments.corpus), folders(arguments.parts), (FOLDER,), AGAIN)
    left_out: list[dict] = []
    read = {name: read_folder(corpus / name, arguments.jobs, left_out) for name in folders(arguments.parts)}
    splits = {split: [item for name in names for item in read[name]] for split, names in wanted.items()}
    leave_manifests(Path(arguments.out), splits, left_out)
    compare_with_published(read, PUBLISHED)


def main() -> None:
    """Command line."""
    program = Program("librispeech", "LibriSpeech: download, manifests.")
    fetch = program.download(download, "fetch the corpus from OpenSLR", FOLDER)
    fetch.add_argument("--keep-archives", action="store_true", help="do not delete what was unpacked")
    make = program.manifests(make_manifests, f"folder that download made, or {FOLDER} itself")
    for command in (fetch, make):
        command.add_argument(
            "--parts", choices=PARTS, default="960", help="hours of training data; mini: OpenSLR 31's 5"
        )
    program.main()


if __name__ == "__main__":
    run(main)
