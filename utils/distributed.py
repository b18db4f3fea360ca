"""Several processes as one trainer (torchrun's environment): gloo on CPUs, NCCL on GPUs, one process without either."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from utils.errors import UserError

T = TypeVar("T")


@dataclass
class World:
    """Who this process is among how many; `control` is a CPU group for numbers that steer the loop."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: object = None

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums of `numbers` over all processes, without touching a GPU."""
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, group=self.control)
        return values.tolist()

    def from_main(self, value):
        """`value` of the main process, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def on_main(self, work: Callable[[], T]) -> T:
        """`work()`'s value, done by the main process while others wait; what it raises ends these without a word."""
        value, error = None, None
        if self.main:
            try:
                value = work()
            except Exception as raised:
                error = raised
        value, failed = self.from_main((value, error is not None))
        if error is not None:
            raise error
        if failed:
            raise SystemExit(1)
        return value

    def share(self, count: int) -> tuple[int, int] | None:
        """(rank, size) to share `count` things with: all alone for the main process where they are too few for each.

        None: this process has none of them.
        """
        if count >= self.size:
            return self.rank, self.size
        return (0, 1) if self.main else None

    def wait(self) -> None:
        """Return when every process has called this."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with its gradients averaged over all processes after each backward pass."""
        if self.size == 1:
            return model
        # models give every parameter a gradient, zero where a batch has no use for it; there are no buffers to share
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join_world(use_gpu: bool) -> World:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK); alone when these are not set."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World()
    try:
        rank, size, local = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError:
        raise UserError(
            "RANK, WORLD_SIZE and LOCAL_RANK must be numbers: start with torchrun, or unset them."
        ) from None
    if size == 1:
        return World(rank, size, local)
    if use_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if use_gpu else "gloo")
    return World(rank, size, local, dist.new_group(backend="gloo"))
