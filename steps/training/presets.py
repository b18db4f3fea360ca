"""Presets: what a machine has, from which batches, learning rate and workers of any recipe follow."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from steps.training.config import LoopConfig, Precision
from utils.errors import UserError, nearest
from utils.options import Config, load_config

SHARED = Path(__file__).resolve().parents[2] / "egs" / "conf" / "presets"


class Preset(Config):
    """A machine, or several: `utils/stages.sh` reads `processes` and `nodes`, each in a line of its own."""

    memory_gb: PositiveFloat  # that a process may train in: of its GPU
    processes: PositiveInt = 1  # on a node, one a GPU
    nodes: PositiveInt = 1
    workers: NonNegativeInt = 0  # of each process, that prepare batches; 0: the process itself
    precision: Precision = "auto"
    batch: PositiveFloat = 1.0  # what the recipe's seconds (tokens) of a step are multiplied by

    @property
    def world(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.processes


def find_preset(name: str) -> Path:
    """The file of a preset: of that path, or of that name in egs/conf/presets; `UserError` where there is none."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    file = SHARED / f"{name}.yaml"
    if not file.exists():
        names = sorted(path.stem for path in SHARED.glob("*.yaml"))
        known = f"there are {', '.join(names)}, or give a YAML file"
        raise UserError(f"Preset '{name}' is not in egs/conf/presets{nearest(name, names)}: {known}.")
    return file


def load_preset(name: str) -> Preset:
    """A preset by name or path."""
    return load_config(find_preset(name), Preset)


def overrides(preset: Preset, config: LoopConfig, source: str, given: list[str]) -> list[str]:
    """What `preset` makes of a recipe's `config` (read from `source`), as `key=value`; none of the keys in `given`.

    A batch of another size than the recipe's gets a learning rate that goes with its square root, as Adam-like
    optimisers want (Malladi et al. 2022, arXiv:2205.10287, section 4; Krizhevsky 2014, arXiv:1404.5997, section 5), and
    schedules that go on counting in the recipe's steps.
    Errors: `UserError` where the recipe does not say how large a step is, or how much of it a GB holds.
    """
    total, per_gb = config.batch_total, getattr(config, f"{config.unit}_per_gb")
    for key, value in ((f"batch_{config.unit}", total), (f"{config.unit}_per_gb", per_gb)):
        if value is None:
            raise UserError(f"{source} has no {key}, which a preset needs: set it, or leave the preset out.")
    own = {assignment.partition("=")[0] for assignment in given}
    factor = 1.0 if f"batch_{config.unit}" in own else preset.batch
    follows = {
        config.limit: max(1, int(preset.memory_gb * per_gb)),
        "data.workers": preset.workers,
        "precision": preset.precision,
    }
    if factor != 1:
        follows |= {f"batch_{config.unit}": total * factor, "optimizer.lr": config.optimizer.lr * math.sqrt(factor)}
        follows["reference_batch"] = config.reference_batch or total
    return [f"{key}={value}" for key, value in follows.items() if key not in own]
