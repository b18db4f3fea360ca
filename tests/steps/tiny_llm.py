"""A language model of a few thousand parameters that chats, as a folder in transformers' layout."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from steps.lang.tokenizer import Tokenizer as OurTokenizer
from tests.steps.tiny_models import byte_tokenizer
from utils.files import write_json

ENDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "translate the speech into French and transcribe the speech into English",
    "good morning and no thank you",
    "bonjour à tous et non merci",
    "abcdef fedcba ace bdf",
]


def make_llm(folder: Path, template: str | None = TEMPLATE, seed: int = 0, **more) -> Path:
    """A Llama of two layers with random weights, large enough to have opinions, and a byte-level BPE tokenizer."""
    ends = [AddedToken(end, special=True, normalized=False) for end in ENDS]
    tokenizer = byte_tokenizer(TEXTS, 330, special_tokens=ends)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ENDS[2], "bos_token": ENDS[1]}
    write_json(folder / "tokenizer_config.json", {**about, **({"chat_template": template} if template else {})})
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 160}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    torch.manual_seed(seed)
    # more rows than tokens, as released models have
    config = LlamaConfig(**{"vocab_size": 336, "initializer_range": 0.3, **sizes, **heads, **ids, **more})
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def lang_folder(
    llm: Path, folder: Path, texts: list[str], every: bool = True, keep: tuple[str, ...] = ()
) -> OurTokenizer:
    """The token set that stage 3 makes of the model's tokens for French texts."""
    from steps.lang.prepare import prepare

    about = {"tags": False, "target": "translation.fr", "same_language": False, "path": str(llm)}
    return prepare({"fr": texts}, folder, "pretrained", {**about, "all_tokens": every, "keep": list(keep)}, 0, "")
