"""The Asterisk corpus in miniature: real prompts in the layout of the real, unpacked packages."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import shutil
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from local.asterisk import download
from local.asterisk_prompts import NON_SPEECH, find_language, read_lines, read_prompts
from local.text import LANGUAGES

CACHE = Path(__file__).parents[1] / ".cache" / "asterisk"
LONGEST = 5.0  # seconds of a prompt, in every language


def real(folder: Path = CACHE) -> Path:
    """The folder of the whole real corpus, downloaded on first use; `UserError` where it cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:  # two test runs at a time share the cache
        fcntl.flock(lock, fcntl.LOCK_EX)
        download(Namespace(out=str(folder), languages=list(LANGUAGES), source="auto"))
    return folder


def choose(corpus: Path, count: int) -> list[str]:
    """`count` prompts that every language speaks within `LONGEST` seconds, the same ones each time, of all kinds."""
    common: set[str] | None = None
    for language in LANGUAGES:
        listing, sounds = find_language(corpus, language)
        short = {
            str(path.relative_to(sounds).with_suffix(""))
            for path in sounds.rglob("*.g722")
            if path.stat().st_size <= LONGEST * 8000
        }
        prompts = read_prompts(listing, language, short)
        spoken = {name for name in read_lines(listing) if name in short and prompts[name].text} - NON_SPEECH
        common = spoken if common is None else common & spoken
    return shuffled(common)[:count]


def shuffled(names: Iterable[str]) -> list[str]:
    """`names` in an order that mixes them, the same each time."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def make(
    folder: Path,
    languages: tuple[str, ...] = tuple(LANGUAGES),
    prompts_per_language: int = 30,
    source: Path | None = None,
) -> Path:
    """Copy `prompts_per_language` real prompts, the same in each of `languages`, to `folder`; `folder`.

    `python -m local.asterisk manifests --corpus folder` works on the result as on the whole corpus.
    """
    source = source or real()
    chosen = choose(source, prompts_per_language)
    for language in languages:
        listing, sounds = find_language(source, language)
        kept = [
            line
            for line in gzip.decompress(listing.read_bytes()).decode().splitlines()
            if line.lstrip("\ufeff").startswith(";") or line.partition(":")[0] in chosen
        ]
        target = folder / listing.relative_to(source)
        target.parent.mkdir(parents=True)
        target.write_bytes(gzip.compress("\n".join([*kept, ""]).encode()))
        for name in chosen:
            audio = sounds / f"{name}.g722"
            copy = folder / audio.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(audio, copy)
    return folder


def make_with_models(folder: Path) -> None:
    """The corpus, and a Whisper and a language model of a few thousand parameters that were never trained."""
    make(folder)
    make_models(folder, ["thank you for calling", "merci de votre appel", "please enter the extension", "boîte vocale"])


if __name__ == "__main__":
    from tests.corpora.prompts import make_models, program  # they are made of this corpus

    program(make_with_models, "asterisk")
