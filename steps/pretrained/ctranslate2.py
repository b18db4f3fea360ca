"""Whisper in CTranslate2's format as a folder that transformers reads.

The binary format is CTranslate2's `ModelSpec.save` (version 6): names and strings with their length before them and a
zero behind, then each variable's shape, type and bytes. Half- and full-precision models are read, not quantised ones.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors.torch import save_file

from utils.errors import UserError
from utils.files import atomic_path, read_json, require, write_json

TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
# CTranslate2's name of a layer's part -> transformers' (a fused projection has several)
_SELF = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_CROSS = ("encoder_attn.q_proj", "encoder_attn.k_proj", "encoder_attn.v_proj")
_PARTS: dict[str, tuple[str, ...]] = {
    "self_attention/linear_0": _SELF,
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": _CROSS[:1],
    "attention/linear_1": _CROSS[1:],
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}
_TOP = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
    **{f"conv{n}/{kind}": f"conv{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")},
}
_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def read_variables(path: str | Path) -> dict[str, np.ndarray]:
    """The variables of a `model.bin` by name; `UserError` where it is truncated, of another kind, or another file."""
    try:
        with open(require(path), "rb") as file:
            version, name = _number(file, "I"), _string(file)
            if name != "WhisperSpec" or version < 4:
                raise UserError(f"{path} holds a {name} of format {version}: a WhisperSpec of format 4 to 6 is read.")
            file.read(4)  # the specification's revision
            return dict(_variable(file) for _ in range(_number(file, "I")))
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is truncated or no model of CTranslate2 ({error}): fetch it again.") from None


def _number(file: BinaryIO, kind: str) -> int:
    return struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))[0]


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode("utf-8")


def _variable(file: BinaryIO) -> tuple[str, np.ndarray]:
    name, rank = _string(file), _number(file, "B")
    shape = [_number(file, "I") for _ in range(rank)]
    kind, size = TYPES[_number(file, "B")], _number(file, "I")
    return name, np.frombuffer(file.read(size), dtype=kind).reshape(shape)


def whisper_weights(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Parameters of transformers' `WhisperForConditionalGeneration` (half precision) from CTranslate2's variables."""
    if any(name.endswith("weight_scale") for name in variables):
        raise UserError("This model of CTranslate2 is quantised to integers: give one in float16 or float32.")
    weights = {}
    for name, value in variables.items():
        half, _, rest = name.partition("/")
        if half not in ("encoder", "decoder") or value.ndim == 0:
            continue
        if rest in _TOP:
            weights[f"model.{half}.{_TOP[rest]}"] = torch.from_numpy(value.copy())
        elif rest.startswith("layer_"):
            layer, _, rest = rest.partition("/")
            part, _, kind = rest.rpartition("/")
            if part not in _PARTS:
                raise UserError(f"This model of CTranslate2 has '{name}', which no Whisper has: give another one.")
            targets = _PARTS[part]
            for target, piece in zip(targets, np.split(value, len(targets)), strict=True):
                if target.endswith("k_proj") and kind == "bias":
                    continue  # Whisper's keys have none
                key = f"model.{half}.layers.{layer[6:]}.{target}.{_KINDS[kind]}"
                weights[key] = torch.from_numpy(piece.copy())
    return weights


def convert_whisper(model: str | Path, tokenizer: str | Path, config: str | Path, out: str | Path) -> None:
    """Write a folder of transformers' (`config.json`, `model.safetensors`, `tokenizer.json`) from CTranslate2's files.

    `config` is CTranslate2's `config.json` (alignment heads, suppressed tokens), `tokenizer` a `tokenizer.json`.
    """
    variables = read_variables(model)
    weights = whisper_weights(variables)
    layers = {half: 1 + max(_layers(weights, half)) for half in ("encoder", "decoder")}
    vocab, dim = weights["model.decoder.embed_tokens.weight"].shape
    extra, out = read_json(config), Path(out)
    multilingual = vocab >= 51865
    start = 50258 if multilingual else 50257
    end = start - 1
    about = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "d_model": dim,
        "encoder_layers": layers["encoder"],
        "decoder_layers": layers["decoder"],
        "encoder_attention_heads": int(variables["encoder/num_heads"]),
        "decoder_attention_heads": int(variables["decoder/num_heads"]),
        "encoder_ffn_dim": weights["model.encoder.layers.0.fc1.weight"].shape[0],
        "decoder_ffn_dim": weights["model.decoder.layers.0.fc1.weight"].shape[0],
        "num_mel_bins": weights["model.encoder.conv1.weight"].shape[1],
        "max_source_positions": weights["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": weights["model.decoder.embed_positions.weight"].shape[0],
        "vocab_size": vocab,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
        "suppress_tokens": extra.get("suppress_ids", []),
        "begin_suppress_tokens": extra.get("suppress_ids_begin", []),
        "torch_dtype": "float16",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, write in (
        ("tokenizer.json", lambda file: file.write_bytes(require(tokenizer).read_bytes())),
        ("model.safetensors", lambda file: save_file(weights, file, {"format": "pt"})),
    ):
        with atomic_path(out / name) as temporary:
            write(temporary)
    write_json(out / "config.json", about)  # last: it vouches for the rest


def _layers(weights: dict[str, torch.Tensor], half: str) -> list[int]:
    prefix = f"model.{half}.layers."
    return [int(name[len(prefix) :].split(".")[0]) for name in weights if name.startswith(prefix)]
