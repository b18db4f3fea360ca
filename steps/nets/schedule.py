"""Values that change with the training step, and randomness on the host that never waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from utils.errors import UserError


class Schedule:
    """A piecewise linear function of the training step, used like a float: `float(schedule)`.

    Before the first point and after the last one the value is that point's; before any step is set it is `default`
    (the first point's value when None). `scale` stretches the time axis: 0.1 makes everything happen ten times sooner.
    """

    def __init__(self, *points: Sequence[float], default: float | None = None) -> None:
        self.points = [(float(x), float(y)) for x, y in points]
        if not self.points or any(b[0] <= a[0] for a, b in zip(self.points, self.points[1:], strict=False)):
            raise UserError(f"A schedule needs (step, value) points with rising steps, found {list(points)}.")
        self.default = self.points[0][1] if default is None else float(default)
        self.scale = 1.0
        self.step: float | None = None

    def __float__(self) -> float:
        if self.step is None:
            return self.default
        step = self.step / self.scale if self.scale > 0 else float("inf")
        (x0, y0), (_, last) = self.points[0], self.points[-1]
        if step <= x0:
            return y0
        for x1, y1 in self.points[1:]:
            if step <= x1:
                return y0 + (y1 - y0) * (step - x0) / (x1 - x0)
            x0, y0 = x1, y1
        return last

    def __repr__(self) -> str:
        return f"Schedule({self.points}, scale={self.scale}, step={self.step})"


FloatLike = float | Schedule


def schedule_of(value: FloatLike | Sequence[Sequence[float]]) -> FloatLike:
    """A config's number, or list of [step, value] points, as what modules take."""
    return Schedule(*value) if isinstance(value, (list, tuple)) else value


def schedules_in(module: nn.Module) -> Iterator[Schedule]:
    """Every schedule that `module` or a submodule holds as an attribute."""
    for submodule in module.modules():
        yield from (value for value in vars(submodule).values() if isinstance(value, Schedule))


def chance(probability: FloatLike) -> bool:
    """True with this probability; drawn from torch's CPU generator, so that nothing waits for an accelerator."""
    probability = float(probability)
    return probability > 0.0 and (probability >= 1.0 or float(torch.rand(())) < probability)


def choose(values: Sequence[int]) -> int:
    """One of `values`, evenly drawn from torch's CPU generator; the only one without a draw."""
    return values[0] if len(values) == 1 else values[int(torch.randint(len(values), ()))]
