"""The training loop: what happens between one batch and the next, and where it may stop and go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from steps.training.averaging import RunningAverage
from steps.training.config import LoopConfig
from steps.training.initial import groups
from steps.training.meters import Meter, Progress
from steps.training.nonfinite import NonFinite
from steps.training.optimizers import Updater
from steps.training.signals import StopSignal
from steps.training.step_size import StepSize
from utils.checkpoint import fit_state
from utils.devices import autocast, is_out_of_memory, seed_all
from utils.distributed import World
from utils.errors import UserError


class Batches(Protocol):
    """Where batches come from; every process sees equally many. What `Trainer` alone needs not is for the log."""

    unit: str  # that batches' durations are in: "seconds" of speech or "tokens" of text
    total: float  # of an epoch, in this unit
    limit: str  # the config's key that bounds a batch
    source: str  # the training set, as the config names it
    dropped: list[dict]  # what of it is left out: {"id", "reason", "detail"}
    step: StepSize  # how many batches make a step, and how large they are

    def resize(self, step: StepSize) -> None:
        """Make steps and batches of this size from here on."""

    def train(self, epoch: int, start: int) -> Iterable:
        """This process's batches of an epoch (from 0), from batch `start` on."""

    def count(self, epoch: int) -> int:
        """How many there are for each process."""

    def valid(self) -> Iterable:
        """This process's share of the validation set."""

    def frames(self, batch) -> int:
        """Encoder frames of a batch that is still on the CPU."""

    def tokens(self, batch) -> dict[str, int]:
        """Its tokens, by head."""

    def sample(self):
        """A small batch of middling length."""

    def worst(self):
        """The largest batch that training can bring."""

    def size(self, batch) -> str:
        """How large a batch is, in words."""

    def summary(self) -> list[str]:
        """Sentences for the log on what there is."""

    def amounts(self, seen: float) -> dict[str, float]:
        """What train.json says of the data and of how much was `seen`."""

    def fingerprint(self) -> str:
        """Changes when the data change."""


class Trainer:
    """Trains `model` on `batches`; owns everything that a checkpoint holds.

    Each step depends only on the parameters, the optimiser's state, the batches and (seed, step), so that training that
    goes on from a checkpoint gives what it would have given. The loss of a step is the sum of the model's named losses
    over all its micro-batches and processes, divided by the number of all their encoder frames.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        config: LoopConfig,
        precision: str,
        device: torch.device,
        world: World,
        nonfinite: NonFinite,
        stop: StopSignal,
    ) -> None:
        self.model, self.batches, self.config = model, batches, config
        self.precision, self.device, self.world = precision, device, world
        self.nonfinite, self.stop = nonfinite, stop
        by_rate = groups(model, config.lr_scale, config.layer_decay, config.start_after)
        self.updater = Updater(by_rate, config.optimizer, config.clip_norm, precision, device)
        self.wrapped = world.wrap(model)
        self.average = RunningAverage(model, config.average.decay) if world.main else None
        self.progress = Progress()
        self.epoch_meter, self.meter = Meter(skip_nonfinite=True), Meter(skip_nonfinite=True)
        self.lr = 0.0
        self.on_log: Callable[[], None] = lambda: None
        self.on_save: Callable[[], None] = lambda: None
        self.on_valid: Callable[[], None] = lambda: None
        self._started = self._saved = time.monotonic()

    def run_epoch(self) -> bool:
        """Train to the end of the present epoch; False if asked to stop before (the state is then at a step's end)."""
        progress, config = self.progress, self.config
        self.model.train()
        for group in _groups(self.batches.train(progress.epoch, progress.batch), self.batches.step.accumulate):
            if not self.step(group):
                return False
            if progress.step % config.log_every == 0:
                self.on_log()
            if config.valid_every and progress.step % config.valid_every == 0:
                self.on_valid()
        return True

    def end_epoch(self) -> dict[str, float]:
        """Count the epoch as done; its mean training losses per frame."""
        self.progress.final = self.epoch_meter.means(self.world)[0]
        self.epoch_meter = Meter(skip_nonfinite=True)
        self.progress.epoch += 1
        self.progress.batch = 0
        return self.progress.final

    def step(self, group: list) -> bool:
        """One optimiser step from the batches in `group`; False: not done, somebody asked to stop."""
        progress, world = self.progress, self.world
        frames = [self.batches.frames(batch) for batch in group]
        speech = sum(float(batch.durations.sum()) for batch in group)
        due = world.main and self._save_is_due()
        all_frames, speech, stop, save = world.total([sum(frames), speech, self.stop.requested, due])
        if save:
            self.on_save()
            self._saved = time.monotonic()
        if stop:
            return False
        self._set_clock()
        try:
            for index, (batch, count) in enumerate(zip(group, frames, strict=True)):
                self._backward(batch, index, count, max(all_frames, 1.0), last=index == len(group) - 1)
            self.lr = self.updater.base_lr * self.schedule_factor()
            finite = self.updater.step(self.lr, self.clock)
        except (RuntimeError, MemoryError) as error:
            where = f"step {progress.step} of epoch {progress.epoch + 1}"
            raise _explained(error, where, self.batches.limit) from error
        self.nonfinite.add(finite, progress, [name for batch in group for name in batch.ids])
        before = self.clock
        progress.step += 1
        progress.batch += len(group)
        progress.speech += speech
        if self.average and self.clock // self.config.average.period > before // self.config.average.period:
            self.average.update(self.model)
        return True

    def _backward(self, batch, index: int, frames: int, all_frames: float, last: bool) -> None:
        seed_all(self.config.seed, self.progress.step, index, self.world.rank)
        tokens = self.batches.tokens(batch)
        batch = batch.to(self.device)
        alone = last or self.world.size == 1
        with contextlib.nullcontext() if alone else self.wrapped.no_sync():
            with autocast(self.device, self.precision):
                losses = self.wrapped(batch)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            # gradients are averaged over processes: the number of these turns the mean into the sum that is meant
            self.updater.scale(total * (self.world.size / all_frames)).backward()
        for meter in (self.meter, self.epoch_meter):
            meter.add(losses, frames, tokens)

    def grad_norm(self) -> float:
        """The last step's gradient norm, for the log (waits for the device); 0 before the first step."""
        return 0.0 if self.updater.norm is None else float(self.updater.norm)

    def schedule_factor(self) -> float:
        """What the schedule multiplies the base learning rate by, now."""
        p = self.progress
        share = (p.epoch + p.batch / max(self.batches.count(p.epoch), 1)) / self.config.epochs
        return self.config.schedule.factor(self.clock, p.epoch, share)

    @property
    def clock(self) -> float:
        """Steps done, in those that schedules count in."""
        return self.progress.step * self.config.pace

    def _set_clock(self) -> None:
        """Tell the model's schedules (dropout, layer skipping, loss scales) the time."""
        reference = self.config.reference_duration
        self.model.set_batch_count(self.progress.speech / reference if reference else self.clock)

    def _save_is_due(self) -> bool:
        every, seconds, step = self.config.save_every_steps, self.config.save_every_seconds, self.progress.step
        by_steps = every is not None and step > 0 and step % every == 0
        return by_steps or (seconds is not None and time.monotonic() - self._saved > seconds)

    @torch.no_grad()
    def validate(self) -> dict[str, float] | None:
        """Losses per frame on the validation set, without augmentation; None if asked to stop meanwhile."""
        meter = Meter()
        self.model.eval()
        self._set_clock()
        seed_all(self.config.seed)
        for batch in self.batches.valid():
            if self.world.size == 1 and self.stop.requested:
                return None
            frames, tokens = self.batches.frames(batch), self.batches.tokens(batch)
            with autocast(self.device, self.precision):
                meter.add(self.model(batch.to(self.device)), frames, tokens)
        self.model.train()
        return meter.means(self.world)[0]

    def tick(self) -> None:
        """Add the time since the last call to the seconds that training took."""
        now = time.monotonic()
        self.progress.seconds += now - self._started
        self._started = now

    def state_dict(self) -> dict:
        """Everything needed to go on exactly from here; call it in every process, at the same step."""
        self.nonfinite.flush(self.progress)
        self.tick()
        meter = self.epoch_meter.state_dict(self.world)
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "progress": self.progress.to_dict(),
            "meter": meter,
            "processes": self.world.size,
            "step": self.batches.step._asdict(),
            **self.updater.state_dict(),
        }

    def load_state_dict(self, state: dict, source: str | Path) -> None:
        """Go on from `state_dict()`'s value, read from `source`; `UserError` when it is another model's."""
        fit_state(self.model, state["model"], source)
        if state["processes"] != self.world.size and state["progress"]["batch"]:
            raise UserError(
                f"{source} was written in the middle of an epoch by {state['processes']} processes, these are "
                f"{self.world.size}: start as many again (they share an epoch's batches)."
            )
        self.updater.load_state_dict(state)
        if self.average:
            self.average.load_state_dict(state["average"])
        self.progress = Progress(**state["progress"])
        if self.world.main:
            self.epoch_meter.load_state_dict(state["meter"])


def _groups(batches: Iterable, size: int) -> Iterator[list]:
    group: list = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _explained(error: Exception, where: str, limit: str) -> Exception:
    if is_out_of_memory(error):
        return UserError(
            f"Out of memory in {where}: lower {limit} (and raise accumulate to keep the batch), "
            "the same command with --restart or a new folder then starts again."
        )
    return error
