"""Train, dev and test of data that have none: by speaker, else by recording, else by text, with a hash.

Where an utterance goes hangs on nothing but the hash of its speaker (recording, text): more data moves none that is
there; but a split that would have nothing gets one group, which may change as long as there are so few. The families
of near duplicates of `local/splits.py` are not looked for: a new text could join two old families. Equal texts (but for
case and punctuation) stay together where the split is by text.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from local.manifests import Utterance
from local.text import plain
from utils.errors import UserError

WAYS = ("speaker", "recording", "text")


def group_of(utterance: Utterance, way: str) -> str:
    """What must not be in two splits: the speaker (where unknown, the recording), the recording, or the text."""
    spoken = utterance.supervision
    if way == "text":
        written = [spoken.text or "", *(spoken.custom.get("translation") or {}).values()]
        return plain(next(filter(None, written), ""))
    return (spoken.speaker if way == "speaker" else None) or spoken.recording_id


def choose_way(utterances: Sequence[Utterance], splits: int) -> str:
    """The first way that has groups enough for so many splits, of which some have several utterances."""
    known = any(utterance.supervision.speaker for utterance in utterances)
    for way in ("speaker", "recording") if known else ("recording",):
        groups = {group_of(utterance, way) for utterance in utterances}
        if splits <= len(groups) < len(utterances):
            return way
    return WAYS[-1]


def make_splits(
    utterances: Sequence[Utterance], shares: Mapping[str, float], way: str, seed: int = 0
) -> dict[str, list[Utterance]]:
    """`utterances` as train and the splits of `shares` (parts of all groups), which get one group each at least.

    `UserError` where there are fewer groups than splits.
    """
    members: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        members[group_of(utterance, way)].append(utterance)
    if len(members) <= len(shares):
        wanted = ", ".join(("train", *shares))
        raise UserError(
            f"{len(members)} {way}s cannot make {wanted}: split by another of {', '.join(WAYS)} (--split-by), "
            "give splits, or ask for none (--dev 0 --test 0)."
        )
    place = {group: _fraction(f"{seed}/{group}") for group in members}
    split = {group: _split(at, shares) for group, at in place.items()}
    largest = max(members, key=lambda group: (len(members[group]), group))
    rest = iter(sorted((group for group in members if split[group] == "train" and group != largest), key=place.get))
    for name in shares:
        if name not in split.values():
            split[next(rest)] = name
    if "train" not in split.values():
        split[largest] = "train"
    return {
        name: [item for group, items in members.items() if split[group] == name for item in items]
        for name in ("train", *shares)
    }


def _fraction(key: str) -> float:
    """From 0 to below 1."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def _split(at: float, shares: Mapping[str, float]) -> str:
    for name, part in shares.items():
        if at < part:
            return name
        at -= part
    return "train"


def describe(splits: Mapping[str, Sequence[Utterance]], way: str) -> str:
    """A sentence on what was made."""
    counts = {name: len({group_of(item, way) for item in items}) for name, items in splits.items()}
    return f"splits made by {way}: " + ", ".join(f"{count} {way}s in {name}" for name, count in counts.items())
