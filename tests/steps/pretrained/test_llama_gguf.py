from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from steps.pretrained.llama_gguf import convert_gguf
from utils.errors import UserError

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
NAMES = {  # transformers' -> llama.cpp's, as its own converter writes them
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdeĠ123", "ab", "Ġc"]


def packed(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """llama.cpp's name of a tensor, and its rows in llama.cpp's order (convert_hf_to_gguf.py, `permute`)."""
    if name.startswith("model.layers."):
        _, _, layer, part = name.split(".", 3)
        stem, _, kind = part.rpartition(".")
        if NAMES[stem] in ("attn_q", "attn_k"):
            heads = 4 if NAMES[stem] == "attn_q" else 2
            value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        return f"blk.{layer}.{NAMES[stem]}.{kind}", value
    tops = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, kind = name.rpartition(".")
    return f"{tops[stem]}.{kind}", value


def write(path, model: LlamaForCausalLM, kind: str | None, architecture: str = "llama", pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b", "Ġ c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}<|im_end|>")
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        name, value = packed(name, value.numpy())
        if kind and value.ndim > 1:
            quantization = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(value, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    more = {"num_key_value_heads": 2, "vocab_size": len(TOKENS), "rope_theta": 100000.0, "rms_norm_eps": 1e-5}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **more, max_position_embeddings=128, initializer_range=0.2)).eval()


def test_it_computes_what_the_model_computed(llama, tmp_path):
    write(tmp_path / "x.gguf", llama, None)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).float().eval()
    ids = torch.tensor([[3, 5, 7, 9, 4, 6]])
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, llama(ids).logits, atol=1e-2, rtol=0)  # half precision
    assert found.config.rms_norm_eps == 1e-5 and found.config.max_position_embeddings == 128
    assert found.lm_head.weight is not found.model.embed_tokens.weight


@pytest.mark.parametrize("kind, levels", [("Q8_0", 255), ("Q4_1", 16)])
def test_quantised_weights_are_as_near_as_their_levels(llama, tmp_path, kind, levels):
    write(tmp_path / "x.gguf", llama, kind)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).float().state_dict()
    for name, value in llama.state_dict().items():
        assert (found[name] - value).abs().max() <= 0.55 * (2 * value.abs().max()) / (levels - 1), name


@pytest.mark.skipif(torch.__version__ < "2", reason="transformers reads no GGUF file with torch 1.13")
def test_dequantised_as_transformers_does(llama, tmp_path):
    write(tmp_path / "x.gguf", llama, "Q4_1")
    convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    options = {"gguf_file": "x.gguf", "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(str(tmp_path), **options).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).float().state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value.half().float()), name


def test_the_tokenizer_and_the_chat(llama, tmp_path):
    write(tmp_path / "x.gguf", llama, None)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert tokenizer.tokenize("ab c 12<|im_end|>d") == ["ab", "Ġc", "Ġ", "1", "2", "<|im_end|>", "d"]
    assert tokenizer.decode(tokenizer("ab c 12")["input_ids"]) == "ab c 12"
    assert tokenizer.eos_token_id == 2 and tokenizer.bos_token_id == 1
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab<|im_end|>"


def test_what_is_no_such_file_is_one_sentence(llama, tmp_path):
    write(tmp_path / "x.gguf", llama, "Q8_0")
    whole = (tmp_path / "x.gguf").read_bytes()
    for name, content in (("cut", whole[:-5000]), ("head", whole[:40]), ("other", b"RIFF" + whole[4:]), ("no", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="is truncated or no GGUF file"):
            convert_gguf(tmp_path / name, tmp_path / "out")
    write(tmp_path / "gpt", llama, None, architecture="gpt2")
    with pytest.raises(UserError, match="a model of type 'gpt2': of GGUF files, those of type 'llama' are read"):
        convert_gguf(tmp_path / "gpt", tmp_path / "out")
    write(tmp_path / "pre", llama, None, pre="tekken")
    with pytest.raises(UserError, match="gpt2/tekken: gpt2/smollm and"):
        convert_gguf(tmp_path / "pre", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
