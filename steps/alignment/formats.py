"""Alignments as files: Lhotse's cuts, CTM (NIST), TextGrid (Praat), subtitles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhotse import MonoCut
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy
from praatio import textgrid
from praatio.utilities.constants import Interval

from steps.alignment.times import Aligned
from steps.subtitles import word_subtitles
from utils.files import atomic_path, write_jsonl, write_text

FORMATS = ("cuts", "ctm", "textgrid", "srt", "vtt")


@dataclass
class Row:
    """An utterance: its cut, the text that was aligned, and where it is; `between` stands between two words."""

    cut: MonoCut
    text: str
    aligned: Aligned
    between: str = " "


def write_alignments(out: Path, name: str, rows: Sequence[Row], formats: Iterable[str]) -> list[Path]:
    """Write `cuts.jsonl.gz`, `<name>.ctm`, and an `<id>.TextGrid`, `.srt`, `.vtt` each in folders; what was written."""
    written = []
    for form in formats:
        if form == "cuts":
            written.append(out / "cuts.jsonl.gz")
            write_jsonl(written[-1], (aligned_cut(row).to_dict() for row in rows))
        elif form == "ctm":
            written.append(out / f"{name}.ctm")
            write_text(written[-1], "".join(ctm(rows)))
        else:
            written.append(out / form)
            for row in rows:
                _write_one(out / form / file_name(row.cut.id), row, form)
    return written


def file_name(name: str) -> str:
    """An utterance's id as the name of a file."""
    return name.replace("/", "_")


def aligned_cut(row: Row) -> MonoCut:
    """The cut with `alignment["word"]` and `["token"]`, seconds from the cut's beginning, and the text aligned."""
    alignment = {"word": row.aligned.words, "token": row.aligned.tokens}
    supervision = row.cut.supervisions[0]
    merged = {**(supervision.alignment or {}), **alignment}
    return fastcopy(row.cut, supervisions=[fastcopy(supervision, text=row.text, alignment=merged)])


def ctm(rows: Iterable[Row]) -> list[str]:
    """`recording channel start duration word confidence` lines, by recording, channel and time, as NIST's sclite
    wants them; seconds from the recording's beginning."""
    lines = []
    for row in rows:
        channel = row.cut.channel if isinstance(row.cut.channel, int) else 0
        for word in row.aligned.words:
            start = row.cut.start + word.start
            shown = f"{start:.3f} {word.duration:.3f} {word.symbol} {word.score:.4f}\n"
            lines.append((row.cut.recording_id, channel, start, f"{row.cut.recording_id} {channel + 1} {shown}"))
    return [line for *_, line in sorted(lines)]


def _write_one(path: Path, row: Row, form: str) -> None:
    """The file of one utterance; `path` without suffix."""
    if form != "textgrid":
        write_text(path.with_name(f"{path.name}.{form}"), word_subtitles(row.aligned.words, row.between, form))
        return
    grid = textgrid.Textgrid(0.0, row.cut.duration)
    for kind, items in (("words", row.aligned.words), ("tokens", row.aligned.tokens)):
        intervals = _apart(items, row.cut.duration)
        if intervals:
            grid.addTier(textgrid.IntervalTier(kind, intervals, 0.0, row.cut.duration))
    with atomic_path(path.with_name(f"{path.name}.TextGrid")) as temporary:
        grid.save(str(temporary), format="long_textgrid", includeBlankSpaces=True)


def _apart(items: Sequence[AlignmentItem], duration: float) -> list[Interval]:
    """Intervals inside of the utterance, none of which reaches into the next or is nothing."""
    found: list[Interval] = []
    for item in items:
        start = max(item.start, found[-1].end if found else 0.0)
        end = min(item.end, duration)
        if end > start:
            found.append(Interval(start, end, item.symbol))
    return found
