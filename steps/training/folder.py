"""The folder of a model in training: one trainer at a time, files written whole, and a state to go on from."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import re
import shutil
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor

from steps.training.config import LoopConfig
from utils.checkpoint import link_or_copy, load_checkpoint, own_tensors, save_checkpoint
from utils.errors import UserError
from utils.files import read_json, require
from utils.options import check_config, load_yaml, save_config

# keys that change neither the data nor the model: a run may go on with others
FREE = {
    *("epochs", "log_every", "save_every_steps", "save_every_seconds", "keep_last", "valid_every", "probe", "device"),
    *("max_nonfinite", "data.workers", "seconds_per_gb", "tokens_per_gb"),
}
INITIAL = "initial.pt"
OURS = (INITIAL, "checkpoint.pt", "averaged.pt", "best.pt", "epoch-*.pt", "train.json", "config.yaml", "features.yaml")
FOLDERS = ("lang", "log", "pretrained", "tensorboard")
# what to do about a folder whose model is another one
ANOTHER_FOLDER = "use another folder (--exp of a recipe, --out of steps.train), or --restart of steps.train"


class TrainFolder:
    """`exp/<model>/` while it is trained."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = None

    def lock(self) -> None:
        """Make the folder, keep others out while this process lives, and remove what a killed one left half."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another process trains in {self.path}: wait for it, or give another --out.") from None
        for left in self.path.glob(".tmp-*"):
            left.unlink(missing_ok=True)

    def begin(self, restart: bool) -> None:
        """Keep others out, and delete what an earlier training left if it is not to go on."""
        self.lock()
        states = {file.name for file in self.path.glob("*.pt")} - {INITIAL}
        if restart or not states:  # what a failed beginning left must not bind the next one
            self.clear()

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()

    def clear(self) -> None:
        """Delete what an earlier training wrote here."""
        for pattern in OURS:
            for file in self.path.glob(pattern):
                file.unlink()
        for name in FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def check_config(self, config: LoopConfig) -> None:
        """Refuse to go on with another config than the one that the files here were made with; else save it.

        What a process holds at once is free where a step has a size of its own.
        """
        file, values = self.path / "config.yaml", config.model_dump(mode="json")
        if file.exists():
            old = load_yaml(file)
            with contextlib.suppress(UserError):  # a file of an older version lacks keys that have been added since
                old = check_config(old, type(config), str(file)).model_dump(mode="json")
            changed = sorted(_changed(old, values) - ({config.limit} if config.batch_total else set()))
            if changed:
                more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
                raise UserError(
                    f"{self.path} was trained with other values of {', '.join(changed[:4])}{more}: {ANOTHER_FOLDER}."
                )
        save_config(file, config)

    def lang(self, head: str) -> Path:
        """The model's own copy of a head's lang folder."""
        return self.path / "lang" / head

    def copy_features(self, features: BaseModel) -> None:
        """Copy the feature options, so that recordings can be made into what the model reads."""
        save_config(self.path / "features.yaml", features)

    def copy_langs(self, langs: dict[str, Path]) -> None:
        """Copy lang folders (by head), so that the model needs nothing outside its folder.

        Errors: `UserError` when one is missing, or has other tokens than this model was begun with.
        """
        for head, source in langs.items():
            own = self.lang(head)
            if own.exists():
                if source.exists() and not filecmp.cmp(own / "tokens.txt", source / "tokens.txt", shallow=False):
                    raise UserError(
                        f"{source} has other tokens than {own}, which training was begun with: {ANOTHER_FOLDER}."
                    )
                continue
            require(source / "tokens.txt", "stage 3 (lang)")
            half = own.with_name(f".tmp-{head}")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(source, half)
            half.rename(own)

    def epochs(self) -> dict[int, Path]:
        """The `epoch-N.pt` that are there, by N, rising."""
        found = {
            int(m[1]): file for file in self.path.glob("epoch-*.pt") if (m := re.fullmatch(r"epoch-(\d+)", file.stem))
        }
        return dict(sorted(found.items()))

    def newest(self) -> tuple[dict | None, Path | None, list[str]]:
        """The newest state that can be read, its file, and a sentence for each newer one that cannot.

        Errors: `UserError` when there are files and none can be read.
        """
        files = [self.path / "checkpoint.pt", *reversed(self.epochs().values())]
        files = [file for file in files if file.exists()]
        complaints = []
        for file in files:
            try:
                state = load_checkpoint(file)
                if "progress" not in state:
                    raise UserError(f"{file} holds a model without the state of its training.")
                return state, file, complaints
            except UserError as error:
                complaints.append(str(error))
        if files:
            raise UserError(f"{complaints[0]} Nothing older is left in {self.path}: --restart begins again.")
        return None, None, []

    def save(self, state: dict) -> None:
        """Write the state to go on from."""
        save_checkpoint(self.path / "checkpoint.pt", state)

    def save_epoch(self, state: dict, epoch: int, keep: int, best: bool) -> None:
        """Write `epoch-<epoch>.pt` (from 1), the newest state too, and drop epochs older than the last `keep`."""
        file = self.path / f"epoch-{epoch}.pt"
        save_checkpoint(file, state)
        link_or_copy(file, self.path / "checkpoint.pt")
        if best:
            link_or_copy(file, self.path / "best.pt")
        for number, old in self.epochs().items():
            if number <= epoch - keep:
                old.unlink()

    def save_initial(self, begun: dict[str, Tensor]) -> None:
        """Keep what training begins with for `average.initial`; `UserError` if nothing of it was trained before."""
        if not begun:
            raise UserError(
                "average.initial: nothing that is trained here was trained before (adapters begin anew): leave it out, "
                "or give a pretrained part or init."
            )
        save_checkpoint(self.path / INITIAL, {"model": own_tensors(begun)})

    def initial(self) -> dict[str, Tensor]:
        """What `save_initial` was given."""
        if not (file := self.path / INITIAL).exists():
            raise UserError(f"{file} does not exist: it is kept where the config has average.initial.")
        return load_checkpoint(file)["model"]

    def finished(self, epochs: int) -> bool:
        """Whether training of this many epochs is done and written down."""
        needed = [self.path / "averaged.pt", self.path / "train.json"]
        needed += [self.path / f"epoch-{epochs}.pt"] if epochs else []
        if not all(file.exists() for file in needed):
            return False
        with contextlib.suppress(UserError):
            return read_json(self.path / "train.json").get("epochs") == epochs
        return False


def _changed(old: dict, new: dict, prefix: str = "") -> set[str]:
    """Dotted names of the values that differ and matter."""
    changed = set()
    for key in old.keys() | new.keys():
        name = prefix + key
        if name in FREE:
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed |= _changed(before, after, f"{name}.")
        elif before != after:
            changed.add(name)
    return changed
