"""The Mboshi-French corpus in miniature: in the real files' exact layout, of made-up sentences or of Italian prompts.

A made-up sentence is a subject, a verb and an object, every letter a tone; its "Mboshi" says the same words in another
order, so that both the recogniser and the translation can be learned from a few dozen utterances.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from local.mboshi import CLONE
from tests.corpora.prompts import make_models, program, read

RATE = 16000  # Hz
SUBJECTS = {"L'enfant": "mwána", "Le chef du village": "kani", "Mon père": "taá", "Elle": "wó", "Ongonda": "Ongonda"}
VERBS = {"mange": "adzá", "a vu": "amitέέ", "n'aime pas": "asilingá", "cherche": "ayaré"}
OBJECTS = {"l'eau": "m'ándzá", "le manioc": "bengé", "la pirogue": "bwátω", "le porc-épic": "ngómba"}
SESSIONS = ("abena_2015-09-08-11-18-39", "koffi_2015-08-13-13-48-39", "malik_2015-09-07-14-49-43")


def sentences() -> list[tuple[str, str]]:
    """All (Mboshi, French) sentences, in an order that mixes them, the same each time."""
    made = []
    for number, (subject, verb, thing) in enumerate(product(SUBJECTS, VERBS, OBJECTS)):
        mboshi = f"{OBJECTS[thing]} {VERBS[verb]} {SUBJECTS[subject]}"
        french = f"{subject} {verb} {thing}" + (". " if number % 5 == 0 else "")
        french = french.replace("village", "vil- lage") if number % 2 else french
        french = french[0].lower() + french[1:] if number % 7 == 0 else french
        made.append((mboshi[0].upper() + mboshi[1:], french))
    random.Random(0).shuffle(made)
    return made


def clean_mboshi(text: str) -> str:
    """As the authors' .mb.cleaned: lower case, no apostrophes."""
    return text.lower().replace("'", " ").strip()


def clean_french(text: str) -> str:
    """As the authors' .fr.cleaned: spelling put right, lower case, Moses' tokens and entities."""
    text = text.lower().replace("vil- lage", "village")
    text = re.sub(r"([.,:;])", r" \1", text)
    return re.sub(r"(?<=\w)'(?=\w)", "&apos; ", text)


def say(text: str, rng: np.random.Generator) -> np.ndarray:
    """Samples (time,) of `text`: 60 ms a letter, each letter with two tones of its own, in a little noise."""
    parts = []
    time = np.arange(int(0.06 * RATE)) / RATE
    for letter in clean_mboshi(text):
        low, high = 200 + 37 * (ord(letter) % 29), 1500 + 97 * (ord(letter) % 23)
        tone = (
            np.zeros_like(time) if letter == " " else np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)
        )
        parts.append(0.2 * tone * np.hanning(len(time)))
    samples = np.concatenate([np.zeros(1600), *parts, np.zeros(1600)])
    return (samples + rng.normal(0, 0.002, len(samples))).astype(np.float32)


def make(
    folder: Path,
    train: int = 36,
    dev: int = 12,
    audio: str = "wav",
    pairs: Sequence[tuple[str, str]] | None = None,
    voice: Callable[[str], np.ndarray] | None = None,
) -> Path:
    """Write `train` (2 or more) and `dev` (4 or more) utterances below `folder`, as "wav" or as "opus"; `folder`.

    They are `pairs` of a Mboshi and a French text, which `voice` speaks, given the French one.

    The traps of the real corpus are in it: carriage returns, spelling that only .cleaned has right, a sentence without
    a capital, a sentence recorded twice, and two references of dev that are also in train.
    """
    rng = np.random.default_rng(0)
    made = pairs or sentences()
    spoken = {"train": made[:train], "dev": made[train : train + dev]}
    spoken["dev"][:2] = [(f"Pέ {mboshi.lower()}", french) for mboshi, french in made[train - 2 : train]]
    spoken["dev"][-1] = spoken["dev"][-2]
    kind = {"format": "OGG", "subtype": "OPUS"} if audio == "opus" else {"format": "WAV", "subtype": "PCM_16"}
    for split, own in spoken.items():
        place = folder / "full_corpus_newsplit" / split
        place.mkdir(parents=True)
        for number, (mboshi, french) in enumerate(own):
            session = SESSIONS[number * len(SESSIONS) // len(own)]
            key = f"{session}_samsung-SM-T530_mdw_elicit_{'Dico18' if split == 'train' else 'Part1'}_{number + 1}"
            cleaned = clean_french(french.strip())
            texts = {
                "mb": mboshi,
                "mb.cleaned": clean_mboshi(mboshi),
                "mb.cleaned.split": " ".join(clean_mboshi(mboshi).replace(" ", "")),
                "fr": french + ("\r" if number % 3 else ""),
                "fr.cleaned": cleaned,
                "fr.cleaned.noPunct": re.sub(r" [.,:;]", "", cleaned),
            }
            for ending, text in texts.items():
                (place / f"{key}.{ending}").write_bytes(f"{text}\n".encode())
            samples = voice(french) if voice else say(mboshi, rng)
            soundfile.write(place / f"{key}.{audio}", samples, RATE, **kind)
    (folder / "README.md").write_text("# mboshi-french-parallel-corpus\n\nA miniature of it, made up.\n")
    return folder


def make_of_prompts(folder: Path) -> None:
    """Italian prompts for Mboshi, a Whisper and a language model that were never trained."""
    prompts = {prompt.raw["fr"]: prompt for prompt in read(("fr", "it"), longest=5.0)}
    pairs = [(prompt.raw["it"], french) for french, prompt in prompts.items()]
    make(folder / CLONE, 72, 12, "wav", pairs, lambda french: prompts[french].samples("it"))
    make_models(folder, list(prompts))


if __name__ == "__main__":
    program(make_of_prompts, "mboshi")
