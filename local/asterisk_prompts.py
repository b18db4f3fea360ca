"""Asterisk's prompt lists: finding them, reading them, and repairing what is known to be wrong in them.

A list holds one `prompt: text` a line. What the real ones also hold: a byte order mark, `;` comments, a prompt twice
(the first one counts), prompts spelt in another case than their audio file, two lines run together, letters lost to a
wrong encoding, descriptions of sounds with and without brackets.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

from local.asterisk_spelling import correct
from local.text import normalise
from utils.errors import UserError

# The prompts that are a sound and no speech in every language, also where a list describes them without brackets.
NON_SPEECH = {
    *("ascending-2tone", "descending-2tone", "beep", "beeperr", "confbridge-join", "confbridge-leave", "tt-monkeys"),
    *(f"silence/{seconds}" for seconds in range(1, 11)),
}

# Audio files whose line is filed under another prompt, by language and audio file.
FILED_UNDER = {
    "es": {"confbridge-lock-out": "confbridge-lock-out-0", "digits/20-and": "digits/21-and"},
    "fr": {"confbridge-lock-out": "confbridge-lock-out-0"},
}
# Lines that are lost or wrong: Spanish ten is a second "digits/0", French eightieth is a copy of seventieth.
CORRECTED = {
    "es": {"digits/10": "diez"},
    "fr": {"digits/h-80": "quatre-vingtième"},
}
# Italian letters that became question marks; a question mark between blanks was the verb è.
_ITALIAN = [(r"\bsar\?", "sarà"), (r"\bpu\?", "può"), (r"\bcos\?", "così"), (r"\bpi\?", "più"), (r" \?(?= \w)", " è")]
_ITALIAN = [(re.compile(pattern), repair) for pattern, repair in _ITALIAN]
_LINE = re.compile(r"([\w/-]+):(.*)")
_INNER_PROMPT = re.compile(r"(?:^|(?<=[\s.]))(\w[\w/]*-[\w-]+): ")


@dataclass(frozen=True)
class Prompt:
    """One prompt in one language: its line as it stands, and the normalised text ("" where it has no speech)."""

    raw: str
    text: str


def find_language(corpus: Path, language: str) -> tuple[Path, Path] | None:
    """(prompt list, folder of sounds) of a language in a folder of unpacked Debian packages or upstream archives."""
    docs = corpus / "usr/share/doc" / f"asterisk-core-sounds-{language}"
    voices = sorted((corpus / "usr/share/asterisk/sounds").glob(f"{language}_*"))
    voices = [voice for voice in voices if any(voice.glob("*.g722"))] or voices
    for name in (f"core-sounds-{language}.txt.gz", f"core-sounds-{language}.txt"):
        if (docs / name).exists() and voices:
            return docs / name, voices[0]
        if (corpus / language / name).exists():
            return corpus / language / name, corpus / language
    return None


def read_lines(path: Path) -> dict[str, str]:
    """{prompt: text as it stands} of a prompt list, plain or gzipped; the first of two lines for one prompt counts."""
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig").splitlines()
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): download it again.") from None
    raw: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";"):
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise UserError(f"{path}, line {number} is not of the form 'prompt: text': {line.strip()[:60]!r}.")
        raw.setdefault(match[1], match[2].strip())
    return raw


def repair(prompt: str, text: str, language: str, prompts: set[str]) -> str:
    """`text` without other prompts' lines run into it, with lost Italian letters put back."""
    for match in _INNER_PROMPT.finditer(text):
        if match[1] == prompt and match.start() == 0:
            return repair(prompt, text[match.end() :], language, prompts)
        if match[1] in prompts:
            text = text[: match.start()]
            break
    if language == "it":
        for pattern, letters in _ITALIAN:
            text = pattern.sub(letters, text)
    return text.strip()


def read_prompts(path: Path, language: str, audio: set[str]) -> dict[str, Prompt]:
    """The prompts of a list and of the `audio` files beside it, in the case of the audio files' names."""
    raw = read_lines(path)
    spelt = {name.casefold(): name for name in sorted(audio, reverse=True)}
    names = {key: key if key in audio else spelt.get(key.casefold(), key) for key in raw}
    lines = {names[key]: repair(key, text, language, set(raw)) for key, text in raw.items()}
    for name, source in FILED_UNDER.get(language, {}).items():
        if name not in lines and source in lines:
            lines[name] = lines.pop(source)
    for name, text in CORRECTED.get(language, {}).items():
        if name in audio:
            lines[name] = text
    for name in audio - lines.keys():
        lines[name] = ""
    return {
        name: Prompt(text, "" if name in NON_SPEECH else correct(normalise(text, language), language))
        for name, text in lines.items()
    }
