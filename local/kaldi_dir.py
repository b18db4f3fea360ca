"""Kaldi's data directories (https://kaldi-asr.org/doc/data_prep.html), ESPnet's with translations included.

Files: `wav.scp`, `text`, and if there are any `segments`, `utt2spk`, `utt2lang`, `text.<language>`; ESPnet's
`text.tc.<language>`, `text.lc.<language>`, `text.lc.rm.<language>` (egs2/must_c/st1/local/data.sh) are the same in true
case, in lower case, and without punctuation: the first of these that is there is taken. With `--language en`,
`text.*.en` goes before `text`, which in ESPnet's translation recipes is the target's. `spk2utt` is not read.

Lhotse's `load_kaldi_data_dir` is not used: it takes all recordings to have the rate that it is told, rounds their
lengths down to milliseconds, knows no translations, channels or paths relative to the directory, stops at an utterance
that one of the files lacks, and takes the later of two lines with one id. It is right in the rest; an end of -1, the
recording's, and the channel as a fifth word of segments are of Kaldi's extract-segments.
"""

from __future__ import annotations

import re
from pathlib import Path

from local.corpus import Unusable
from local.pipes import audio_file
from local.rows import LATIN, Given, Row, Rows, channel_of, put, seconds
from utils.errors import UserError
from utils.files import read_lines

CASES = ("tc", "", "lc", "lc.rm")  # of ESPnet's texts, the best first
OFFSET = re.compile(r"\.\S+:\d+(\[[\d:,]*\])?$")  # wav.ark:1234 and wav.ark:1234[0:160]
Lines = dict[str, "str | Unusable"]


def read_table(path: Path) -> Lines:
    """The rest of each line by its first word, `Unusable` for several that differ; nothing where there is no file.

    `UserError` for a file without lines.
    """
    found: Lines = {}
    if not path.exists():
        return found
    for line in read_lines(path, LATIN):
        if words := re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1):
            key, value = words[0], words[1] if len(words) > 1 else ""
            if key and found.setdefault(key, value) != value:
                found[key] = Unusable("duplicate id", f"{path} has several lines for '{key}', and they differ.")
    if not found:
        raise UserError(f"{path} is empty: write its lines, or remove it if the data have none.")
    if list(found) != sorted(found):
        print(f"{path} is not in the order of 'LC_ALL=C sort', which Kaldi needs and this does not")
    return found


def read_data_dir(folder: Path, given: Given) -> Rows:
    """Rows of a directory by utterance; one that a file of it lacks is unusable, as for Kaldi's fix_data_dir.sh."""
    recordings, segments = read_table(folder / "wav.scp"), read_table(folder / "segments")
    texts, translations = read_texts(folder, given)
    speakers, languages = read_table(folder / "utt2spk"), read_table(folder / "utt2lang")
    if not speakers:
        print(f"{folder} has no utt2spk: who speaks is taken to be unknown")
    audio = {key: _audio(folder, key, value, given) for key, value in recordings.items()}
    spoken = segments or dict.fromkeys(recordings, "")
    listing = folder / ("segments" if segments else "wav.scp")
    rows: Rows = {}
    for key in sorted({*spoken, *texts, *speakers}):
        try:
            text = _look_up(texts, key, folder / "text", "no text") if texts else ""
            place = _look_up(spoken, key, listing, "no audio")
            recording, times = _place(key, place, listing) if segments else (key, {})
            row = Row(
                key,
                _look_up(audio, recording, folder / "wav.scp", "no audio"),
                recording,
                text,
                {language: line for language, lines in translations.items() if (line := _use(lines.get(key, "")))},
                _look_up(speakers, key, folder / "utt2spk", "no speaker") if speakers else None,
                _use(languages.get(key, "")) or None,
                **times,
            )
        except Unusable as error:
            row = error
        put(rows, key, row, str(folder))
    return rows


def read_texts(folder: Path, given: Given) -> tuple[Lines, dict[str, Lines]]:
    """(transcripts, {language: translations}); `UserError` where it is not clear which file has the transcripts."""
    by_language: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("text.*")):
        case, _, language = path.name.partition(".")[2].rpartition(".")
        if case in CASES and re.fullmatch(r"[A-Za-z]{2,3}([-_]\w+)?", language):
            by_language.setdefault(language, {})[case] = path
    best = {language: next(by[case] for case in CASES if case in by) for language, by in by_language.items()}
    own = best.pop(given.language, None) if given.language and given.language != given.target else None
    if own is None and (folder / "text").exists():
        own = folder / "text"
    if own is None and (not best or not given.target):
        names = ", ".join(path.name for path in best.values())
        raise UserError(
            f"{folder} has no text: " + (f"of {names}, say with --language which is spoken." if names else "add it.")
        )
    return read_table(own) if own else {}, {language: read_table(path) for language, path in best.items()}


def _use(value):
    """`value`; raised if it is what is wrong with it."""
    if isinstance(value, Unusable):
        raise value
    return value


def _look_up(lines: dict, key: str, path: Path, reason: str):
    if key not in lines:
        raise Unusable(reason, f"{path} lacks '{key}'.")
    return _use(lines[key])


def _place(key: str, line: str, path: Path) -> tuple[str, dict]:
    """(recording, start, end and channel) of a line of segments without its id."""
    words = line.split()
    if len(words) not in (3, 4):
        raise Unusable("corrupt", f"{path}: '{key} {line}' is not 'utterance recording start end'.")
    start, end = (seconds(word, f"{path}, '{key}'") for word in words[1:3])
    channel = channel_of(words[3] if len(words) == 4 else "", f"{path}, '{key}'")
    return words[0], {"start": start, "end": None if end == -1 else end, "channel": channel}


def _audio(folder: Path, key: str, entry: str | Unusable, given: Given) -> Path | Unusable:
    """The file that an entry of wav.scp names; `UserError` for a place in an archive, or a command that may not run."""
    if isinstance(entry, Unusable):
        return entry
    where = f"{folder / 'wav.scp'}, '{key}'"
    if OFFSET.search(entry.strip()):
        raise UserError(
            f"{where}: {entry} is a place in an archive, not a file: write it as a file "
            f"(Kaldi's 'wav-copy {entry} {key}.wav' does) and name that."
        )
    return audio_file(entry, key, where, folder, given)
