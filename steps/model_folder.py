"""A trained model as a folder: config, tokens and parameters, everything needed to use it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from steps.lang.pretrained import check_tokens
from steps.lang.tokenizer import Tokenizer
from steps.nets.model import Model, ModelConfig
from steps.nets.pretrained_parts import PartedModel
from steps.pretrained.folder import find_model
from utils.checkpoint import fit_state, load_checkpoint
from utils.errors import UserError
from utils.files import require, write_text
from utils.options import C, check_config, load_yaml

PRETRAINED = "pretrained"  # subfolder with the shapes of pretrained parts


def load_model(
    folder: str | Path, checkpoint: str = "averaged.pt", device: str | torch.device = "cpu"
) -> tuple[Model, dict[str, Tokenizer], ModelConfig]:
    """The model in `exp/<model>/`, in evaluation mode on `device`, its tokenizers by head name, and its config.

    `checkpoint` is a file in the folder (`averaged.pt`, `epoch-7.pt`, `best.pt`) or a path.
    Errors: `UserError` when something is missing, truncated, or belongs to another model.
    """
    folder = Path(folder)
    config = load_model_config(folder)
    tokenizers = {head: Tokenizer.load(folder / "lang" / head) for head in config.heads}
    state, file = read_checkpoint(folder, checkpoint)
    sizes = {head: tokenizer.vocab_size for head, tokenizer in tokenizers.items()}
    model = Model(config, sizes, folder / PRETRAINED)
    fill(model, state, tokenizers, file)
    for head, tokenizer in tokenizers.items():
        model.heads[head].suppress(list(tokenizer.suppressed))
        model.heads[head].not_first = tokenizer.not_first
    return model.to(device).eval(), tokenizers, config


def read_checkpoint(folder: Path, checkpoint: str) -> tuple[dict[str, Tensor], Path]:
    """The model's state in a file of the folder, or in another one, and that file."""
    file = folder / checkpoint if (folder / checkpoint).exists() else Path(checkpoint)
    if not file.exists():
        raise UserError(f"{folder / checkpoint} does not exist{_hint(folder)}.")
    state = load_checkpoint(file, "cpu")
    if "model" not in state:
        raise UserError(f"{file} holds no model: give a file written by steps.train or steps.average.")
    return state["model"], file


def fill(model: PartedModel, state: dict[str, Tensor], tokenizers: dict[str, Tokenizer], source: str | Path) -> None:
    """Load a checkpoint's `state`; pretrained parameters that it leaves out are read from where they came from."""
    read_elsewhere(model, state, tokenizers)
    fit_state(model, state, source)


def read_elsewhere(model: Model, state: dict[str, Tensor] | None, tokenizers: dict[str, Tokenizer]) -> None:
    """Read the pretrained parameters that a checkpoint's `state` (None: there is none yet) leaves out."""
    fixed = model.full_state().keys() - model.state_dict().keys()
    if state is None or fixed - state.keys():
        model.load_pretrained({head: tokenizer.ids for head, tokenizer in tokenizers.items()})
    if state is not None:
        model.replace({name: state[name] for name in fixed & state.keys()})


def copy_pretrained(config: ModelConfig, folder: Path) -> None:
    """Copy what describes every pretrained part into a model folder, which then tells the model's shape alone.

    Errors: `UserError` where a part is not there, or the lang folder of a head has another model's tokens.
    """
    parts = {"encoder": config.encoder, **{f"heads.{key}": head for key, head in config.heads.items()}}
    for name, part in parts.items():
        own = folder / PRETRAINED / name
        if (path := getattr(part, "path", None)) and not (own / "config.json").exists():
            source = find_model(path, f"{name}.path")
            if lang := getattr(part, "lang", None):
                check_tokens(Path(lang), source, f"{name}.lang")
            for file in ("preprocessor_config.json", "config.json"):
                if (source / file).exists():
                    write_text(own / file, (source / file).read_text("utf-8"))


def load_model_config(folder: str | Path) -> ModelConfig:
    """What `config.yaml` of a model folder says about the model (not about its training)."""
    folder = Path(folder)
    if folder.is_file():
        parent = folder.parent
        instead = f"{parent} with --checkpoint {folder.name}" if (parent / "config.yaml").exists() else "exp/<model>"
        raise UserError(f"{folder} is a file, a model is a folder: give {instead}.")
    values = load_yaml(require(folder / "config.yaml", "stage 5 (training)"))
    if kind := next((key for key in ("translator", "language_model") if key in values), None):
        raise UserError(f"{folder} holds a {kind.replace('_', ' ')}: give the folder of a model of speech.")
    return saved_config(folder, ModelConfig)


def saved_config(folder: str | Path, model: type[C]) -> C:
    """What `config.yaml` of a model folder says that `model` has a key for: not what concerns training alone."""
    file = require(Path(folder) / "config.yaml", "stage 5 (training)")
    values = load_yaml(file)
    return check_config({key: values[key] for key in model.model_fields if key in values}, model, str(file))


def _hint(folder: Path) -> str:
    there = sorted(file.name for file in folder.glob("*.pt"))
    return f": there are {', '.join(there)}" if there else ": run stage 5 (training) to its end"
