"""How large a step is: the same over any number of processes of any memory, through accumulated batches."""

from __future__ import annotations

import math
from typing import NamedTuple

from steps.training.config import LoopConfig
from utils.errors import UserError


class StepSize(NamedTuple):
    """A step is `processes` times `accumulate` batches of at most `most` seconds of speech, or tokens of text.

    `halved` counts how often the batches were halved, and their number doubled, because memory did not hold them.
    """

    most: float
    accumulate: int
    processes: int
    halved: int = 0

    @classmethod
    def of(cls, config: LoopConfig, processes: int) -> StepSize:
        """What the config says; with a total of a step, as few and as large batches as its limit lets there be."""
        if config.batch_total is None:
            return cls(config.batch_limit, config.accumulate, processes)
        accumulate = math.ceil(config.batch_total / (config.batch_limit * processes) - 1e-9)
        return cls(config.batch_total / (processes * accumulate), accumulate, processes)

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.most * self.accumulate * self.processes

    @property
    def planned(self) -> StepSize:
        """What the config said, before any halving."""
        return StepSize(self.most * 2**self.halved, self.accumulate >> self.halved, self.processes)

    def half(self) -> StepSize:
        """The same step in twice as many batches."""
        return StepSize(self.most / 2, self.accumulate * 2, self.processes, self.halved + 1)

    def resumed(self, state: dict, source: object, limit: str) -> StepSize:
        """What a training goes on with whose `state` is in `source`, where the config now says `self`.

        Errors: `UserError` where an epoch was left in its middle, of which other batches would skip or repeat some.
        """
        then = StepSize(**state["step"])
        if then.planned == self:
            return then
        if state["progress"]["batch"] and then.processes == self.processes:
            raise UserError(
                f"{source} was written in the middle of an epoch with {then.planned.accumulate} x "
                f"{then.planned.most:g} as batches of a process, {limit} now makes them {self.accumulate} x "
                f"{self.most:g}: give the {limit} of then until an epoch is done."
            )
        return self

    def sentence(self, unit: str) -> str:
        """What follows, for the log."""
        return (
            f"step: {self.total:g} {unit}, {self.processes} process(es) x {self.accumulate} batch(es) of at most "
            f"{self.most:g} {unit}"
        )
