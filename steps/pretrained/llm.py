"""Decoder-only language models of transformers', with those rows of their vocabulary that a token set has."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import Tensor, nn

from steps.pretrained.folder import read_config, weight_files
from utils.errors import UserError


def build_llm(folder: Path, vocab_size: int, dtype: torch.dtype) -> nn.Module:
    """A language model as the `config.json` in `folder` says, but with `vocab_size` tokens and without dropout.

    Its weights are random. Errors: `UserError` where that is no decoder-only language model that transformers knows.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = read_config(folder).get("model_type")
    try:
        config = AutoConfig.from_pretrained(str(folder))
        _adapt(config, vocab_size)
        llm = AutoModelForCausalLM.from_config(config, **_dtype(dtype))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error).partition("\n")[0][:120]
        raise UserError(
            f"{folder} holds a model of type '{kind}', no language model that can be used ({why})."
        ) from None
    wanted = {"inputs_embeds", "position_ids", "past_key_values"}
    if not wanted <= inspect.signature(llm.forward).parameters.keys() or not getattr(
        llm, "_supports_cache_class", True
    ):
        raise UserError(
            f"{folder} holds a model of type '{kind}', which this version of transformers cannot go on with."
        )
    return llm


def _dtype(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The number format as an argument, which transformers 5 has renamed."""
    from transformers import __version__

    return {"torch_dtype" if int(__version__.split(".")[0]) < 5 else "dtype": dtype}


def _adapt(config, vocab_size: int) -> None:
    """Our tokens; no dropout (adapters have their own), so that what is frozen says the same in training."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        part.vocab_size = vocab_size
        part.pad_token_id = part.bos_token_id = None
        part.eos_token_id = 1
        for key, value in vars(part).items():
            if "drop" in key and isinstance(value, float):
                setattr(part, key, 0.0)


def load_llm(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The causal language model in `folder` as it is; `UserError` where it cannot be read, or is something else."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    weight_files(folder)
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), **_dtype(dtype))
    except Exception as error:  # of safetensors, of pickle, of transformers
        why = f"{type(error).__name__}: {error}".partition("\n")[0][:120]
        raise UserError(f"The model in {folder} cannot be read ({why}): copy or download it again.") from None


def llm_weights(folder: Path, ids: list[int] | None, lang: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The parameters of the model in `folder`, of its vocabulary only the rows `ids` (`vocabulary_rows`)."""
    llm = load_llm(folder, dtype)
    state = llm.state_dict()
    vocabulary = (llm.get_input_embeddings(), llm.get_output_embeddings())
    for name, module in llm.named_modules():
        if any(module is part for part in vocabulary):
            for key in module.state_dict():
                state[f"{name}.{key}"] = vocabulary_rows(state[f"{name}.{key}"], ids, lang, folder)
    return state


def vocabulary_rows(rows: Tensor, ids: list[int] | None, lang: str, source: Path) -> Tensor:
    """`rows[ids]` of an embedding or output layer of the model in `source`; their mean for ids of -1.

    Errors: `UserError` naming `lang`, whose token set the ids are from, where they do not fit (None: it has none).
    """
    if ids is None or max(ids) >= len(rows):
        known = "no ids of its tokens" if ids is None else f"id {max(ids)}"
        raise UserError(
            f"{lang} has {known}, {source} has {len(rows)} tokens: make the lang folder from that model's tokenizer "
            "(stage 3: steps.lang.prepare --type pretrained)."
        )
    index = torch.tensor(ids)
    chosen = rows[index.clamp(min=0)]
    chosen[index < 0] = rows.mean(0)
    return chosen
