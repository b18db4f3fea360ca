"""Llama-like language models packed for llama.cpp (GGUF) as a folder that transformers reads.

The weights are dequantised by the `gguf` package of llama.cpp's authors; names, the order of the rows of queries and
keys, and the tokenizer become those of transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from utils.errors import UserError
from utils.files import atomic_path, require, write_json

# llama.cpp's name of a layer's part -> transformers'
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL, _USER = 3, 4  # llama.cpp's types of tokens


class Gguf:
    """A GGUF file: `values` by name, `tensors` in float32; `UserError` for anything but a whole one of a Llama."""

    def __init__(self, path: str | Path) -> None:
        try:
            reader = GGUFReader(require(path))
            self.values: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
            self.tensors: dict[str, np.ndarray] = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise UserError(f"{path} is truncated or no GGUF file ({error}): fetch it again.") from None
        if (kind := self.values.get("general.architecture")) != "llama":
            raise UserError(f"{path} holds a model of type '{kind}': of GGUF files, those of type 'llama' are read.")

    def __getitem__(self, key: str) -> Any:
        """A value of the architecture, such as `block_count`."""
        return self.values[f"llama.{key}"]


def llama_weights(file: Gguf) -> dict[str, torch.Tensor]:
    """Parameters of transformers' `LlamaForCausalLM` in half precision."""
    heads = {"attn_q": file["attention.head_count"], "attn_k": file["attention.head_count_kv"]}
    weights = {}
    for name, value in file.tensors.items():
        if name == "rope_freqs.weight":
            continue  # follows from the configuration
        stem, _, kind = name.rpartition(".")
        if stem.startswith("blk."):
            _, layer, part = stem.split(".")
            if part in heads:
                value = _halves_apart(value, heads[part])
            key = f"model.layers.{layer}.{_PARTS[part]}.{kind}"
        else:
            key = f"{_TOP[stem]}.{kind}"
        weights[key] = torch.from_numpy(value.astype(np.float16))
    return weights


def _halves_apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys: llama.cpp rotates neighbours against each other, transformers a head's two halves."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama_config(file: Gguf, weights: dict[str, torch.Tensor]) -> dict:
    """`config.json`."""
    values, heads = file.values, file["attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": file["embedding_length"],
        "intermediate_size": file["feed_forward_length"],
        "num_hidden_layers": file["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": file["attention.head_count_kv"],
        "head_dim": file.values.get("llama.rope.dimension_count", file["embedding_length"] // heads),
        "max_position_embeddings": file["context_length"],
        "rms_norm_eps": float(np.float32(file["attention.layer_norm_rms_epsilon"]).astype(str)),
        "rope_theta": file.values.get("llama.rope.freq_base", 10000.0),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "vocab_size": len(weights["model.embed_tokens.weight"]),
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float16",
    }


def llama_tokenizer(file: Gguf) -> Tokenizer:
    """The byte-level BPE tokenizer; `UserError` for one of another kind."""
    kind, how = (file.values.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if (kind, how) not in (("gpt2", "smollm"), ("gpt2", "gpt-2")):
        raise UserError(f"The file's tokenizer is of kind {kind}/{how}: gpt2/smollm and gpt2/gpt-2 are read.")
    tokens, types = (file.values[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    merges = [tuple(pair.split(" ")) for pair in file.values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if how == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    for token, type_ in zip(tokens, types, strict=True):
        if type_ in (_CONTROL, _USER):
            tokenizer.add_special_tokens([AddedToken(token, special=type_ == _CONTROL, normalized=False)])
    return tokenizer


def convert_gguf(path: str | Path, out: str | Path) -> None:
    """Write a folder of transformers' (`config.json`, `model.safetensors`, `tokenizer.json` ...) from a GGUF file."""
    file, out = Gguf(path), Path(out)
    weights, tokens = llama_weights(file), file.values["tokenizer.ggml.tokens"]
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name in ("bos", "eos"):
        about[f"{name}_token"] = tokens[file.values[f"tokenizer.ggml.{name}_token_id"]]
    if "tokenizer.chat_template" in file.values:
        about["chat_template"] = file.values["tokenizer.chat_template"]
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "tokenizer.json") as temporary:
        llama_tokenizer(file).save(str(temporary))
    write_json(out / "tokenizer_config.json", about)
    with atomic_path(out / "model.safetensors") as temporary:
        save_file(weights, temporary, {"format": "pt"})
    write_json(out / "config.json", llama_config(file, weights))  # last: it vouches for the rest
