"""FLEURS in miniature: the same prompts in five languages, in the layout of Google's archives or of Hugging Face's.

What is odd in the real corpus is in each language: sentences that are read twice, a reading that was cut short, a line
that stands twice, one without its file and a file without its line, lengths that are not the file's, quotes that are
part of a sentence, and sentences that another language lacks.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from local.text import normalise
from tests.corpora.prompts import RATE, Prompt, make_listener, program, read, share, write_audio

LANGUAGES = {"en_us": "en", "es_419": "es", "fr_fr": "fr", "it_it": "it", "ru_ru": "ru"}
SIZES = {"train": 48, "dev": 10, "test": 10}
TWICE = 3  # every so many sentences are read by two people
LONGEST = 6.0  # seconds of a prompt


def file_of(*what: object) -> str:
    """The name of a recording, which tells nothing."""
    return f"{int(hashlib.sha256(str(what).encode()).hexdigest()[:16], 16)}.wav"


def line_of(sentence: int, name: str, raw: str, text: str, samples: int, gender: str) -> str:
    """A line of a TSV file; the fifth column is the text a character at a time."""
    characters = " ".join("|".join(text.split())) + " |"
    return "\t".join((str(sentence), name, raw, text, characters, str(samples), gender))


def write_split(folder: Path, split: str, prompts: Sequence[tuple[int, Prompt]]) -> None:
    """`<split>.tsv` and `audio/<split>/` of the language that `folder` is named after."""
    language, lines = LANGUAGES[folder.name], []
    for sentence, prompt in prompts:
        samples = prompt.samples(language) / np.float32(32768)
        raw = " ".join(prompt.raw[language].split())
        raw = f'"{raw}' if sentence % 5 == 0 else raw
        for reading in range(2 if sentence % TWICE == 0 else 1):
            own = samples[: len(samples) // (1 + reading)]  # of two readings one was cut short
            name = file_of(folder.name, sentence, reading)
            write_audio(folder / "audio" / split / name, own, subtype="FLOAT")
            said = len(samples)  # the cut one's, too
            text = normalise(prompt.raw[language], language, digits=True)
            lines.append(line_of(sentence, name, raw, text, said, ("MALE", "FEMALE")[reading]))
    lines.append(lines[0])
    if split == "train":
        lines.insert(3, line_of(9999, file_of(folder.name, "missing"), "Nothing.", "nothing", RATE, "OTHER"))
        write_audio(
            folder / "audio" / split / file_of(folder.name, "nameless"), np.zeros(RATE, np.float32), None, "FLOAT"
        )
    (folder / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def pack(folder: Path) -> None:
    """The recordings of a language as Hugging Face has them: `audio/<split>.tar.gz` with `<split>/*.wav`."""
    for split in SIZES:
        with tarfile.open(folder / "audio" / f"{split}.tar.gz", "w:gz") as archive:
            archive.add(folder / "audio" / split, split)
        for path in (folder / "audio" / split).iterdir():
            path.unlink()
        (folder / "audio" / split).rmdir()


def make(
    folder: Path,
    languages: Sequence[str] = tuple(LANGUAGES),
    sizes: dict[str, int] | None = None,
    hugging_face: bool = False,
) -> Path:
    """A folder for each of `languages`, `sizes` sentences in each split; with `hugging_face` below `data/`, packed."""
    prompts = read([LANGUAGES[name] for name in languages], longest=LONGEST)
    numbered = {prompt.name: number for number, prompt in enumerate(prompts, 1)}
    for split, own in share(prompts, sizes or SIZES).items():
        for at, name in enumerate(languages):
            there = [(numbered[prompt.name], prompt) for prompt in own]
            lacking = there[at + 1]  # each language lacks another sentence
            place = folder / ("data" if hugging_face else "") / name
            write_split(place, split, [pair for pair in there if pair != lacking])
            if hugging_face and split == list(sizes or SIZES)[-1]:
                pack(place)
    return folder


def make_with_whisper(folder: Path) -> None:
    """The corpus, and a Whisper of a few thousand parameters that was never trained."""
    make(folder)
    texts = (folder / "fr_fr" / "train.tsv").read_text("utf-8").split("\n")
    make_listener(folder, texts)


if __name__ == "__main__":
    program(make_with_whisper, "fleurs")
