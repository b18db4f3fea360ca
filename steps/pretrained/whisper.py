"""Whisper's parts (Radford et al. 2022, arXiv:2212.04356) in our modules: sizes, names of parameters, weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from steps.nets.transformer import TransformerConfig
from steps.pretrained.folder import read_config, read_weights

_RENAMED = {
    "self_attn_layer_norm": "norm_self_attn",
    "encoder_attn_layer_norm": "norm_src_attn",
    "final_layer_norm": "norm_ff",
    "encoder_attn": "src_attn",
    "q_proj": "linear_q",
    "k_proj": "linear_k",
    "v_proj": "linear_v",
    "fc1": "feed_forward.0",
    "fc2": "feed_forward.3",
    "embed_positions": "pos",
    "embed_tokens": "embed",
    "layer_norm": "norm",
}


def whisper_sizes(folder: Path, half: str, dropout: float) -> TransformerConfig:
    """The sizes of Whisper's `encoder` or `decoder` (`half`) from its `config.json`."""
    positions = "max_source_positions" if half == "encoder" else "max_target_positions"
    keys = ("d_model", f"{half}_layers", f"{half}_attention_heads", f"{half}_ffn_dim", positions)
    dim, layers, heads, feedforward_dim, max_positions = read_config(folder, "whisper", keys).values()
    return TransformerConfig(
        dim=dim,
        layers=layers,
        heads=heads,
        feedforward_dim=feedforward_dim,
        dropout=dropout,
        activation="gelu",
        positions="learned",
        max_positions=max_positions,
    )


def whisper_weights(folder: Path, half: str) -> dict[str, Tensor]:
    """Weights of Whisper's `encoder` or `decoder` under our names; keys get the bias (zero) that Whisper's lack."""
    prefix = re.compile(rf"(?:model\.)?{half}\.(.+)")

    def rename(key: str) -> str | None:
        match = prefix.fullmatch(key)
        return ".".join(_RENAMED.get(part, part) for part in match[1].split(".")) if match else None

    weights = read_weights(folder, rename)
    for key in [key for key in weights if key.endswith("linear_k.weight")]:
        weights[key.replace(".weight", ".bias")] = torch.zeros(weights[key].shape[0])
    return weights
