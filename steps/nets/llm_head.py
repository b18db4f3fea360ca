"""A language model as a head: it reads a request with the speech in it, as vectors of its own size, and answers.

The encoder's frames pass a projector and stand in the request where its slot is (SLAM-ASR, arXiv:2402.08846; SALMONN,
arXiv:2310.13289). The loss is the cross-entropy of the answer alone. Requests are as `steps.lang.prompts.Request` makes
them: tokens, the slot, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from steps.lang.prompts import FILL, SLOT, Requests, requests
from steps.nets.attention_head import IGNORED, following, smoothed_cross_entropy
from steps.nets.head import Head, HeadConfig
from steps.nets.lora import TransformersLoraConfig, add_lora, load_weights, pretrained_part
from steps.nets.projector import MlpConfig, ProjectorConfig, build_projector
from steps.nets.transformer import MASKED
from steps.pretrained.folder import ModelPath, find_model
from steps.pretrained.llm import build_llm, llm_weights
from utils.errors import UserError
from utils.options import Config

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class LanguageModelConfig(Config):
    """A decoder-only language model; `path` is a folder in transformers' layout, or a name on the hub."""

    path: ModelPath
    lora: TransformersLoraConfig | None = None  # train adapters of the language model, and nothing else of it
    train_llm: bool = False  # train all of it
    dtype: Literal["float32", "bf16"] = "float32"  # of its weights; half the memory where they are not trained
    gradient_checkpointing: bool = False  # a third more time for much less memory
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    chat: bool = True  # put the prompt into the model's chat template, if it has one
    system: str | None = None  # the chat's instruction before all; null: the template's own
    names: dict[str, str] = Field(default_factory=dict)  # of languages that Whisper's list lacks: {mdw: Mboshi}

    @model_validator(mode="after")
    def _check_training(self) -> LanguageModelConfig:
        if self.lora and self.train_llm:
            raise ValueError("'lora' trains adapters instead of the language model: leave out lora or train_llm")
        if self.train_llm and self.dtype != "float32":
            raise ValueError("'train_llm' wants dtype: float32 (precision: bf16 computes in bfloat16 all the same)")
        return self


class LlmConfig(HeadConfig, LanguageModelConfig):
    """`name: llm`."""

    name: Literal["llm"] = "llm"
    projector: ProjectorConfig = MlpConfig(name="mlp")
    # with <speech> where the speech goes, {language} and {target} (codes), {language_name} and {target_name} (words)
    # null: "Transcribe the speech:" or "Translate the speech into French:" behind it;
    # {en: ..., default: ...}: one for each language that is spoken
    prompt: Requests | None = None

    @model_validator(mode="after")
    def _check(self) -> LlmConfig:
        if self.prompt is not None:
            requests(self.prompt)
        return self


@dataclass
class LlmState:
    """What a language model has read, for N utterances with B hypotheses each.

    `speech (N, S, dim)` and `lens (N,)`: what the projector gave; `mask (N * B, length)`: what of its cache counts.
    """

    speech: Tensor
    lens: Tensor
    cache: Any
    mask: Tensor | None = None

    def reorder(self, source: Tensor) -> None:
        """Hypothesis b of utterance n becomes what `source[n, b]` was; `source` `(N, B)` may change B."""
        rows = len(self.mask) // len(source)
        if rows > 1 or source.shape[1] > 1:
            index = source.clamp(max=rows - 1) + torch.arange(len(source), device=source.device)[:, None] * rows
            self._select(index.flatten())

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances `(N',)` alone."""
        rows = len(self.mask) // len(self.lens)
        self.speech, self.lens = self.speech[utterances], self.lens[utterances]
        self._select((utterances[:, None] * rows + torch.arange(rows, device=utterances.device)).flatten())

    def _select(self, rows: Tensor) -> None:
        self.mask = self.mask[rows]
        self.cache.batch_select_indices(rows)


class LlmHead(Head):
    """`llm` predicts; token 0 (blank) is never predicted, token 1 ends a text. `projector` feeds it."""

    loss_names = ("llm",)
    blank_id, eos_id, unk_id = 0, 1, 2

    def __init__(self, config: LlmConfig, encoder_dim: int, vocab_size: int, folder: Path | None = None) -> None:
        super().__init__(config)
        llm = build_llm(folder or find_model(config.path, "heads.llm.path"), vocab_size, DTYPES[config.dtype])
        self.positions = getattr(llm.config.get_text_config(), "max_position_embeddings", None)
        self.projector = build_projector(config.projector, encoder_dim, llm.get_input_embeddings().weight.shape[1])
        llm.requires_grad_(config.train_llm)
        self.llm = add_lora(llm, config.lora, key="heads.llm.lora")
        if config.gradient_checkpointing:
            enable = getattr(llm, "activation_checkpointing_enable", llm.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        self.suppress([])

    @property
    def backends(self) -> dict[str, str]:
        return {"llm": "torch"}

    def speech_positions(self, frames: int) -> int:
        return int(self.projector.output_lens(torch.tensor(frames)))

    def suppress(self, tokens: list[int]) -> None:
        self.suppressed = sorted({self.blank_id, self.unk_id, *tokens})

    def load_pretrained(self, ids: list[int] | None) -> None:
        """The language model's weights; the projector then begins with vectors as large as its embeddings."""
        folder = find_model(self.config.path, "heads.llm.path")
        load_weights(self.llm, llm_weights(folder, ids, self.config.lang, DTYPES[self.config.dtype]), str(folder))
        self.projector.set_gain(float(self.llm.get_input_embeddings().weight.detach().float().std()))

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return {f"llm.{name}" for name in pretrained_part(self.llm)}

    def losses(self, encoder_out: Tensor, lens: Tensor, targets, step: int) -> dict[str, Tensor]:
        text_lens = targets.lens.to(lens.device)
        x, mask = self._request(*self.projector(encoder_out, lens), targets.prompts, targets.tokens, text_lens)
        after = following(targets.tokens, text_lens, self.eos_id)
        after, _ = right_aligned(after, after != IGNORED)
        logits = self._read(x, mask, after.shape[1])
        return {"llm": smoothed_cross_entropy(logits, after, self.config.label_smoothing)}

    def start(self, encoder_out: Tensor, lens: Tensor) -> LlmState:
        """The state before the request, for searches."""
        from transformers import DynamicCache

        return LlmState(*self.projector(encoder_out, lens), DynamicCache())

    def log_probs(self, tokens: Tensor, state: LlmState) -> Tensor:
        """Log-probabilities `(N, B, vocab)` of what follows `tokens (N, B, U)`, which `state` then holds.

        The first tokens are the request, the same for all hypotheses of an utterance: it is read once.
        """
        if state.mask is None:
            x, state.mask = self._request(state.speech, state.lens, tokens[:, 0])
        else:
            x = self.llm.get_input_embeddings()(tokens.flatten(0, 1))
            state.mask = F.pad(state.mask, (0, tokens.shape[2]), value=True)
        logits = self._read(x, state.mask, 1, state.cache).unflatten(0, (len(tokens), -1))[:, :, 0]
        logits = logits.repeat(1, tokens.shape[1] // logits.shape[1], 1)
        logits[..., self.suppressed] = MASKED
        return logits.log_softmax(dim=-1)

    def _request(
        self,
        speech: Tensor,
        lens: Tensor,
        prompts: Tensor,
        tokens: Tensor | None = None,
        text_lens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Vectors `(batch, length, dim)` and what of them counts: requests with the speech in them and texts behind.

        `speech (batch, S, dim)`, `lens (batch,)`, `prompts (batch, P)`, `tokens (batch, U)`, `text_lens (batch,)`.
        """
        embed, place = self.llm.get_input_embeddings(), torch.arange(prompts.shape[1], device=speech.device)
        words, slot = embed(prompts.clamp(min=0)), (prompts == SLOT).int().argmax(1, keepdim=True)
        parts = [words, speech.to(words.dtype), words]
        counts = [(place < slot) & (prompts != FILL), _within(lens, speech.shape[1]), place > slot]
        if tokens is not None:
            parts.append(embed(tokens))
            counts.append(_within(text_lens, tokens.shape[1]))
        return right_aligned(torch.cat(parts, dim=1), torch.cat(counts, dim=1))

    def _read(self, x: Tensor, mask: Tensor, last: int, cache: Any = None) -> Tensor:
        """Log-odds `(rows, last, vocab)` in float32 after the `last` of x `(rows, new, dim)`; `mask (rows, length)`."""
        if self.positions and mask.shape[1] > self.positions:
            raise UserError(
                f"A request of {mask.shape[1]} tokens and speech vectors is longer than the {self.positions} that the "
                "language model takes: cut the utterances (stage 2: max_duration), or join more frames (projector)."
            )
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -x.shape[1] :]
        options = {"past_key_values": cache, "use_cache": cache is not None, "logits_to_keep": last}
        out = self.llm(inputs_embeds=x, attention_mask=mask.long(), position_ids=positions, **options)
        return out.logits[:, -last:].float()


def _within(lens: Tensor, length: int) -> Tensor:
    """`(batch, length)` bool: inside of `lens (batch,)`."""
    return torch.arange(length, device=lens.device) < lens[:, None]


def right_aligned(x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """What `keep (batch, length)` says of x `(batch, length, ...)`, in its order, moved to the right; and where it is.

    As long as the row that keeps most.
    """
    order = keep.int().sort(dim=1, stable=True).indices[:, -max(int(keep.sum(1).max()), 1) :]
    rows = torch.arange(len(keep), device=keep.device)[:, None]
    return x[rows, order], keep[rows, order]
