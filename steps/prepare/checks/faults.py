"""Faults by kind: a sentence for each, with how many there are and the first few, not a line for each utterance."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from utils.errors import UserError

SHOWN = 4  # ids that a sentence lists


class Kind(NamedTuple):
    """`noun` `what`, as in "3 of 28 supervisions have no text", and what to do about it."""

    noun: str
    what: str
    remedy: str
    warning: bool = False  # never makes the check fail


@dataclass
class Found:
    """The faults of one kind in one file."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    detail: str = ""  # of the first


class Faults:
    """Collects faults. Of a kind that up to the share `max_bad` of a file's entries have, there is only a warning."""

    def __init__(self, max_bad: float = 0.0) -> None:
        self.max_bad = max_bad
        self._found: dict[tuple[str, Kind], Found] = {}
        self._sentences: list[str] = []
        self._totals: dict[tuple[str, str], int] = {}

    def add(self, where: object, kind: Kind, name: str = "", detail: str = "", count: int = 1) -> None:
        """One more entry of the file `where`, called `name`, or `count` of them, with this fault."""
        found = self._found.setdefault((str(where), kind), Found())
        found.count += count
        found.detail = found.detail or detail
        if name and len(found.names) < SHOWN:
            found.names.append(name)

    def total(self, where: object, noun: str, count: int) -> None:
        """How many entries a file has."""
        self._totals[str(where), noun] = count

    @contextmanager
    def caught(self) -> Iterator[None]:
        """A `UserError` inside is one more fault, and what comes after goes on."""
        try:
            yield
        except UserError as error:
            if str(error) not in self._sentences:
                self._sentences.append(str(error))

    def report(self) -> int:
        """Print a sentence for each kind (stderr), and how many there are (stdout); the exit status, 1 for a fault."""
        faults = [f"error: {sentence}" for sentence in self._sentences]
        warnings = []
        for (where, kind), found in self._found.items():
            total = self._totals.get((where, kind.noun), 0)
            mild = kind.warning or found.count <= self.max_bad * total
            group, word = (warnings, "warning") if mild else (faults, "error")
            group.append(f"{word}: {_sentence(where, kind, found, total)}")
        for line in (*faults, *warnings):
            print(line, file=sys.stderr)
        counted = [f"{len(group)} {noun}" for group, noun in ((faults, "faults"), (warnings, "warnings")) if group]
        print(f"validate: {' and '.join(counted) or 'no faults'}", flush=True)
        return 1 if faults else 0


def _sentence(where: str, kind: Kind, found: Found, total: int) -> str:
    number = f"{found.count} of {total}" if total else f"{found.count}"
    more = ", ..." if found.count > len(found.names) else ""
    about = [", ".join(found.names) + more] if found.names else []
    about += [": ".join((*found.names[:1], found.detail))] if found.detail else []
    shown = f" ({'; '.join(about)})" if about else ""
    return f"{where}: {number} {kind.noun} {kind.what}{shown}: {kind.remedy}."
