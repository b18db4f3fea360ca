"""TED-LIUM release 3 in miniature: English prompts as talks in NIST SPHERE files, with STM files, text and dictionary.

Facts from the real corpus (sources are beside the tests): audio and STM files of train are in data/ and linked from
legacy/train; train's labels are <NA>, its speakers talks, its segments may overlap; dev and test have people for
speakers, gaps that are not scored, and labels <F0_M> (dev) or <o,f0,male> (test).
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from local.tedlium3 import FOLDER, NGRAMS, NOT_SCORED
from steps.lm.ngram import main as ngram
from tests.corpora.prompts import Prompt, program, read, share, talk, write_audio

TALKS = {
    "train": ("911Mothers_2010W", "AalaElKhani_2016", "AaronHuey_2010X", "MarianoSigman_2016", "XDRTB_2008"),
    "dev": ("AlGore_2009", "BarrySchwartz_2005G"),
    "test": ("AimeeMullins_2009P", "BillGates_2010"),
}
SPOKEN = {"train": 12, "dev": 4, "test": 4}  # segments of each talk
LM_FILES = (
    "commoncrawl-9pc",
    "europarl-v7-6pc",
    "giga-fren-4pc",
    "news-18pc",
    "news-commentary-v8-9pc",
    "yandex-1m-31pc",
)


def apart(text: str) -> str:
    """As the corpus writes suffixes: "it 's", "doesn 't"."""
    return re.sub(r"(?<=\w)'(?=\w)", " '", text)


def lines_of(name: str, split: str, prompts: list[Prompt], times: list[tuple[float, float]]) -> list[str]:
    """The STM lines of a talk, with the quirks of its split."""
    texts = [apart(prompt.texts["en"]) for prompt in prompts]
    if split == "train":
        texts[:3] = [
            f"<unk> {texts[0]}",
            f"{texts[1]} {{NOISE}}",
            f"<sil> {texts[2]} ({name}-{times[2][0]:.2f}-{times[2][1]:.2f})",
        ]
        # a little more than what is said, so that neighbours overlap: 14.95 16.19, then 16.12 25.02
        spans = [(max(start - 0.23, 0), end + 0.23) for start, end in times]
        said = zip(spans, texts, strict=True)
        return [f"{name} 1 {name} {start:.2f} {end:.2f} <NA> {text}" for (start, end), text in said]
    person = re.sub(r"(?<=[a-z])(?=[A-Z])", "_" if split == "dev" else "", name.partition("_")[0])
    label, digits = ("<F0_M>", 2) if split == "dev" else ("<o,f0,female>", 3)
    lines, before = [';; LABEL "o" "Overall" "Overall results"'] if split == "test" else [], "0"
    for (start, end), text in zip(times, texts, strict=True):
        lines.append(f"{name} 1 inter_segment_gap {before} {start:.{digits}f} <o,,unknown> {NOT_SCORED}")
        lines.append(f"{name} 1 {person} {start:.{digits}f} {end:.{digits}f} {label} {text}")
        before = f"{end:.{digits}f}"
    return lines


def write_talk(folder: Path, name: str, split: str, prompts: list[Prompt]) -> None:
    """legacy/<split>/{sph,stm}/<name>; those of train are in data/ and linked."""
    samples, times = talk(prompts, "en")
    lines = lines_of(name, split, prompts, times)
    place = folder / ("data" if split == "train" else f"legacy/{split}")
    write_audio(place / f"sph/{name}.sph", samples, "NIST", "PCM_16")
    (place / "stm").mkdir(exist_ok=True)
    (place / f"stm/{name}.stm").write_text("".join(f"{line}\n" for line in lines))
    for kind in ("sph", "stm") if split == "train" else ():
        link = folder / f"legacy/train/{kind}/{name}.{kind}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(f"../../../data/{kind}/{name}.{kind}"))


def write_text(folder: Path, prompts: list[Prompt]) -> None:
    """LM/*.en.gz with `</s>` at the ends of lines; the dictionary, with letters for phones."""
    (folder / "LM").mkdir()
    texts = [apart(prompt.texts["en"]) for prompt in prompts]
    for number, name in enumerate(LM_FILES):
        lines = [f"{text} </s>\n" for text in texts[number :: len(LM_FILES)]] + ["the € 20 note </s>\n"]
        (folder / f"LM/{name}.en.gz").write_bytes(gzip.compress("".join(lines).encode()))
    words = sorted({word for prompt in prompts for word in prompt.texts["en"].split()})
    entries = [f"{word} {' '.join(letter.upper() for letter in word if letter.isalpha())}\n" for word in words]
    entries.insert(1, entries[0].replace(" ", "(2) ", 1))
    (folder / "TEDLIUM.152k.dic").write_text("".join(entries))


def write_ngrams(folder: Path, prompts: list[Prompt]) -> None:
    """Kaldi's ARPA files, each a 2-gram and a 3-gram of the texts."""
    folder.mkdir()
    (folder / "text").write_text("".join(f"{prompt.texts['en']}\n" for prompt in prompts))
    for archive, order in zip(NGRAMS, "23", strict=True):
        ngram(["train", "--text", f"{folder}/text", "--order", order, "--out", str(folder / archive.name)])
    (folder / "text").unlink()


def make(folder: Path) -> Path:
    """TEDLIUM_release-3/ with the talks of `TALKS`, and tedlium3-lm/, below `folder`; `folder`."""
    corpus = folder / FOLDER
    names = [(split, name) for split, talks in TALKS.items() for name in talks]
    spoken = share(read(shortest=1.2), {name: SPOKEN[split] for split, name in names})
    for split, name in names:
        write_talk(corpus, name, split, spoken[name])
    (corpus / "doc").mkdir()
    (corpus / "speaker-adaptation").mkdir()
    (corpus / "README").write_text("A miniature: made of the Asterisk core sounds, CC BY-SA 3.0.\n")
    learned = [prompt for name in TALKS["train"] for prompt in spoken[name]]
    write_text(corpus, learned)
    write_ngrams(folder / "tedlium3-lm", learned)
    return folder


if __name__ == "__main__":
    program(make, "tedlium3")
