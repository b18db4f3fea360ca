"""A stand-in for a model and its batches, small enough to check the loop by hand; also run under torchrun by a test."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from steps.training.config import LoopConfig
from steps.training.nonfinite import NonFinite
from steps.training.signals import StopSignal
from steps.training.step_size import StepSize
from steps.training.trainer import Trainer
from utils.distributed import World, join_world

CPU = torch.device("cpu")


@dataclass
class ToyBatch:
    ids: list[str]
    x: Tensor  # (utterances, 4)
    durations: Tensor
    targets: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device) -> ToyBatch:
        return replace(self, x=self.x.to(device))


class ToyModel(nn.Module):
    """Two named losses, sums over utterances; `clock` is what it was last told of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 1)
        self.clock = -1.0

    def set_batch_count(self, count: float) -> None:
        self.clock = count

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        y = self.b(torch.tanh(self.a(batch.x)))
        return {"one.square": (y - 1).square().sum(), "two.size": 0.1 * y.abs().sum()}


class ToyBatches:
    """Batches from a list; an utterance counts as one second, ten frames and three tokens."""

    unit, limit = "seconds", "data.max_duration"

    def __init__(self, batches: list[ToyBatch], world: World | None = None, accumulate: int = 1) -> None:
        self.step = StepSize(max(map(len, batches)), accumulate, world.size if world else 1)
        self.batches, self.world = batches, world or World()
        self.most_valid: int | None = None  # batches of this process's share that are validated on

    def train(self, epoch: int, start: int):
        return self.batches[self.world.rank :: self.world.size][start:]

    def count(self, epoch: int) -> int:
        return len(self.batches) // self.world.size

    def valid(self):
        return self.train(0, 0)[: self.most_valid]

    def frames(self, batch: ToyBatch) -> int:
        return 10 * len(batch.ids)

    def tokens(self, batch: ToyBatch) -> dict[str, int]:
        return {"one": 3 * len(batch.ids)}

    def worst(self) -> ToyBatch:
        return max(self.batches, key=len)

    def size(self, batch: ToyBatch) -> str:
        return f"{len(batch)} utterances of at most {float(batch.durations.max()):.1f} s"


def toy_batches(sizes: list[int]) -> list[ToyBatch]:
    generator = torch.Generator().manual_seed(3)
    batches = []
    for number, size in enumerate(sizes):
        ids = [f"u{number}-{i}" for i in range(size)]
        batches.append(ToyBatch(ids, torch.randn(size, 4, generator=generator), torch.ones(size)))
    return batches


def make_trainer(batches: list[ToyBatch], folder: Path, world: World | None = None, **options) -> Trainer:
    torch.manual_seed(0)
    config = LoopConfig.model_validate({"schedule": {"name": "constant"}, "epochs": 1, **options})
    world = world or World()
    nonfinite = NonFinite(folder / f"nonfinite{world.rank}.jsonl", config.max_nonfinite)
    source = ToyBatches(batches, world, config.accumulate)
    return Trainer(ToyModel(), source, config, "float32", CPU, world, nonfinite, StopSignal())


SIZES = [3, 1, 2, 5, 4, 4, 1, 7]


def two_processes(out: Path) -> None:
    """One of the processes of a test: train on its share, save parameters and losses of the main process."""
    world = join_world(use_gpu=False)
    trainer = make_trainer(toy_batches(SIZES), out, world, optimizer={"name": "scaled_adam"}, accumulate=2)
    trainer.run_epoch()
    means = trainer.epoch_meter.means(world)
    valid = trainer.validate()
    state = trainer.state_dict()
    found = {"model": state["model"], "means": means, "valid": valid, "speech": trainer.progress.speech}
    trainer.batches.most_valid = 1 if world.main else 0
    found["small_valid"] = trainer.validate()
    if world.main:
        torch.save(found, out / "a.pt")
    world.close()


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
