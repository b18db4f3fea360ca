"""One training from its first step, or from where it was left, to `averaged.pt` and `train.json`."""

from __future__ import annotations

import math
import time

from steps.training.averaging import averaged_model, toward
from steps.training.config import TrainConfig
from steps.training.folder import ANOTHER_FOLDER, TrainFolder
from steps.training.ledger import Ledger
from steps.training.signals import StopSignal
from steps.training.trainer import Batches, Trainer
from utils.checkpoint import fit_state, load_checkpoint, own_tensors, save_checkpoint
from utils.errors import UserError


class Session:
    """Ties the loop to its folder and its ledger."""

    def __init__(
        self, config: TrainConfig, trainer: Trainer, batches: Batches, folder: TrainFolder, ledger: Ledger
    ) -> None:
        self.config, self.trainer, self.batches = config, trainer, batches
        self.folder, self.ledger, self.world = folder, ledger, trainer.world
        self.averaged = 0  # how many epochs averaged.pt is the mean of
        trainer.on_log = lambda: ledger.progress(trainer)
        trainer.on_save = self.save
        trainer.on_valid = self.validate

    def resume(self, state: dict, source) -> None:
        """Go on from a state; `UserError` when the data or the model are others."""
        if state["progress"]["epoch"] > self.config.epochs:
            raise UserError(
                f"epochs={self.config.epochs}, but in {source} {state['progress']['epoch']} epochs are done: "
                "give as many or more, or --restart to begin again."
            )
        if state["data"] != self.batches.fingerprint():
            raise UserError(
                f"{source} was trained on other utterances than {self.batches.source} now holds: {ANOTHER_FOLDER}."
            )
        self.trainer.load_state_dict(state, source)
        self.trainer.nonfinite.forget(self.trainer.progress.step)
        p = self.trainer.progress
        self.ledger.say(f"going on from {source}: epoch {p.epoch + 1}, batch {p.batch}, step {p.step}")

    def state(self) -> dict:
        """What checkpoints hold; called in every process at the same step."""
        state = self.trainer.state_dict()
        state |= {"data": self.batches.fingerprint(), "precision": self.trainer.precision}
        return state | {"config": self.config.model_dump(mode="json")}

    def save(self) -> None:
        """Write `checkpoint.pt`."""
        state = self.state()
        if self.world.main:
            self.folder.save(state)

    def run(self, stop: StopSignal) -> bool:
        """Train to the end; False when asked to stop before (the state is saved)."""
        progress = self.trainer.progress
        self.ledger.open_board(progress.step)
        self.ledger.start_clock(self.trainer)
        while progress.epoch < self.config.epochs:
            started = time.monotonic()
            if not (self.trainer.run_epoch() and self.end_epoch(started)):
                self.save()
                self.ledger.say(f"stopped at step {progress.step} and saved: the same command continues")
                return False
        self.finish()
        return True

    def end_epoch(self, started: float) -> bool:
        """Validate and write `epoch-N.pt`; False when asked to stop meanwhile."""
        progress = self.trainer.progress
        valid = self.trainer.validate() if self.config.data.valid else {}
        if valid is None:
            return False
        final = self.trainer.end_epoch()
        best = self.note(valid)
        state = self.state()
        if self.world.main:
            self.folder.save_epoch(state, progress.epoch, self.config.kept_epochs, best)
        self.ledger.scalars(final, progress.step, "epoch/")
        text = f"epoch {progress.epoch}/{self.config.epochs} done in {time.monotonic() - started:.0f} s:"
        text += f" train {final['loss']:.4f}" + (f", valid {_show(valid)}" if valid else "")
        self.ledger.say(text + (" (best so far)" if best else ""))
        return True

    def validate(self) -> None:
        """Validation between two steps of an epoch; a best model is kept as `best.pt`."""
        valid = self.trainer.validate() if self.config.data.valid else {}
        if valid and self.note(valid):
            state = self.state()
            if self.world.main:
                save_checkpoint(self.folder.path / "best.pt", state)
        if valid:
            self.ledger.say(f"step {self.trainer.progress.step}: valid {_show(valid)}")

    def note(self, valid: dict[str, float]) -> bool:
        """Write validation losses down; True when they are the best so far."""
        progress = self.trainer.progress
        progress.valid = valid
        self.ledger.scalars(valid, progress.step, "valid/")
        loss = valid.get("loss", math.nan)
        best = math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss)
        if best:
            progress.best_loss = loss
            count = self.batches.count(progress.epoch)
            progress.best_epoch = round(progress.epoch + progress.batch / count, 3)
        return best

    def average(self) -> tuple[dict, int]:
        """The averaged model and over how many epochs: fewer than configured where an `epoch-N.pt` was deleted."""
        epochs, wanted = self.config.epochs, self.config.averaged_epochs
        counts = [epochs - start for start in (0, *self.folder.epochs()) if 0 < epochs - start <= wanted]
        if not counts:
            return averaged_model(self.folder.path, epochs, 1, plain=True), 1
        return averaged_model(self.folder.path, epochs, max(counts)), max(counts)

    def finish(self) -> None:
        """Write `averaged.pt` and leave its parameters, and their validation losses, in place of the last ones."""
        progress, config = self.trainer.progress, self.config
        file = self.folder.path / "averaged.pt"
        if self.world.main:
            model, self.averaged = self.average()
            if config.average.initial:
                model = toward(model, self.folder.initial(), config.average.initial)
            what = {"epoch": config.epochs, "averaged_epochs": self.averaged, "step": progress.step}
            save_checkpoint(file, {"model": own_tensors(model), **what})
        self.world.wait()
        fit_state(self.trainer.model, load_checkpoint(file)["model"], file)
        if config.data.valid and (valid := self.trainer.validate()):
            progress.valid = valid
            self.ledger.say(f"{file.name}: valid {_show(valid)}")
            self.ledger.scalars(valid, progress.step, "averaged/")
        self.trainer.tick()


def _show(losses: dict[str, float]) -> str:
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items() if name != "loss")
    return f"{losses['loss']:.4f} ({parts})"
