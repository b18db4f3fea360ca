"""Checkpoints: written whole or not at all, read without running code in them, averaged, fitted by name and shape."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import atomic_path, require

FORMAT = 1


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists and dicts of these) to `path` atomically, marked with the format.

    Errors: OSError, of a full disk for instance; what was at `path` before is then still there.
    """
    with atomic_path(path) as temporary:
        sink = _Sink(temporary)
        torch.save({"format": FORMAT, **state}, sink)
        sink.close()
        if sink.error is not None:
            raise OSError(sink.error.errno, sink.error.strerror, str(path))


class _Sink:
    """A file for torch.save that keeps the first error and then takes everything.

    torch's own writer reports a full disk without the reason, and that of torch 1.13 ends the process.
    """

    def __init__(self, path: Path) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self.error: OSError | None = None

    def _try(self, action: Callable[[], object]) -> None:
        if self.error is None:
            try:
                action()
            except OSError as error:
                self.error = error

    def write(self, data: bytes) -> int:
        """Write unless something failed before."""
        self._try(lambda: self.file.write(data))
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Give the system what is still in this process."""
        self._try(self.file.flush)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        with contextlib.suppress(OSError):  # of what could not be flushed
            self.file.close()


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The dictionary in `path`, tensors on `device`; `UserError` when it is missing, truncated or not a checkpoint."""
    require(path, "stage 5 (training)")
    try:
        state = _read(path, device)
    except Exception as error:  # torch raises half a dozen types for damaged files
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} is truncated or is not a checkpoint ({why}): make it again, or use an older one."
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint: give a file written by steps.train.")
    if state.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path} has checkpoint format {state['format']}, this program reads {FORMAT}: train it again.")
    return state


def _read(path: str | Path, device: str | torch.device) -> Any:
    """torch.load of data only."""
    if torch.__version__ >= "2":
        return torch.load(path, map_location=device, weights_only=True)
    # torch 1.13's weights_only knows no floats, and its load() ignores the pickle module that it is given
    with open(path, "rb") as file, torch.serialization._open_zipfile_reader(file) as reader:
        return torch.serialization._load(reader, device, _DataOnly, encoding="utf-8")


class _DataOnly:
    """A pickle module that rebuilds tensors and plain containers and refuses everything else."""

    class Unpickler(pickle.Unpickler):
        """What torch.load asks of a pickle module."""

        def find_class(self, module: str, name: str) -> Any:
            tensors = module == "torch._utils" and name.startswith("_rebuild_")
            storages = module == "torch" and (name.endswith("Storage") or name in ("Size", "device"))
            if tensors or storages or (module, name) == ("collections", "OrderedDict"):
                return super().find_class(module, name)
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


def fit_state(module: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load `state` into `module`; a key missing or of another shape is a `UserError` naming `source` and the key."""
    own = module.state_dict()
    for key, value in own.items():
        if key not in state:
            raise UserError(f"{source} is from another model: it has no '{key}'; use the config it was trained with.")
        if state[key].shape != value.shape:
            found, wanted = tuple(state[key].shape), tuple(value.shape)
            raise UserError(
                f"{source} is from another model: '{key}' has shape {found}, here it is {wanted}; "
                "use the config it was trained with."
            )
    extra = next((key for key in state if key not in own), None)
    if extra is not None:
        raise UserError(f"{source} is from another model: it has '{extra}', which this one lacks; use its own config.")
    module.load_state_dict(state, strict=False)  # a module may leave out of its state what it reads from elsewhere


def own_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with every tensor in memory of its own, so that saving a part does not save all that it shares with."""
    return {key: value.detach().clone() for key, value in state.items()}


def average_states(states: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several models' states, accumulated in float64; what is not floating point comes from the last one.

    Errors: ValueError when there is none or when their keys differ.
    """
    total: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    count = 0
    for last in states:
        if count and last.keys() != total.keys():
            raise ValueError(f"states of different models: {sorted(last.keys() ^ total.keys())[:3]}")
        for key, value in last.items():
            if not value.is_floating_point():
                total[key] = value
            elif count:
                total[key] += value.double()
            else:
                total[key] = value.to(torch.float64, copy=True)
        count += 1
    if not count:
        raise ValueError("no states to average")
    return {
        key: (total[key] / count).to(value.dtype) if value.is_floating_point() else value for key, value in last.items()
    }


def link_or_copy(source: str | Path, path: str | Path) -> None:
    """Make `path` another name of `source`, atomically; a copy where the file system has no hard links."""
    with atomic_path(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(Path(source).read_bytes())
