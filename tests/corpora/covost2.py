"""CoVoST 2 in miniature: French prompts as MP3 clips of Common Voice, with their English translations.

What is odd in the real corpus is in `train`: clips of no bytes, one not there, rates of 32 and 16 kHz beside 48,
sentences in CSV's quotes, a transcript that is nothing but punctuation, an empty translation, one that reads "null", a
backslash before a quote, translated clips that validated.tsv lacks and the other way round, rows of no split. Into
other languages than English (`make(..., "en", "de")`) the translations are another language's prompts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from tests.corpora.prompts import RATE, Prompt, program, read, share

SIZES = {"train": 54, "dev": 12, "test": 12}
FIRST = 17732749  # as French has
COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent")
SPEAKERS = 5  # of each split
RATES = (48000, 48000, 48000, 32000, 16000)


def write_clip(path: Path, samples: np.ndarray, rate: int) -> None:
    """`samples` (time,) int16 at 16 kHz as MP3 at `rate` Hz."""
    import soundfile

    louder = resample_poly(samples.astype(np.float64), rate // RATE, 1).clip(-32768, 32767)
    soundfile.write(path, louder.astype(np.int16), rate, format="MP3")


def quoted(sentence: str) -> str:
    """As validated.tsv has a sentence with a quotation mark or an apostrophe in it."""
    return '"' + sentence.replace('"', '""') + '"' if set("\"'") & set(sentence) else sentence


class Tables:
    """The rows of validated.tsv and of CoVoST's table, while clips are written beside them."""

    def __init__(self, folder: Path, source: str, target: str) -> None:
        self.folder, self.source, self.target = folder, source, target
        self.validated: list[str] = []
        self.translated: list[str] = []
        (folder / source / "clips").mkdir(parents=True)

    def add(self, split: str, sentence: str, translation: str, said: bool = True) -> Path:
        """Rows of a new clip; where it is to be."""
        number = len(self.translated)
        name = f"common_voice_{self.source}_{FIRST + number}.mp3"
        speaker = hashlib.sha512(f"{split}{number % SPEAKERS}".encode()).hexdigest()
        if said:
            self.validated.append("\t".join((speaker, name, quoted(sentence), "2", "0", "", "", "")))
        self.translated.append("\t".join((name, translation, split)))
        return self.folder / self.source / "clips" / name

    def write(self) -> None:
        """Both, the clips in another order than in the other; and the tables that lie beside validated.tsv."""
        place = self.folder / self.source
        lines = sorted(self.validated, key=lambda line: line[:8])
        (place / "validated.tsv").write_text("\n".join(["\t".join(COLUMNS), *lines, ""]), "utf-8")
        for name in ("train", "dev", "test", "invalidated", "other"):
            (place / f"{name}.tsv").write_text("\t".join(COLUMNS) + "\n")
        table = self.folder / f"covost_v2.{self.source}_{self.target}.tsv"
        table.write_text("\n".join(["path\ttranslation\tsplit", *self.translated, ""]), "utf-8")


def add_prompts(tables: Tables, split: str, prompts: list[Prompt], languages: tuple[str, str]) -> None:
    """The clips of a split; of train, every third was added by CoVoST."""
    for number, prompt in enumerate(prompts):
        sentence, translation = (" ".join(prompt.raw[language].split()) for language in languages)
        name = "train_covost" if split == "train" and number % 3 == 2 else split
        if split == "train" and number == 1:
            sentence, translation = f'Le "mot" : {sentence}', f'The \\"word\\": {translation}'
        write_clip(tables.add(name, sentence, translation), prompt.samples(languages[0]), RATES[number % len(RATES)])


def add_odd(tables: Tables, prompt: Prompt, spoken: str) -> None:
    """Clips that cannot be used, some that need not be, and one that says nothing odd."""
    samples = prompt.samples(spoken)
    tables.add("train", "Un clip vide.", "An empty clip.").write_bytes(b"")
    tables.add("train", "Un clip perdu.", "A lost clip.")
    write_clip(tables.add("train", "...", "Three dots."), samples, 48000)
    write_clip(tables.add("train", "Sans traduction.", ""), samples, 48000)
    write_clip(tables.add("train", "Rien.", "null"), samples, 48000)
    tables.add("train", "Pas validé.", "Not validated.", said=False)
    write_clip(tables.add("", "Sans partie.", "Of no split."), samples, 48000)
    write_clip(tables.add("dev_covost", "De la première version.", "Of the first version."), samples, 48000)


def make(folder: Path, source: str = "fr", target: str = "en", sizes: dict[str, int] | None = None) -> Path:
    """`<source>/` and `covost_v2.<source>_<target>.tsv` in `folder`, `sizes` clips a split (`SIZES`); `folder`."""
    spoken, other = (code if code in ("en", "fr") else "es" for code in (source, target))
    tables = Tables(folder, source, target)
    prompts = read((spoken, other))
    for split, own in share(prompts, sizes or SIZES).items():
        add_prompts(tables, split, own, (spoken, other))
    add_odd(tables, prompts[-1], spoken)
    tables.write()
    return folder


if __name__ == "__main__":
    program(make, "covost2")
