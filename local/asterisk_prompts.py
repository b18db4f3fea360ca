"""Asterisk's prompt lists: finding them, reading them, and repairing what is known to be wrong in them.

A list holds one `prompt: text` a line. What the real ones also hold: a byte order mark, `;` comments, a prompt twice
(the first one counts), prompts named differently from their audio file, two lines run together, letters lost to a
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

SECOND = " (again)"  # marks the second line for a prompt
# Lines that are filed under another name than their audio file, by language: {audio file: name in the list}.
FILED_UNDER = {
    "es": {
        "confbridge-lock-out": "confbridge-lock-out-0",
        "digits/10": f"digits/0{SECOND}",
        "digits/1F": "digits/1f",
        "digits/1M": "digits/1m",
        "digits/20-and": "digits/21-and",
    },
    "fr": {"confbridge-lock-out": "confbridge-lock-out-0"},
    "it": {"letters/o": "letters/O", "phonetic/c_p": "phonetic/C_P"},
}
# Remarks in brackets that are spoken all the same (found with a recogniser; all others are not).
SPOKEN = ("(ne m'appelez plus, jamais)", "(статус)", "(IAX)")
# Files that do not say their line (found with a recogniser): what they say. French eightieth is a slip of the list.
CORRECTED = {
    "es": {
        "dir-intro": "Bienvenido al directorio. Por favor marque las tres primeras letras del apellido de la persona "
        "que usted busca en su teclado. Use el número 7 para la Q y el número 9 para la Z.",
        "followme/options": "Presione 1 para aceptar la llamada o presione 2 para rechazarla.",
        "letters/exclaimation-point": "punto de exclamación",
        "vm-instructions": "Presione el número 1 para escuchar sus mensajes. Presione la tecla de número para "
        "terminar en cualquier momento.",
        "vm-invalid-password": "La contraseña no cumple los requisitos mínimos para este correo de voz.",
        "vm-mismatch": "Las contraseñas que usted tecleó no coinciden.",
        "vm-nomore": "No hay más mensajes.",
        "vm-options": "Marque 1 para grabar sus mensajes que en este momento no está libre. Marque 2 para grabar su "
        "mensaje de ocupado. Marque 3 para grabar su nombre. Presione 4 para la configuración del saludo temporal. "
        "Marque 5 para cambiar su contraseña. Marque el asterisco para volver a las opciones principales.",
        "vm-record-prepend": "Presione 4 para la configuración del saludo temporal. Al escuchar el tono, por favor "
        "grabe la introducción para el mensaje re-enviado. Al terminar, presione el signo de gato.",
    },
    "fr": {
        "digits/h-80": "quatre-vingtième",
        "vm-mismatch": "Les mots de passe que vous avez entrés ne correspondent pas.",
    },
    "it": {
        "conf-muted": "Voce disattivata.",
        "please-try-call-later": "Per piacere riprova ancora la tua chiamata più tardi.",
        "vm-then-pound": "Poi premere cancelletto.",
    },
}
# Italian letters that became question marks; a question mark between blanks was the verb è.
_ITALIAN = [(r"\bsar\?", "sarà"), (r"\bpu\?", "può"), (r"\bcos\?", "così"), (r"\bpi\?", "più"), (r" \?(?= \w)", " è")]
_ITALIAN = [(re.compile(pattern), repair) for pattern, repair in _ITALIAN]
# "Marque 1 para ..., 2 para ... o 3 para ..." is spoken "marque el número 1 para ..., número 2 ... o número 3 ...".
_SPANISH = [
    (r"(?<=, )([1-9]) (?=para|o [1-9] para)", r"número \1 "),
    (r"(?<!\d )\b[ou] ([1-9]) (?=para)", r"o número \1 "),
    (r"\b([Mm]arque) ([1-9])\b", r"\1 el número \2"),
]
_SPANISH = [(re.compile(pattern), spoken) for pattern, spoken in _SPANISH]
_LINE = re.compile(r"([\w/-]+):(.*)")
_INNER_PROMPT = re.compile(r"(?:^|(?<=[\s.]))(\w[\w/]*-[\w-]+): ")


@dataclass(frozen=True)
class Prompt:
    """One prompt in one language: its line as it stands, and the normalised text ("" where it has no speech)."""

    raw: str
    text: str


def find_language(corpus: Path, language: str) -> tuple[Path | None, Path | None]:
    """(prompt list, folder of sounds) of a language in a folder of unpacked Debian packages or upstream archives."""
    docs = corpus / "usr/share/doc" / f"asterisk-core-sounds-{language}"
    voices = sorted((corpus / "usr/share/asterisk/sounds").glob(f"{language}_*"))
    voices = [voice for voice in voices if any(voice.glob("*.g722"))] or voices
    folders = [(docs, voices[0] if voices else None), (corpus / language, corpus / language)]
    for folder, sounds in folders:
        for name in (f"core-sounds-{language}.txt.gz", f"core-sounds-{language}.txt"):
            if (folder / name).exists():
                return folder / name, sounds
    return None, next((sounds for _, sounds in folders if sounds and sounds.is_dir()), None)


def read_lines(path: Path) -> dict[str, str]:
    """{prompt: text as it stands} of a prompt list, plain or gzipped; a second line for a prompt is marked `SECOND`."""
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
        raw.setdefault(match[1] + (SECOND if match[1] in raw else ""), match[2].strip())
    return raw


def repair(prompt: str, text: str, language: str, prompts: set[str]) -> str:
    """`text` without other prompts' lines run into it, lost Italian letters put back, long numbers digit by digit."""
    for match in _INNER_PROMPT.finditer(text):
        if match[1] == prompt and match.start() == 0:
            return repair(prompt, text[match.end() :], language, prompts)
        if match[1] in prompts:
            text = text[: match.start()]
            break
    if language == "it":
        for pattern, letters in _ITALIAN:
            text = pattern.sub(letters, text)
    if language == "es" and re.search(r"\b[Mm]arque [1-9]\b", text):
        for pattern, spoken in _SPANISH:
            text = pattern.sub(spoken, text)
    for remark in SPOKEN:
        text = text.replace(remark, remark[1:-1])
    text = re.sub(r"\d{4,}", lambda number: " ".join(number[0]), text)  # extensions and passwords
    return text.strip()


def read_prompts(path: Path, language: str, audio: set[str]) -> dict[str, Prompt]:
    """The prompts of a list, and with empty text those of the `audio` files beside it that the list does not have."""
    lines = read_lines(path)
    names = set(lines)
    for name, source in FILED_UNDER.get(language, {}).items():
        if name not in lines and source in lines:
            lines[name] = lines.pop(source)
    lines = {name: text for name, text in lines.items() if not name.endswith(SECOND)}
    lines |= dict.fromkeys(sorted(audio - lines.keys()), "")
    prompts = {}
    for name, raw in lines.items():
        text = "" if name in NON_SPEECH else CORRECTED.get(language, {}).get(name, raw)
        spoken = normalise(repair(name, text, language, names), language)
        prompts[name] = Prompt(raw, correct(spoken, language))
    return prompts
