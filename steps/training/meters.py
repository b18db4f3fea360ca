"""Sums of losses that stay on the device until somebody asks, and where training is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from utils.distributed import World


@dataclass
class Progress:
    """Where training is; all that a checkpoint needs to say about it. Epochs and batches count from 0."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done, on each process
    step: int = 0  # optimiser steps, skipped ones included
    skipped: int = 0
    in_a_row: int = 0  # non-finite steps since the last good one
    seconds: float = 0.0
    speech: float = 0.0  # seconds of speech (tokens of text) seen, all processes together
    best_loss: float | None = None
    best_epoch: float | None = None
    valid: dict[str, float] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)  # mean losses of the last complete epoch

    def to_dict(self) -> dict:
        """Plain numbers, for a checkpoint."""
        return asdict(self)


class Meter:
    """Mean losses per frame and per token.

    `add()` never waits for the device; `means()` does. With `skip_nonfinite`, a batch with a loss that is not finite
    counts as absent, its frames and tokens too (training skips its step); otherwise it makes the mean what it is.
    """

    def __init__(self, skip_nonfinite: bool = False) -> None:
        self.skip_nonfinite = skip_nonfinite
        self.sums: dict[str, Tensor] = {}
        self.frames: Tensor | float = 0.0
        self.tokens: dict[str, Tensor | float] = {}

    def add(self, losses: dict[str, Tensor], frames: float, tokens: dict[str, int]) -> None:
        """Add a batch: `losses` are 0-dim sums over utterances (nats), `tokens` the numbers of tokens by head."""
        values = {name: loss.detach().double() for name, loss in losses.items()}
        if self.skip_nonfinite:
            finite = torch.isfinite(torch.stack(list(values.values())).sum())
            counted = finite.double()  # float32 would lose frames beyond 2**24
            frames, tokens = counted * frames, {head: counted * count for head, count in tokens.items()}
            values = {name: torch.where(finite, value, 0.0) for name, value in values.items()}
        self.frames = self.frames + frames
        for head, count in tokens.items():
            self.tokens[head] = self.tokens.get(head, 0) + count
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def state_dict(self, world: World) -> dict:
        """The sums over all processes, as plain numbers; a process that has seen no batch adds zeros."""
        names, heads = world.from_main((sorted(self.sums), sorted(self.tokens)))
        sums = [float(self.sums.get(name, 0.0)) for name in names]
        values = world.total([float(self.frames), *sums, *(float(self.tokens.get(head, 0.0)) for head in heads)])
        return {
            "frames": values[0],
            "sums": dict(zip(names, values[1:], strict=False)),
            "tokens": dict(zip(heads, values[1 + len(names) :], strict=True)),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from the sums of all processes (give them to one process only)."""
        self.frames, self.tokens = state["frames"], dict(state["tokens"])
        self.sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}

    def means(self, world: World) -> tuple[dict[str, float], dict[str, float]]:
        """Losses per encoder frame ("loss" is their sum) and per token of their head, over all processes."""
        state = self.state_dict(world)
        frames = max(state["frames"], 1.0)
        by_frame = {"loss": sum(state["sums"].values()) / frames}
        by_frame |= {name: value / frames for name, value in state["sums"].items()}
        by_token = {}
        for name, value in state["sums"].items():
            if count := state["tokens"].get(name.split(".")[0]):
                by_token[name] = value / count
        return by_frame, by_token
