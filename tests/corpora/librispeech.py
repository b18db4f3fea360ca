"""LibriSpeech in miniature: English prompts as FLAC files and transcripts where the real corpus has them; its LM data.

Facts from the real corpus (README.TXT, Panayotov et al. 2015): LibriSpeech/<part>/<speaker>/<chapter>/ holds
<speaker>-<chapter>-<four digits>.flac, 16 kHz, and one <speaker>-<chapter>.trans.txt of "id TEXT" lines in upper case.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from local.librispeech import EVALUATED, FOLDER, TRAINED
from steps.lm.ngram import main as ngram
from tests.corpora.prompts import Prompt, program, read, share, write_audio

SIZES = {**dict.fromkeys(TRAINED, 24), **dict.fromkeys(EVALUATED, 5)}
ROOT_FILES = ("BOOKS.TXT", "CHAPTERS.TXT", "LICENSE.TXT", "README.TXT", "SPEAKERS.TXT")
CHAPTERS = ("121123", "126133")  # of each speaker


def text_of(prompt: Prompt) -> str:
    """As LibriSpeech writes: upper case, nothing but letters and apostrophes."""
    return " ".join(prompt.texts["en"].replace("-", " ").upper().split())


def write_part(folder: Path, prompts: list[Prompt], speaker: int) -> None:
    """Prompts as the chapters of two speakers, `speaker` and the next."""
    for number, prompt in enumerate(prompts):
        book = (number * 4 // len(prompts)) % 4
        who, chapter = speaker + book // 2, CHAPTERS[book % 2]
        place = folder / str(who) / chapter
        key = f"{who}-{chapter}-{len(list(place.glob('*.flac'))):04d}"
        write_audio(place / f"{key}.flac", prompt.samples("en"))
        with open(place / f"{who}-{chapter}.trans.txt", "a", encoding="utf-8") as lines:
            lines.write(f"{key} {text_of(prompt)}\n")


def write_lm(folder: Path, prompts: list[Prompt]) -> None:
    """OpenSLR 11's files: text, vocabulary, a lexicon (of letters for phones), and the ARPA files in use."""
    folder.mkdir(parents=True)
    texts = [text_of(prompt) for prompt in prompts]
    words = sorted({word for text in texts for word in text.split()})
    (folder / "librispeech-lm-norm.txt").write_text("".join(f"{text}\n" for text in texts))
    (folder / "librispeech-vocab.txt").write_text("".join(f"{word}\n" for word in words))
    lexicon = (f"{word}\t{' '.join(letter for letter in word if letter.isalpha())}\n" for word in words)
    (folder / "librispeech-lexicon.txt").write_text("".join(lexicon))
    for name, order in (("3-gram.pruned.1e-7", 3), ("4-gram", 4)):
        arpa = folder / f"{name}.arpa"
        ngram(["train", "--text", f"{folder}/librispeech-lm-norm.txt", "--order", str(order), "--out", str(arpa)])
    for path in [*folder.glob("*.arpa"), folder / "librispeech-lm-norm.txt"]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def make(folder: Path, sizes: dict[str, int] | None = None) -> Path:
    """The corpus with `sizes` utterances in each part (`SIZES`), and `librispeech-lm/`, below `folder`; `folder`."""
    corpus, sizes = folder / FOLDER, sizes or SIZES
    parts = share(read(), sizes)
    for number, (part, prompts) in enumerate(parts.items()):
        write_part(corpus / part, prompts, 84 + 100 * number)
    for name in ROOT_FILES:
        (corpus / name).write_text("; A miniature: made of the Asterisk core sounds, CC BY-SA 3.0.\n")
    write_lm(folder / "librispeech-lm", [prompt for part in TRAINED for prompt in parts[part]])
    return folder


if __name__ == "__main__":
    program(make, "librispeech")
