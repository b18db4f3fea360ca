"""Encoder-decoder translators that others trained (Marian, M2M100, NLLB, mBART, T5, ...), through transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from steps.nets.attention_head import IGNORED, smoothed_cross_entropy
from steps.nets.lora import TransformersLoraConfig, add_lora, load_weights, pretrained_part
from steps.pretrained.folder import ModelPath, find_model, read_config
from utils.errors import UserError
from utils.options import Config

if TYPE_CHECKING:
    from steps.prepare.dataset import Batch

PATH = "translator.path"
DROPOUTS = ("dropout", "dropout_rate")  # as configurations call it


class Seq2SeqConfig(Config):
    """`name: seq2seq`; `path` is a folder in transformers' layout or a hub name."""

    name: Literal["seq2seq"]
    path: ModelPath
    lora: TransformersLoraConfig | None = None  # train adapters, and nothing else
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    dropout: float | None = Field(None, ge=0, lt=1)  # null: the model's own
    # the model's names of the languages, such as eng_Latn; null: found from ISO 639's
    source_code: str | None = None
    target_code: str | None = None
    prefix: str = ""  # before every source, as T5 wants it: "translate English to French: "


class Seq2Seq(nn.Module):
    """The model that the `config.json` in `folder` describes, without its weights."""

    def __init__(self, config: Seq2SeqConfig, vocab_sizes: dict[str, int], folder: Path) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

        self.config, kind = config, read_config(folder).get("model_type")
        try:
            about = AutoConfig.from_pretrained(folder)
            if config.dropout is not None:
                for key in DROPOUTS:
                    if hasattr(about, key):
                        setattr(about, key, config.dropout)
            model = AutoModelForSeq2SeqLM.from_config(about)
        except Exception as error:  # of transformers, for another kind of model and for values that do not fit
            why = str(error).strip().partition("\n")[0].partition(": ")[0][:120]
            raise UserError(
                f"{PATH}: {folder} holds a model of type '{kind}', which transformers cannot make a seq2seq model of "
                f"({why}): give another path, or another translator.name."
            ) from None
        rows = model.get_input_embeddings().num_embeddings
        if rows < (most := max(vocab_sizes.values())):
            raise UserError(
                f"{PATH}: the tokenizer in {folder} has {most} tokens, the model {rows}: copy the model again with "
                "its own tokenizer."
            )
        self.model = add_lora(model, config.lora, key="translator.lora")
        self.model.prepare_inputs_for_generation = _with_mask(self.model.prepare_inputs_for_generation)
        if (folder / "generation_config.json").exists():
            self.model.generation_config = GenerationConfig.from_pretrained(folder)
        self.pad, self.eos = about.pad_token_id or 0, about.eos_token_id
        self.longest = getattr(about, "max_position_embeddings", None)

    def load_pretrained(self, ids: list[int] | None) -> None:
        """The weights in `path`."""
        from transformers import AutoModelForSeq2SeqLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = find_model(self.config.path, PATH)
        try:
            weights = AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict()
        except Exception as error:  # of safetensors, of pickle, of transformers
            why = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
            raise UserError(f"{PATH}: the weights in {folder} cannot be read ({why}): copy the model again.") from None
        load_weights(self.model, weights, str(folder))

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return {f"model.{name}" for name in pretrained_part(self.model)} & self.state_dict().keys()

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        """As torch's, but what is shared (embeddings of both sides, output weights) is there once."""
        state, prefix = super().state_dict(*args, **kwargs), kwargs.get("prefix", "")
        once = {f"{prefix}{name}" for part in (self.named_parameters(), self.named_buffers()) for name, _ in part}
        for name in [name for name in state if name.startswith(prefix) and name not in once]:
            del state[name]
        return state

    def loss(self, batch: Batch) -> Tensor:
        """Label-smoothed cross-entropy of the targets in nats, summed."""
        targets = batch.targets["text"]
        labels = targets.tokens.masked_fill(_beyond(targets.tokens, targets.lens), IGNORED)
        source, mask = self._inputs(batch.features, batch.feature_lens)
        logits = self.model(input_ids=source, attention_mask=mask, labels=labels).logits
        return smoothed_cross_entropy(logits.float(), labels, self.config.label_smoothing)

    def _inputs(self, source: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        beyond = _beyond(source, lens)
        return source.masked_fill(beyond, self.pad), (~beyond).long()

    def generate(self, source: Tensor, lens: Tensor, start: list[int], **options) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `(rows, length)` that transformers' beam search writes, their scores `(rows,)` and lengths `(rows,)`.

        Scores are log-probabilities over length ** length_penalty, and lengths count the end; `start` is what each
        text begins with. A text of the batch has `num_return_sequences` rows, best first.
        """
        ids, mask = self._inputs(source, lens)
        if start:
            options["forced_bos_token_id"] = start[0]
        kept = {"return_dict_in_generate": True, "output_scores": True, "do_sample": False}
        found = self.model.generate(input_ids=ids, attention_mask=mask, **kept, **options)
        written = found.sequences[:, 1:]  # behind the decoder's start
        ends = (written == self.eos).long()
        lengths = torch.where(ends.any(1), ends.argmax(1) + 1, written.shape[1])
        scores = getattr(found, "sequences_scores", None)
        if scores is None:  # greedy
            steps = self.model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
            inside = torch.arange(steps.shape[1], device=steps.device) < lengths[:, None]
            scores = steps.masked_fill(~inside, 0.0).sum(1) / lengths ** options["length_penalty"]
        return written, scores, lengths


def _with_mask(prepare: Callable[..., dict]) -> Callable[..., dict]:
    """`prepare_inputs_for_generation` that keeps the source's mask: transformers 4.49 loses it, and reads padding."""

    @functools.wraps(prepare)
    def kept(*args, attention_mask: Tensor | None = None, **kwargs) -> dict:
        inputs = prepare(*args, attention_mask=attention_mask, **kwargs)
        return inputs if attention_mask is None else {"attention_mask": attention_mask, **inputs}

    return kept


def _beyond(tokens: Tensor, lens: Tensor) -> Tensor:
    """`(batch, tokens)` bool: True behind the end of each row."""
    return torch.arange(tokens.shape[1], device=tokens.device) >= lens.to(tokens.device)[:, None]
