"""MuST-C in miniature: talks of English prompts, one after the other in a WAV file, with their translations.

What is odd in the real corpus is in the training talks: remarks in brackets, names of speakers, songs, a line of
nothing but applause, an empty one, a segment of no length, one behind the end of its talk and one that ends a little
behind it, and a line separator in the middle of a sentence.
"""

from __future__ import annotations

from pathlib import Path

from tests.corpora.prompts import Prompt, program, read, share, talk, write_audio

SIZES = {"train": 60, "dev": 12, "tst-COMMON": 12, "tst-HE": 12}
PER_TALK = 12
FIRST = {"train": 1, "dev": 767, "tst-COMMON": 1096, "tst-HE": 1362}  # numbers of talks; dev's as in the real corpus
Line = tuple[float, float, str, str]  # offset, duration, English, translation


def odd_lines(lines: list[Line], length: float) -> list[Line]:
    """The lines of a talk of `length` seconds with all that is odd in the real corpus; two of them more."""
    (start, duration, english, other), *rest = lines
    first = (start, duration, f"CA: {english} (Laughter)", f"CA: {other} (Rires)")
    second = (*rest[0][:2], f"♫ {rest[0][2]} ♫", f"♫ {rest[0][3]} ♫")
    third = (*rest[1][:2], rest[1][2].replace(" ", "\u2028", 1), rest[1][3])
    *rest, (start, duration, english, other) = rest[2:]
    last = (start, length - start + 0.3, english, other)
    applause = (0.0, 0.4, "(Applause)", "(Applaudissements)")
    nothing = (length - 0.4, 0.3, "", "")
    return [applause, first, second, third, *rest, last, nothing]


def bad_lines(length: float) -> list[Line]:
    """Lines that are no part of a talk of `length` seconds."""
    return [(3.0, 0.0, "Thank you.", "Merci."), (length + 60, 4.0, "Thank you very much.", "Merci beaucoup.")]


def write_split(folder: Path, prompts: list[Prompt], target: str) -> None:
    """wav/ and txt/ of a split."""
    split, rows = folder.name, []
    for number, at in enumerate(range(0, len(prompts), PER_TALK), FIRST[split]):
        own = prompts[at : at + PER_TALK]
        samples, times = talk(own, "en")
        write_audio(folder / "wav" / f"ted_{number}.wav", samples)
        length = len(samples) / 16000
        texts = [(" ".join(prompt.raw["en"].split()), " ".join(prompt.raw[target].split())) for prompt in own]
        lines = [(start, end - start, *text) for (start, end), text in zip(times, texts, strict=True)]
        if number == FIRST["train"]:
            lines = [*odd_lines(lines, length), *bad_lines(length)]
        rows += [(number, *line) for line in lines]
    (folder / "txt").mkdir()
    segments = (
        f"- {{duration: {duration:.6f}, offset: {start:.6f}, rW: {len(english.split())}, uW: 0, "
        f"speaker_id: spk.{number}, wav: ted_{number}.wav}}\n"
        for number, start, duration, english, _ in rows
    )
    (folder / "txt" / f"{split}.yaml").write_text("".join(segments))
    for column, language in ((3, "en"), (4, target)):
        (folder / "txt" / f"{split}.{language}").write_text("".join(f"{row[column]}\n" for row in rows), "utf-8")


def make(folder: Path, target: str = "fr", sizes: dict[str, int] | None = None) -> Path:
    """`en-<target>` (es, fr, it or ru) with so many segments in each split (`SIZES`), below `folder`; `folder`."""
    for split, prompts in share(read(("en", target)), sizes or SIZES).items():
        write_split(folder / f"en-{target}" / "data" / split, prompts, target)
    return folder


if __name__ == "__main__":
    program(make, "must_c")
