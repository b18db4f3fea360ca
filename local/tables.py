"""Tables of utterances: TSV, CSV or JSON lines, with a row an utterance and columns that are known by their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from local.corpus import Unusable
from local.pipes import audio_file
from local.rows import LATIN, Given, Row, Splits, channel_of, put, seconds
from utils.errors import UserError, nearest
from utils.files import read_jsonl, read_lines

# the first that is there is taken; case, spaces and hyphens do not matter
ALIASES = {
    "audio": (
        "audio",
        "path",
        "file",
        "wav",
        "audio_path",
        "audio_file",
        "audio_filepath",
        "file_name",
        "filename",
        "clip",
    ),
    "text": ("text", "sentence", "transcript", "transcription", "src_text", "normalized_text"),
    "id": ("id", "utt_id", "utterance_id", "utterance"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk", "spk_id"),
    "language": ("language", "lang", "locale", "source_lang", "src_lang"),
    "start": ("start", "start_time", "begin", "offset"),
    "end": ("end", "end_time", "stop"),
    "duration": ("duration", "length"),  # of an utterance that begins at `start`; without it, what the file lasts
    "channel": ("channel",),
    "recording": ("recording", "recording_id"),
    "split": ("split", "subset", "partition"),
    "translation": ("translation", "tgt_text", "target", "target_text"),  # into --target
}
TRANSLATION = re.compile(r"(?i:translation[._]|text\.)([A-Za-z]{2,3}(?:[-_]\w+)?)")  # not Common Voice's sentence_id
ENDINGS = (".tsv", ".csv", ".txt", ".jsonl")


def is_table(path: Path) -> bool:
    """Whether a file is named like one; what is hidden is not."""
    return path.name.removesuffix(".gz").endswith(ENDINGS) and path.is_file() and not path.name.startswith(".")


def read_rows(path: Path, given: Given) -> Splits:
    """The utterances of a table by split; `UserError` where a column is missing or the whole is malformed."""
    lines = _json_lines(path) if path.name.removesuffix(".gz").endswith(".jsonl") else _cells(path)
    (_, header), *content = lines
    columns = find_columns(path, list(header), given)
    splits: Splits = {}
    for number, cells in content:
        where = f"{path}, line {number}"
        if len(cells) != len(header) and isinstance(header, list):
            wrong = f"{where} has {len(cells)} fields, the header has {len(header)}."
            splits.setdefault("", {})[f"line {number}"] = Unusable("corrupt", wrong)
            continue
        values = cells if isinstance(cells, dict) else dict(zip(header, cells, strict=True))
        try:
            row = _row(values, columns, path, where, given)
        except Unusable as error:
            splits.setdefault("", {})[f"line {number}"] = error
            continue
        put(splits.setdefault(row.split or "", {}), row.id, row, where)
    return splits


# ---- lines


def _json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object); first all keys there are, as the header."""
    rows = list(read_jsonl(path))
    wrong = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if wrong or not rows:
        raise UserError(f"{path} has no object in line {wrong or 1}: write one {{...}} a line, an utterance each.")
    rows = [_flat(row) for row in rows]
    yield 0, dict.fromkeys(key for row in rows for key in row)
    yield from enumerate(rows, 1)


def _flat(row: dict) -> dict:
    """{"translation": {"fr": "oui"}} as {"translation.fr": "oui"}."""
    flat = {key: value for key, value in row.items() if not isinstance(value, dict)}
    return flat | {
        f"{key}.{name}": value for key, inner in row.items() if isinstance(inner, dict) for name, value in inner.items()
    }


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a table, the header first."""
    lines = list(read_lines(path, LATIN))
    if sum(map(bool, map(str.strip, lines))) < 2:
        raise UserError(f"{path} has no rows: a line with the columns' names comes first, then one for each utterance.")
    delimiter = max("\t,;|", key=lines[0].count)
    if delimiter == "\t" and not _quoted_tsv(lines):
        yield from ((number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip())
        return
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if any(cells))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: a quotation mark is not closed, or not doubled within quotes ({error}): "
            "correct it, or write tabs (.tsv), where quotation marks are letters like others."
        ) from None


def _quoted_tsv(lines: list[str]) -> bool:
    """Whether a table with tabs has CSV's quotes, as pandas writes them, not marks of texts, as Common Voice has.

    All fields with a mark begin and end with one and double those within; and some do double, or the header has marks.
    """
    marked = [field for line in lines for field in line.split("\t") if '"' in field]
    if not marked or not all(re.fullmatch(r'"(?:[^"]|"")*"', field) for field in marked):
        return False
    return any('""' in field[1:-1] for field in marked) or '"' in lines[0]


# ---- columns


def find_columns(path: Path, header: list[str], given: Given) -> dict[str, str]:
    """{what it is: the column's name}, translations as "translation.<language>"; `UserError` for a missing one."""
    for what, name in given.columns.items():
        if what not in ALIASES and not TRANSLATION.fullmatch(what):
            raise UserError(
                f"--columns {what}={name}: '{what}'{nearest(what, ALIASES)} is none of {', '.join(ALIASES)}."
            )
        if name not in header:
            raise UserError(f"{path} has no column '{name}'{nearest(name, header)}: it has {', '.join(header)}.")
    names = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in reversed(header)}
    found = {what: next((names[alias] for alias in aliases if alias in names), "") for what, aliases in ALIASES.items()}
    found |= {f"translation.{match[1]}": name for name in header if (match := TRANSLATION.fullmatch(name.strip()))}
    found |= given.columns
    plain = found.pop("translation")
    if plain and given.target:
        found.setdefault(f"translation.{given.target}", plain)
    found = {what: name for what, name in found.items() if name}
    _check(path, found, header, given)
    return found


def _check(path: Path, found: Mapping[str, str], header: list[str], given: Given) -> None:
    wanted = ["audio", f"translation.{given.target}" if given.target else "text"]
    if missing := next((what for what in wanted if what not in found), None):
        near = nearest(missing, [name for name in header if name not in found.values()])
        aliases = ALIASES.get(missing, (missing, "translation"))
        raise UserError(
            f"{path} has no column '{missing}'{near}: it has {', '.join(header)}; name it one of {', '.join(aliases)}, "
            f"or say which it is with --columns {missing}=<column>."
        )
    if twice := next((name for name in found.values() if header.count(name) > 1), None):
        raise UserError(f"{path} has several columns '{twice}': give them different names.")
    if "end" in found and "start" not in found:
        raise UserError(
            f"{path} has a column '{found['end']}' and none for where utterances begin: name it one of "
            f"{', '.join(ALIASES['start'])}, or say which it is with --columns start=<column>."
        )
    print(f"{path}: " + ", ".join(f"{what} is column '{name}'" for what, name in found.items()))


# ---- rows


def _row(values: Mapping[str, object], columns: Mapping[str, str], path: Path, where: str, given: Given) -> Row:
    """One row; `Unusable` where it names no file or no time."""
    cell = {what: _text(values.get(name), where) for what, name in columns.items()}
    if not cell["audio"]:
        raise Unusable("no audio", f"{where} names no audio file.")
    audio = cell["audio"]
    file = audio_file(audio, cell.get("id") or Path(where).name, where, path.parent, given)
    start, end = _times(cell, where)
    named = Path(audio).with_suffix("").parts
    stem = named[-1] if Path(audio).is_absolute() else "-".join(part for part in named if part != "..")
    whole = start == 0 and end is None
    key = cell.get("id") or (stem if whole else f"{stem}-{round(start * 100):07d}")
    return Row(
        key,
        file,
        cell.get("recording") or (key if whole else stem),
        cell.get("text", ""),
        {what.partition(".")[2]: text for what, text in cell.items() if what.startswith("translation.") and text},
        cell.get("speaker") or None,
        cell.get("language") or None,
        start,
        end,
        channel_of(cell.get("channel", ""), where),
        cell.get("split") or None,
    )


def _text(value: object, where: str) -> str:
    if isinstance(value, list):
        raise Unusable("corrupt", f"{where} has a list where a text belongs.")
    return "" if value is None else " ".join(str(value).split())


def _times(cell: Mapping[str, str], where: str) -> tuple[float, float | None]:
    """(start, end) in seconds. A duration counts only beside a start: alone it says what the file lasts."""
    start = seconds(cell.get("start") or "0", where)
    if cell.get("end"):
        return start, seconds(cell["end"], where)
    if cell.get("duration") and cell.get("start"):
        return start, round(start + seconds(cell["duration"], where), 8)
    return start, None
