"""Folders in Hugging Face's layout: `config.json`, weights in safetensors or torch's format, a tokenizer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.files import read_json, require

# all of a model but its weights
SMALL = ("*.json", "*.txt", "*.model", "*.spm", "*.bpe", "*.tiktoken", "*.jinja")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# fetched in this order until there are weights: old models have no safetensors
KINDS = ("model*.safetensors", "pytorch_model*.bin")


def _absolute(path: str) -> str:
    """A folder's whole path, so that a model folder that names it can be used from anywhere; else a name, unchanged."""
    folder = Path(path).expanduser()
    return os.path.abspath(folder) if folder.is_dir() else path


ModelPath = Annotated[str, AfterValidator(_absolute)]  # in configs: a model's folder, or its name on the hub


def find_model(path: str, key: str = "path") -> Path:
    """The folder of a model: `path` itself, or the hub's model of that name, fetched once into the hub's cache.

    Errors: `UserError` naming `key` for a folder without `config.json`, and for a name that cannot be had.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"{key}: {path} holds no config.json: give the folder of a model of transformers.")
        return folder
    if folder.exists() or path.startswith(("/", ".", "~")) or path.count("/") > 1:
        raise UserError(f"{key}: {path} is no folder: give the folder of a model, or its name on the hub.")
    return _from_hub(path, key)


def _from_hub(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download

    with contextlib.suppress(Exception):  # not in the cache
        folder = Path(snapshot_download(name, local_files_only=True))
        if is_whole(folder):
            return folder
    try:
        for weights in KINDS:
            folder = Path(snapshot_download(name, etag_timeout=10, allow_patterns=[*SMALL, weights]))
            if is_whole(folder):
                return folder
    except Exception as error:  # whatever the network, the hub or a wrong name gives
        why = str(error).strip().partition("\n")[0][:120]
        raise UserError(
            f"{key}: '{name}' is neither a folder here nor could it be had from the hub ({why}): "
            "check its spelling and the network, or give a folder."
        ) from None
    raise UserError(f"{key}: '{name}' on the hub is no model of transformers with its weights: give another one.")


def is_whole(folder: Path) -> bool:
    """Whether a model's configuration and all its weights are there."""
    names = [name for name in WEIGHTS if (folder / name).exists()]
    if not names or not (folder / "config.json").exists():
        return False
    return all((folder / name).exists() for name in _weight_files(folder, names[0]))


def read_config(folder: Path, model_type: str | None = None, keys: Sequence[str] = ()) -> dict:
    """`config.json` of a model's folder, of which `keys` alone if any are given.

    Errors: `UserError` where it is another kind of model than `model_type`, or lacks one of `keys`.
    """
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise UserError(f"{folder / 'config.json'} describes no model: copy or download the model again.")
    found = values.get("model_type")
    if model_type is not None and found != model_type:
        raise UserError(f"{folder} holds a model of type '{found}', not '{model_type}': give another 'name' or 'path'.")
    if missing := next((key for key in keys if values.get(key) is None), None):
        raise UserError(f"{folder / 'config.json'} lacks '{missing}': copy or download the model again.")
    return {key: values[key] for key in keys} if keys else values


def weight_files(folder: Path) -> list[Path]:
    """The files with a model's weights; `UserError` where there are none, or not all."""
    name = next((name for name in WEIGHTS if (folder / name).exists()), None)
    if name is None:
        raise UserError(f"{folder} holds no weights ({' or '.join(WEIGHTS[::2])}): copy or download the model again.")
    return [require(folder / file) for file in _weight_files(folder, name)]


def read_weights(folder: Path, rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    """The tensors (float32) for which `rename` gives a name; `UserError` for missing or truncated files."""
    return {key: value for file in weight_files(folder) for key, value in _tensors(file, rename).items()}


def _weight_files(folder: Path, name: str) -> list[str]:
    """The files with the tensors: `name` itself, or those that an index of this name lists."""
    return sorted(set(read_json(folder / name)["weight_map"].values())) if name.endswith(".index.json") else [name]


def _tensors(file: Path, rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        state = load_checkpoint(file)
        return {new: value.float() for key, value in state.items() if (new := rename(key)) is not None}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as tensors:
            kept = {key: new for key in tensors.keys() if (new := rename(key)) is not None}  # noqa: SIM118
            return {new: tensors.get_tensor(key).to(torch.float32) for key, new in kept.items()}
    except SafetensorError as error:
        raise UserError(f"{file} is truncated or no safetensors file ({error}): copy it again.") from None
