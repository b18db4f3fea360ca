"""Training that is asked to stop, as by a signal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from steps.training.trainer import Trainer


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """Trainers are asked to end (status 143) before this step."""
    original = Trainer.step

    def interrupted(self, group):
        self.stop.requested = self.stop.requested or self.progress.step == step
        self.stop.status = 143
        return original(self, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        yield
