"""Which files of your own data are what: the format, and the parts that are train, dev and test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from local import kaldi_dir, lhotse_files, tables
from local.corpus import Unusable
from local.rows import Given, Rows, Splits, put
from utils.errors import UserError, nearest

FORMATS = {
    "kaldi": "wav.scp",
    "lhotse": "recordings, supervisions or cuts in .jsonl or .jsonl.gz",
    "table": "a .tsv, .csv or .jsonl",
}
NAMES = {  # of splits, as people call them
    "train": ("train", "training", "tr"),
    "dev": ("dev", "valid", "validation", "val", "development", "cv"),
    "test": ("test", "testing", "eval", "evaluation", "tt"),
}
PAIR = re.compile(r"\.[a-z]{2,3}-[a-z]{2,3}(\.[a-z]{2,3})?$")  # ESPnet's train.en-de and train.en-de.de
Parts = dict[str, Any]  # a split's name, or "" for the whole: its folder, files or table


# ---- formats


def find_parts(place: Path, form: str | None = None) -> tuple[str, Parts]:
    """(format, parts) of a file or folder; `UserError` where there is nothing, or things of several formats."""
    if not place.exists():
        raise UserError(f"{place} does not exist: give --corpus a Kaldi data directory, manifests or a table.")
    found = {name: parts for name, find in FINDERS.items() if form in (None, name) and (parts := find(place))}
    if len(found) > 1:
        seen = " and ".join(f"{name} ({FORMATS[name]})" for name in found)
        raise UserError(
            f"{place} has {seen} in it: say with --format which is meant, or give --corpus the file itself."
        )
    if not found:
        folder = place if place.is_dir() else place.parent
        below = [*sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]
        near = next((path for path in (folder.resolve().parent, *below) if path.is_dir() and _holds_data(path)), None)
        hint = f" (did you mean '--corpus {near}'?)" if near else ""
        wanted = FORMATS[form] if form else ", ".join(f"{what} ({name})" for name, what in FORMATS.items())
        raise UserError(f"{place} is none of these, and has none in it: {wanted}{hint}: check the path.")
    return next(iter(found.items()))


def _holds_data(folder: Path) -> bool:
    return any(find(folder) for find in FINDERS.values())


def _kaldi(place: Path) -> Parts:
    if place.is_file():
        return {"": place.parent} if place.name == "wav.scp" else {}
    if (place / "wav.scp").exists():
        beside = sorted(path.parent.name for path in place.resolve().parent.glob("*/wav.scp"))
        if len(beside) > 1 and place.name in NAMES["train"]:
            print(f"{place} is taken as the whole: for the splits {_list(beside)}, give --corpus {place.parent}")
        return {"": place}
    return {path.name: path for path in sorted(place.glob("*/")) if (path / "wav.scp").exists()}


def _lhotse(place: Path) -> Parts:
    if place.is_dir():
        return lhotse_files.find_manifests(place)
    if not lhotse_files.NAME.fullmatch(place.name):
        return {}
    found = lhotse_files.find_manifests(place.parent).values()
    return dict.fromkeys([""], next(files for files in found if place in files.values()))


def _table(place: Path) -> Parts:
    if place.is_file():
        return {"": place} if _is_table(place) else {}
    here = [path for path in sorted(place.iterdir()) if _is_table(path)]
    if not here:  # Hugging Face's audio folders: train/metadata.csv
        inner = {path.name: _table(path) for path in sorted(place.glob("*/")) if canonical(path.name) in NAMES}
        return {name: next(iter(found.values())) for name, found in inner.items() if len(found) == 1}
    return {path.name.partition(".")[0]: path for path in here} if len(here) > 1 else {"": here[0]}


def _is_table(path: Path) -> bool:
    return tables.is_table(path) and not lhotse_files.NAME.fullmatch(path.name)


FINDERS = {"kaldi": _kaldi, "lhotse": _lhotse, "table": _table}
READERS = {
    "kaldi": lambda part, given: {"": kaldi_dir.read_data_dir(part, given)},
    "lhotse": lambda part, given: {"": lhotse_files.read_manifests(part, given)},
    "table": tables.read_rows,
}


# ---- splits that the data have


def canonical(name: str) -> str:
    """train, dev or test for what means these, any other name as it is."""
    bare = PAIR.sub("", name).lower()
    return next((split for split, names in NAMES.items() if bare in names), name)


def choose_parts(parts: Parts, wanted: Mapping[str, str], place: Path) -> Parts:
    """The parts that are train, dev and test by their names, or as `wanted` says (train: my_train); one alone is train.

    `UserError` where that is not clear.
    """
    for split, name in wanted.items():
        if name not in parts:
            known = f"it has {_list(parts)}" if any(parts) else "it has no splits"
            raise UserError(f"--splits {split}={name}: {place} has no '{name}'{nearest(name, parts)}: {known}.")
    if wanted and "train" not in wanted:
        known = _list(parts)
        raise UserError(f"--splits {_list(wanted)}: say with train=<name>, too, which of {known} is to be learnt from.")
    if wanted:
        return {split: parts[name] for split, name in wanted.items()}
    if len(parts) == 1:
        return {"train": next(iter(parts.values()))}
    remedy = "say which is which with --splits train=<name> dev=<name> test=<name>"
    chosen: dict[str, str] = {}
    for name in parts:
        if canonical(name) in chosen:
            raise UserError(f"{place} has {chosen[canonical(name)]} and {name}, both {canonical(name)}: {remedy}.")
        if canonical(name) in NAMES:
            chosen[canonical(name)] = name
    if "train" not in chosen:
        raise UserError(f"{place} has {_list(parts)}, none of which is called train: {remedy}.")
    if others := [name for name in parts if name not in chosen.values()]:
        print(f"{place}: left alone: {_list(others)} (to use them, {remedy})")
    return {split: parts[name] for split, name in chosen.items()}


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def read_splits(place: Path, given: Given, form: str | None, wanted: Mapping[str, str], pool: bool) -> Splits:
    """Rows by split: train, and what else the data have; `pool`: all as train, wherever the data have them."""
    form, parts = find_parts(place, form)
    if given.columns and form != "table":
        raise UserError(f"--columns names the columns of a table, and {place} is read as {form}: leave it out.")
    if form == "table" and set(parts) == {""}:  # it may have a column that says the split
        parts = READERS[form](parts[""], given)
        broken = parts.pop("", {}) if len(parts) > 1 else {}
        splits = choose_parts(parts, wanted, place)
        splits["train"] = {**splits["train"], **broken}
    else:
        chosen = choose_parts(parts, wanted, place)
        splits = {split: _pooled(READERS[form](part, given), place) for split, part in chosen.items()}
    if pool:
        return {"train": _pooled(splits, place)}
    for split in (name for name in splits if name != "train"):
        for key in splits[split].keys() & splits["train"].keys():
            splits["train"][key] = Unusable("duplicate id", f"'{key}' of train is in {split} too.")
    return splits


def _pooled(splits: Splits, place: Path) -> Rows:
    pool: Rows = {}
    for rows in splits.values():
        for key, row in rows.items():
            put(pool, key, row, str(place))
    return pool
