"""Real utterances for miniatures of other corpora: Asterisk prompts with their texts in the languages asked for.

A miniature is a module with `make(folder, ...)`, which writes a few dozen of these in the exact layout of the corpus
that it stands for; `python -m tests.corpora.<corpus> --out <folder>` is what a recipe's `--mini` calls.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local.asterisk_prompts import NON_SPEECH, find_language, read_prompts
from tests.corpora.asterisk import real, shuffled
from utils.errors import run
from utils.options import Parser

RATE = 16000  # Hz


@dataclass(frozen=True)
class Prompt:
    """One prompt in several languages: `texts` as they are spoken (lower case, no punctuation), `raw` as written."""

    name: str
    texts: dict[str, str]
    raw: dict[str, str]
    files: dict[str, Path]

    def samples(self, language: str) -> np.ndarray:
        """(time,) int16 at 16 kHz of what is said in `language`."""
        import av

        with av.open(str(self.files[language]), format="g722") as container:
            return np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])


def read(languages: Sequence[str] = ("en",), shortest: float = 1.0, longest: float = 6.0) -> list[Prompt]:
    """All prompts that every one of `languages` speaks within these seconds, in an order that mixes them, always the
    same; no text comes twice."""
    source, by_language, files = real(), {}, {}
    for language in languages:
        listing, sounds = find_language(source, language)
        found = {str(path.relative_to(sounds).with_suffix("")): path for path in sounds.rglob("*.g722")}
        within = {name for name, path in found.items() if shortest <= path.stat().st_size / 8000 <= longest}
        known = read_prompts(listing, language, within)
        by_language[language] = {name: known[name] for name in within - NON_SPEECH if known[name].text}
        files[language] = found
    common = set.intersection(*map(set, by_language.values()))
    prompts, seen = [], set()
    for name in shuffled(common):
        texts = {language: by_language[language][name].text for language in languages}
        if texts[languages[0]] not in seen:
            raw = {language: by_language[language][name].raw for language in languages}
            prompts.append(Prompt(name, texts, raw, {language: files[language][name] for language in languages}))
        seen.add(texts[languages[0]])
    return prompts


def share(prompts: Sequence[Prompt], sizes: dict[str, int]) -> dict[str, list[Prompt]]:
    """`prompts` dealt out to splits of these sizes, one after the other; `ValueError` where there are too few."""
    if sum(sizes.values()) > len(prompts):
        raise ValueError(f"{sum(sizes.values())} prompts are wanted, there are {len(prompts)}")
    rest = iter(prompts)
    return {split: [next(rest) for _ in range(size)] for split, size in sizes.items()}


def talk(prompts: Sequence[Prompt], language: str, pause: float = 0.4) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Samples (time,) int16 of prompts one after the other, `pause` seconds between them, and (start, end) of each."""
    silence = np.zeros(int(pause * RATE), dtype=np.int16)
    parts, times, at = [silence], [], len(silence)
    for prompt in prompts:
        samples = prompt.samples(language)
        times.append((at / RATE, (at + len(samples)) / RATE))
        parts += [samples, silence]
        at += len(samples) + len(silence)
    return np.concatenate(parts), times


def write_audio(path: Path, samples: np.ndarray, form: str | None = None, subtype: str | None = None) -> None:
    """`samples` (time,) int16 at 16 kHz, in the format of the file's ending or in libsndfile's `form`."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, format=form, subtype=subtype)


def make_listener(folder: Path, texts: Sequence[str]) -> None:
    """`folder/whisper`, a Whisper of a few thousand random parameters that hears up to 7 s (conf/mini of recipes)."""
    from tests.steps.tiny_models import make_whisper

    make_whisper(folder / "whisper", texts, num_mel_bins=80, max_source_positions=350)


def make_models(folder: Path, texts: Sequence[str]) -> None:
    """`make_listener`'s, and `folder/llm`: a language model of as few."""
    from tests.steps.tiny_llm import make_llm

    make_listener(folder, texts)
    make_llm(folder / "llm", max_position_embeddings=512)


def program(make: Callable[[Path], object], corpus: str) -> None:
    """`python -m tests.corpora.<corpus> --out <folder>`: the miniature, written whole or not at all."""

    def main() -> None:
        parser = Parser(prog=f"python -m tests.corpora.{corpus}", description=f"{corpus} in miniature.")
        parser.add_argument("--out", type=Path, required=True, help="folder to make, instead of one that is there")
        out = parser.parse_args().out
        temporary = out.with_name(f".tmp-{out.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        make(temporary)
        shutil.rmtree(out, ignore_errors=True)
        temporary.rename(out)
        print(f"{out}: {sum(path.is_file() for path in out.rglob('*'))} files")

    run(main)
