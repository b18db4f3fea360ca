"""A neural language model as a folder: `exp/<model>/` of steps.train with a `language_model`."""

from __future__ import annotations

from pathlib import Path

import torch

from steps.lang.tokenizer import Tokenizer
from steps.model_folder import read_checkpoint, saved_config
from steps.nets.language_model import LanguageModel, NeuralLmConfig, build_language_model
from utils.checkpoint import fit_state
from utils.errors import UserError
from utils.files import require
from utils.options import load_yaml

TOKENS = "text"  # the model's copy of its lang folder is lang/text


def open_language_model(
    folder: str | Path, checkpoint: str = "averaged.pt", device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Tokenizer]:
    """The language model in `exp/<model>/`, in evaluation mode on `device`, and its tokens.

    Errors: `UserError` when something is missing, truncated, or belongs to another model.
    """
    folder = Path(folder)
    if "language_model" not in load_yaml(require(folder / "config.yaml", "stage 4 (language models)")):
        raise UserError(f"{folder} holds no language model: give the folder of one that steps.train made.")
    config = saved_config(folder, NeuralLmConfig)
    tokenizer = Tokenizer.load(folder / "lang" / TOKENS)
    state, file = read_checkpoint(folder, checkpoint)
    model = build_language_model(config, tokenizer.vocab_size)
    fit_state(model, state, file)
    return model.to(device).eval(), tokenizer
