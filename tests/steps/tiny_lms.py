"""Neural language models of a few hundred parameters, as folders of steps.train."""

from __future__ import annotations

from pathlib import Path

import torch

from steps.lang.prepare import prepare
from steps.lang.tokenizer import Tokenizer
from steps.nets.language_model import NeuralLmConfig, build_language_model
from utils.checkpoint import save_checkpoint
from utils.options import save_config

LSTM = {"name": "lstm", "embedding_dim": 8, "hidden_dim": 8}
TRANSFORMER = {"name": "transformer", "dim": 16, "layers": 2, "heads": 2, "feedforward_dim": 16}


def write_lang(folder: Path, lines: list[str]) -> Tokenizer:
    """A lang folder of 45 pieces."""
    return prepare({"en": lines}, folder, "bpe", {"tags": False}, 45, "unigram")


def write_language_model(folder: Path, lines: list[str], about: dict) -> Path:
    """An untrained model of the pieces of `lines`."""
    config = NeuralLmConfig.model_validate({"language_model": {**about, "lang": "unused"}})
    torch.manual_seed(0)
    model = build_language_model(config, write_lang(folder / "lang" / "text", lines).vocab_size)
    save_config(folder / "config.yaml", config)
    save_checkpoint(folder / "averaged.pt", {"model": model.state_dict()})
    return folder
