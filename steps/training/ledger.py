"""What training tells: a progress line, a log file, TensorBoard, and `train.json` at the end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from steps.training.meters import Meter
from steps.training.trainer import Trainer
from utils.distributed import World

# a second's worth of a training set's unit, in the progress line and in TensorBoard
RATES = {"seconds": ("h/h", "hours_per_hour"), "tokens": ("tokens/s", "tokens_per_second")}
SMOOTH = 0.7  # weight of the past in the speed that "left" is estimated with


class Ledger:
    """Writes down how training goes; silent in every process but the main one.

    Args:
      folder: `exp/<model>`; the log is `log/train.log`, the curves are in `tensorboard/`.
      total: what an epoch has, in `unit`s: seconds of speech or tokens of text.
    """

    def __init__(self, folder: Path, world: World, total: float, epochs: int, unit: str = "seconds") -> None:
        self.folder, self.world = folder, world
        self.total, self.epochs = total, epochs
        self.rate, self.curve = RATES[unit]
        self.speed: float | None = None  # units per second
        self._mark: tuple[float, float] | None = None
        self._board = None
        self._open_line = False

    def say(self, text: str) -> None:
        """One line for the terminal and the log file."""
        if not self.world.main:
            return
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False
        print(text, file=sys.stderr, flush=True)
        self._write(text)

    def _write(self, text: str) -> None:
        file = self.folder / "log" / "train.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as out:
            out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def open_board(self, step: int) -> None:
        """Start TensorBoard's file; what was written after `step` before an interruption is taken back."""
        if not self.world.main:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            self.say(f"TensorBoard is off ({error}): pip install tensorboard switches it on")
            return
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step if step else None, flush_secs=30)

    def scalars(self, values: dict[str, float], step: int, prefix: str = "") -> None:
        """Numbers for TensorBoard."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(prefix + name, value, step)

    def start_clock(self, trainer: Trainer) -> None:
        """Measure the speed from here on."""
        self._mark = (time.monotonic(), trainer.progress.speech)

    def progress(self, trainer: Trainer) -> None:
        """The progress line, and the curves, since the last call; every process must call it."""
        by_frame, by_token = trainer.meter.means(trainer.world)
        trainer.meter = Meter(skip_nonfinite=True)
        skipped = trainer.nonfinite.flush(trainer.progress)
        if not self.world.main:
            return
        p, speed = trainer.progress, self._measure(trainer.progress.speech)
        norm = trainer.grad_norm()
        parts = " ".join(f"{name} {value:.3f}" for name, value in by_frame.items() if name != "loss")
        text = f"epoch {p.epoch + 1}/{self.epochs} step {p.step}: loss {by_frame['loss']:.4f} ({parts})"
        text += f" lr {trainer.lr:.2e} norm {norm:.2g} {speed:.0f} {self.rate}, left {self.left(p.speech)}"
        if skipped:
            text += f", {skipped} steps skipped (not finite)"
        self._line(text)
        self.scalars(by_frame, p.step, "train/")
        self.scalars(by_token, p.step, "train_per_token/")
        rest = {"lr": trainer.lr, "grad_norm": norm, self.curve: speed, "skipped_steps": p.skipped}
        self.scalars(rest, p.step, "loop/")

    def _measure(self, speech: float) -> float:
        now, (then, before) = time.monotonic(), self._mark or (time.monotonic(), speech)
        self._mark = (now, speech)
        if now > then and speech > before:
            speed = (speech - before) / (now - then)
            self.speed = speed if self.speed is None else SMOOTH * self.speed + (1 - SMOOTH) * speed
        return self.speed or 0.0

    def left(self, speech: float) -> str:
        """Time left at the present speed, as h:mm:ss; `speech` is what was seen, in units."""
        if not self.speed:
            return "?"
        seconds = int(max(self.total * self.epochs - speech, 0.0) / self.speed)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def _line(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._open_line = True
            self._write(text)
        else:
            self.say(text)

    def close(self) -> None:
        """Finish the line and the files."""
        if self._open_line:
            print(file=sys.stderr)
        if self._board is not None:
            self._board.close()
