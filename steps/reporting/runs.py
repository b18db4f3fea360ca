"""Decoding runs under the names that a report gives them, in its order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.scoring.evaluate import System

SPLITS = ("dev", "test")  # first, in this order; others follow alphabetically
MEASURES = {"wer": "WER", "cer": "CER", "bleu": "BLEU", "chrf": "chrF2", "ter": "TER", "comet": "COMET"}
HIGHER_IS_BETTER = {"bleu", "chrf", "comet"}
NAME_COLUMNS = ["system", "head", "method"]


@dataclass(frozen=True)
class Run:
    """A scored run of a `system`: a model folder or a cascade, by a name that no other one has."""

    scored: System
    system: str

    @property
    def split(self) -> str:
        return self.scored.decoded.name("split")

    @property
    def target(self) -> str:
        return self.scored.decoded.target

    @property
    def folder(self) -> Path:
        return self.scored.decoded.folder.resolve()

    @property
    def names(self) -> list[str]:
        """System, head and method (with its beam), as the tables show them."""
        return [self.system, *method_names(self.scored.decoded.name, self.scored.decoded.about)]

    @property
    def judged_by(self) -> str:
        """The measure that decides which run is better."""
        return next(iter(measures_of(self)))

    def value(self, measure: str) -> float | None:
        return self.scored.score["all"].get(measure, {}).get("value")


def measures_of(run: Run) -> list[str]:
    """Names of the run's measures, in the order of the tables."""
    return [name for name in MEASURES if name in run.scored.score["all"]]


def method_names(name, about: dict) -> list[str]:
    """Head and method (with its beam) of a record like `decode.json`; `name(part)` finds what it lacks."""
    method, *added = name("method").replace("_", " ").split("+")
    options = about.get("options")
    beam = options.get("beam") if isinstance(options, dict) else None
    method = f"{method} ({beam})" if beam is not None and "greedy" not in method else method
    return [name("head"), " + ".join([method, *added])]


def best(runs: Iterable[Run], measure: str) -> Run | None:
    """The run with the best score, the first of equals; None if there is none with a score."""
    known = [run for run in runs if run.value(measure) is not None]
    sign = -1 if measure in HIGHER_IS_BETTER else 1
    return min(known, key=lambda run: sign * run.value(measure), default=None)


def home(system: System) -> Path:
    """The folder that makes a system: the model's, or the one that holds a cascade's decode folders."""
    models = list(system.lineage.models)
    above = system.decoded.folder.resolve().parent.parent
    return models[0] if models and not system.decoded.stages else above


def named_runs(systems: Sequence[System]) -> list[Run]:
    """Runs in an order that does not depend on that of `systems`."""
    owners: dict[tuple[str, Path], str] = {(s.decoded.name("model"), home(s)): "" for s in systems}
    for name, folder in owners:
        alike = [other for other_name, other in owners if other_name == name]
        parts = range(1, len(folder.parts))
        ends = (k for k in parts if len({other.parts[-k:] for other in alike}) == len(alike))
        owners[name, folder] = name if len(alike) == 1 else "/".join(folder.parts[-next(ends, 0) :])
    return sorted((Run(s, owners[s.decoded.name("model"), home(s)]) for s in systems), key=_place)


def _place(run: Run) -> tuple:
    rank = SPLITS.index(run.split) if run.split in SPLITS else len(SPLITS)
    system, head, method = map(natural, run.names)
    after_greedy = "greedy" not in run.names[2]
    return rank, run.split, run.target != "text", run.target, system, head, after_greedy, method, str(run.folder)


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which beam 10 comes after beam 4."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
