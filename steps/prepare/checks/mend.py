"""`--fix`: what Kaldi's fix_data_dir.sh does, for manifests and cuts; the old files are kept in `.backup`."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lhotse import Recording, SupervisionSegment

from steps.prepare.checks.cuts import Archives
from steps.prepare.checks.manifests import CLOSE
from steps.prepare.checks.words import tidy
from steps.prepare.manifests import link_fault, manifest_paths, typed_rows
from steps.prepare.usable import TOLERANCE, texts_of
from utils.errors import UserError
from utils.files import atomic_path, read_jsonl, require, write_jsonl

Done = Counter[str]  # what was done, and how often
USED, UNLINKED, TEXTLESS = (
    "removed with an id that was there",
    "removed without recording",
    "removed without any text",
)


def mend_split(folder: Path, split: str) -> None:
    """Remove what has no counterpart, no text or a used id, clip what ends a little late, tidy texts."""
    recordings, supervisions = manifest_paths(folder, split)
    lengths: dict[str, float] = {}
    for row in typed_rows(recordings, Recording):
        lengths.setdefault(row["id"], row["duration"])
    used: set[str] = set()

    def spoken(done: Done) -> Iterator[dict]:
        rows = typed_rows(supervisions, SupervisionSegment)
        return mended_supervisions(rows, lengths, used, done)

    def recorded(done: Done) -> Iterator[dict]:
        return mended_recordings(typed_rows(recordings, Recording), used, done)

    rewrite(supervisions, spoken)
    rewrite(recordings, recorded)


def mended_supervisions(rows: Iterable[dict], lengths: dict[str, float], used: set[str], done: Done) -> Iterator[dict]:
    """Those that stay; `used` gets the ids of their recordings."""
    seen: set[str] = set()
    for row in rows:
        fault = link_fault(row, seen, lengths)
        seen.add(row["id"])
        if fault:
            done[USED if fault[0] == "duplicate id" else UNLINKED] += 1
            continue
        if not any(texts_of(row.get("text"), row.get("custom"))):
            done[TEXTLESS] += 1
            continue
        used.add(row["recording_id"])
        over = row["start"] + row["duration"] - lengths[row["recording_id"]]
        if CLOSE < over <= TOLERANCE:
            row["duration"] = round(row["duration"] - over, 6)
            done["clipped at the end of the recording"] += 1
        yield tidied(row, done)


def mended_recordings(rows: Iterable[dict], used: set[str], done: Done) -> Iterator[dict]:
    """Those that something is said in, each once."""
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            done[USED] += 1
        elif row["id"] not in used:
            done["removed without supervision"] += 1
        else:
            yield row
        seen.add(row["id"])


def tidied(row: dict, done: Done) -> dict:
    """The supervision with texts in NFC and single spaces, without control characters."""
    translation = (row.get("custom") or {}).get("translation") or {}
    places = [(row, "text"), *((translation, language) for language in translation)]
    changed = False
    for place, key in places:
        if isinstance(place.get(key), str) and (text := tidy(place[key])) != place[key]:
            place[key], changed = text, True
    if changed:
        done["given tidy texts"] += 1
    return row


def mend_cuts(path: Path) -> None:
    """Remove cuts with a used id or without text, rewrite paths of archives that lie beside the cuts, tidy texts."""
    archives = Archives(path.parent)

    def mended(done: Done) -> Iterator[dict]:
        seen: set[str] = set()
        for row in read_jsonl(require(path)):
            if row.get("id") in seen:
                done[USED] += 1
                continue
            seen.add(row.get("id"))
            spoken = row.get("supervisions", [])
            if spoken and not any(texts_of(one.get("text"), one.get("custom")) for one in spoken):
                done[TEXTLESS] += 1
                continue
            if stored := row.get("features"):
                there, size = archives.find(stored["storage_path"])
                if size >= 0 and there != stored["storage_path"]:
                    done["given their archive's path"] += 1
                stored["storage_path"] = there
            for one in spoken:
                tidied(one, done)
            yield row

    rewrite(path, mended)


def rewrite(path: Path, mended: Callable[[Done], Iterable[dict]]) -> None:
    """Write `path` anew where there is something to mend, and say what was done; the old file goes to `.backup`."""
    done: Done = Counter()
    kept = sum(1 for _ in mended(done))
    if not done:
        return
    if not kept:
        raise UserError(f"{path}: --fix would leave nothing of it: make it again, it is not worth mending.")
    backup = path.parent / ".backup" / path.name
    with atomic_path(backup) as temporary:
        shutil.copy2(path, temporary)
    write_jsonl(path, mended(Counter()))
    what = ", ".join(f"{count} {action}" for action, count in done.items())
    print(f"fixed {path}: {what}; {kept} left, the old file is {backup}")
