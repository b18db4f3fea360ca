"""Learning-rate schedules as pure functions of where training is, so that there is no schedule state to save."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

from utils.options import Config

Fraction = Annotated[float, Field(ge=0, le=1)]


class Eden(Config):
    """icefall's Eden: the learning rate falls with the square root of steps and of epochs past the given numbers.

    factor = ((step² + lr_batches²) / lr_batches²)^-¼ · ((epoch² + lr_epochs²) / lr_epochs²)^-¼ · warm-up, the warm-up
    rising linearly from `warmup_start` to 1 over `warmup_batches` steps (Yao et al., Zipformer, 2024, section 3.5).
    """

    name: Literal["eden"] = "eden"
    lr_batches: PositiveFloat = 5000
    lr_epochs: PositiveFloat = 6
    warmup_batches: NonNegativeInt = 500
    warmup_start: Fraction = 0.5

    def factor(self, step: float, epoch: int, progress: float) -> float:
        """Multiplier of the base rate at optimiser step `step` (from 0) in epoch `epoch` (from 0)."""
        by_step = (step**2 / self.lr_batches**2 + 1) ** -0.25
        by_epoch = (epoch**2 / self.lr_epochs**2 + 1) ** -0.25
        return by_step * by_epoch * _warmup(step, self.warmup_batches, self.warmup_start)


class Cosine(Config):
    """Linear warm-up over `warmup_steps`, then half a cosine down to `min_factor` at the end of the last epoch."""

    name: Literal["cosine"] = "cosine"
    warmup_steps: NonNegativeInt = 500
    min_factor: Fraction = 0.0

    def factor(self, step: float, epoch: int, progress: float) -> float:
        """Multiplier of the base rate; `progress` is the share of training that is done, in [0, 1]."""
        wave = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return (self.min_factor + (1 - self.min_factor) * wave) * _warmup(step, self.warmup_steps)


class Warmup(Config):
    """The transformer's schedule (Vaswani et al. 2017): linear warm-up, then 1/sqrt(step); 1 at step `warmup_steps`."""

    name: Literal["warmup"] = "warmup"
    warmup_steps: Annotated[int, Field(gt=0)] = 1000

    def factor(self, step: float, epoch: int, progress: float) -> float:
        """Multiplier of the base rate at optimiser step `step`."""
        return min((step + 1) / self.warmup_steps, math.sqrt(self.warmup_steps / (step + 1)))


class Constant(Config):
    """The base rate, after an optional linear warm-up."""

    name: Literal["constant"] = "constant"
    warmup_steps: NonNegativeInt = 0

    def factor(self, step: float, epoch: int, progress: float) -> float:
        """Multiplier of the base rate at optimiser step `step`."""
        return _warmup(step, self.warmup_steps)


def _warmup(step: float, steps: int, start: float = 0.0) -> float:
    # without a start above zero the first step (step 0) still has to move something
    at = step if start > 0 else step + 1
    return 1.0 if at >= steps else start + (1.0 - start) * at / steps


Schedule = Annotated[Eden | Cosine | Warmup | Constant, Field(discriminator="name")]
