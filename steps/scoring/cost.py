"""What a system costs: parameters, training (its own, and what it was initialised from), machine, memory, decoding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.scoring.hypotheses import Decoded
from utils.errors import UserError
from utils.files import read_json


@dataclass(frozen=True)
class Lineage:
    """`train.json` by model folder: of the `models` that ran, and of their `ancestors`, each once.

    `unknown` names the models and initialisations that have none: trained elsewhere, or not trained.
    """

    models: dict[Path, dict] = field(default_factory=dict)
    ancestors: dict[Path, dict] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def lineage(decoded: Decoded) -> Lineage:
    """The models behind a run: `exp/<model>` of `exp/<model>/decode/<run>`, or those of a cascade's stages.

    A `train.json` with `init: {part: <path>[:<part>]}` names the model folders, or checkpoints in them, that training
    began with; paths are looked for from here and from the folders above the run.
    """
    folder = decoded.folder.resolve()
    if decoded.stages:
        begun = [str(stage["model"]) for stage in decoded.stages if stage.get("model")]
    else:
        home = folder.parent.parent
        begun = [str(home if (home / "train.json").exists() else decoded.about.get("model") or home.name)]
    found = Lineage()
    pending = [(name, found.models) for name in begun]
    while pending:
        name, place = pending.pop(0)
        model = model_folder(name, folder)
        if model is None:
            found.unknown.extend([name] if name not in found.unknown else [])
        elif model not in found.models and model not in found.ancestors:
            place[model] = record = _record(model / "train.json")
            init = record.get("init")
            begun = [str(source).partition(":")[0] for source in init.values()] if isinstance(init, dict) else []
            pending += [(source, found.ancestors) for source in begun]
    return found


def model_folder(name: str, near: Path) -> Path | None:
    """The folder with a `train.json` that a path (of it or of a checkpoint in it) means, seen from here or above."""
    for above in (Path.cwd(), *near.parents):
        path = (above / name).resolve()
        folder = path if path.is_dir() else path.parent
        if path.exists() and (folder / "train.json").exists():
            return folder
    return None


def _record(path: Path) -> dict:
    record = read_json(path)
    if not isinstance(record, dict):
        raise UserError(f"{path} must hold an object: train again (stage 5) or delete it.")
    return record


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _total(values: Iterable[Any], scale: float = 1) -> float | None:
    """The sum of those that are numbers, None if none is."""
    numbers = [value * scale for value in values if is_number(value)]
    return round(sum(numbers), 4) if numbers else None


def _most(records: Iterable[dict], key: str) -> float | None:
    return max((record[key] for record in records if is_number(record.get(key))), default=None)


def cost(decoded: Decoded, family: Lineage) -> dict:
    """The cost entry of score.json; None for what no record tells.

    `parameters` are those of all stages; hours are wall-clock; `training_hours_with_init` adds, once each, the
    trainings that the models began with, as far as they are known: `not_counted` names the others.
    """
    about, records = decoded.about, list(family.models.values())
    ran = decoded.stages or [about]
    untold = [part for part in ran if _untold(part, decoded, family)]
    parameters = _total([*(r.get("parameters") for r in records), *(part.get("parameters") for part in untold)])
    if decoded.stages and is_number(about.get("parameters")):
        parameters = about["parameters"]
    everything = [*records, *family.ancestors.values()]
    rtf = about.get("rtf") if is_number(about.get("rtf")) else _total(part.get("rtf") for part in ran)
    return {
        "parameters": parameters,
        "parameters_trained": _total(record.get("parameters_trained") for record in records),
        "training_hours": _total((record.get("seconds") for record in records), 1 / 3600),
        "training_hours_with_init": _total((record.get("seconds") for record in everything), 1 / 3600),
        "not_counted": family.unknown,
        "hardware": list(dict.fromkeys(filter(None, map(_machine, records or ran)))),
        "training_memory_mb": _most(records, "peak_memory_mb"),
        "decoding_memory_mb": _most(ran, "peak_memory_mb"),
        "rtf": rtf,
    }


def _untold(part: dict, decoded: Decoded, family: Lineage) -> bool:
    """Whether a run or stage has to tell its parameters itself, for want of a train.json."""
    if not decoded.stages:
        return not family.models
    return str(part.get("model")) in family.unknown or not part.get("model")


def _machine(record: dict) -> str | None:
    """For instance "4 × NVIDIA H100" or "AMD EPYC (2 cores)"."""
    machine, processes = record.get("hardware"), record.get("processes")
    if not isinstance(machine, dict):
        return None
    if machine.get("gpu"):
        return f"{processes} × {machine['gpu']}" if is_number(processes) and processes > 1 else str(machine["gpu"])
    cores = f" ({machine['cores']} cores)" if machine.get("cores") else ""
    return f"{machine['cpu']}{cores}" if machine.get("cpu") else None
