"""Whisper in CTranslate2's format: the same model as the one that it was made from."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from steps.pretrained.ctranslate2 import convert_whisper, read_variables, whisper_weights
from utils.errors import UserError

# CTranslate2's names of a layer's parts, as its converter for Whisper fills them (fused projections in this order)
LAYER = {
    "self_attention/layer_norm": ["self_attn_layer_norm"],
    "self_attention/linear_0": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "self_attention/linear_1": ["self_attn.out_proj"],
    "ffn/layer_norm": ["final_layer_norm"],
    "ffn/linear_0": ["fc1"],
    "ffn/linear_1": ["fc2"],
}
CROSS = {
    "attention/layer_norm": ["encoder_attn_layer_norm"],
    "attention/linear_0": ["encoder_attn.q_proj"],
    "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "attention/linear_2": ["encoder_attn.out_proj"],
}
KINDS = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}


def variables(model) -> dict[str, np.ndarray]:
    """What CTranslate2's converter makes of transformers' Whisper."""
    state = {name: value.numpy() for name, value in model.model.state_dict().items()}
    found = {"decoder/projection/weight": state["decoder.embed_tokens.weight"]}
    for half, parts in (("encoder", LAYER), ("decoder", {**LAYER, **CROSS})):
        found[f"{half}/num_heads"] = np.array(2, dtype=np.int8)
        found[f"{half}/position_encodings/encodings"] = state[f"{half}.embed_positions.weight"]
        found[f"{half}/layer_norm/gamma"] = state[f"{half}.layer_norm.weight"]
        found[f"{half}/layer_norm/beta"] = state[f"{half}.layer_norm.bias"]
        for layer in range(2):
            for part, names in parts.items():
                for kind in ("weight", "bias"):
                    whole = [f"{half}.layers.{layer}.{name}.{kind}" for name in names]
                    zeros = np.zeros(16, dtype=np.float32)  # Whisper's keys have no bias
                    ours = {"weight": "gamma", "bias": "beta"}[kind] if "norm" in part else kind
                    values = np.concatenate([state.get(name, zeros) for name in whole])
                    found[f"{half}/layer_{layer}/{part}/{ours}"] = values
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            found[f"encoder/{conv}/{kind}"] = state[f"encoder.{conv}.{kind}"]
    found["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    return found


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write(path: Path, values: dict[str, np.ndarray], name: str = "WhisperSpec", version: int = 6) -> Path:
    """CTranslate2's `ModelSpec._serialize`, without aliases."""
    data = struct.pack("<I", version) + string(name) + struct.pack("<II", 3, len(values))
    for key, value in values.items():
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += string(key) + shape + struct.pack("<BI", KINDS[value.dtype], value.nbytes) + value.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))
    return path


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_model_is_the_same(tiny_whisper, tmp_path, kind):
    folder, model = tiny_whisper
    values = {name: v.astype(kind) if v.ndim else v for name, v in variables(model).items()}
    (tmp_path / "config.json").write_text(json.dumps({"suppress_ids": [3], "suppress_ids_begin": [4]}))
    file = write(tmp_path / "model.bin", values)
    convert_whisper(file, folder / "tokenizer.json", tmp_path / "config.json", tmp_path / "out")
    found, expected = load_file(tmp_path / "out" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].float(), value, atol=2e-3 if kind == np.float16 else 0, rtol=1e-3)
    about, theirs = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "out", folder))
    sizes = [key for key in about if key.endswith(("_layers", "_heads", "_dim", "_positions", "_bins", "d_model"))]
    assert len(sizes) == 10 and {key: about[key] for key in sizes} == {key: theirs[key] for key in sizes}
    assert about["suppress_tokens"] == [3] and about["vocab_size"] == theirs["vocab_size"]
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.95])
def test_truncated_files(tiny_whisper, tmp_path, share):
    file = write(tmp_path / "model.bin", variables(tiny_whisper[1]))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UserError, match=r"model.bin is truncated or no model of CTranslate2 \(.*\): fetch it again"):
        read_variables(file)


def test_models_that_are_not_read(tmp_path):
    with pytest.raises(UserError, match="holds a TransformerSpec of format 6: a WhisperSpec of format 4 to 6 is read"):
        read_variables(write(tmp_path / "a.bin", {}, "TransformerSpec"))
    with pytest.raises(UserError, match="holds a WhisperSpec of format 3"):
        read_variables(write(tmp_path / "a.bin", {}, version=3))
    layer = "decoder/layer_0/ffn/linear_0/"
    values = {f"{layer}weight": np.ones((2, 2), np.int8), f"{layer}weight_scale": np.ones(2, np.float32)}
    with pytest.raises(UserError, match="is quantised to integers: give one in float16 or float32"):
        whisper_weights(read_variables(write(tmp_path / "int8.bin", values)))
    with pytest.raises(UserError, match="has 'encoder/layer_0/gate/weight', which no Whisper has"):
        whisper_weights({"encoder/layer_0/gate/weight": np.ones((2, 2), np.float32)})
