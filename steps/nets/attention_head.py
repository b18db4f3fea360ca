"""The attention decoder as a head: predicts the next token from those before and the encoder's output.

Trained with label-smoothed cross-entropy (Szegedy et al. 2016, section 7); its decoder is a transformer of ours, with
icefall's names, or Whisper's with the rows of its vocabulary that the token set has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from steps.nets.head import Head, HeadConfig
from steps.nets.lora import LoraConfig, add_lora, load_weights, pretrained_part
from steps.nets.transformer import TransformerConfig, TransformerDecoder
from steps.pretrained.folder import ModelPath, find_model
from steps.pretrained.llm import vocabulary_rows
from steps.pretrained.whisper import whisper_sizes, whisper_weights
from utils.errors import UserError

IGNORED = -100  # what cross-entropy leaves out
PATH = "path of an attention head"


class AttentionConfig(HeadConfig):
    """`name: attention`."""

    name: Literal["attention"] = "attention"
    decoder: TransformerConfig = TransformerConfig()
    tied: bool = False  # output weights are the embeddings'
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    # Whisper's decoder (a folder, or a hub name) instead of a new one: of `decoder`, only the dropout then counts
    path: ModelPath | None = None
    lora: LoraConfig | None = None  # train adapters of the pretrained decoder, and nothing else of it
    # tokens before the first one, with {language} of the speech and {target} of the text; null: <sos/eos>
    prompt: str | None = None
    share: str | None = None  # the attention head whose decoder this one uses, with its own target and prompt

    @model_validator(mode="after")
    def _check(self) -> AttentionConfig:
        if self.share and (self.path or self.lora or self.decoder != TransformerConfig()):
            raise ValueError("'share' takes the other head's decoder: leave out path, lora and decoder")
        if self.lora and not self.path:
            raise ValueError("'lora' adapts a pretrained decoder: give its 'path'")
        return self


class AttentionHead(Head):
    """`decoder` predicts; token 0 (blank) is never predicted, token 1 ends a text and, without a prompt, begins it."""

    loss_names = ("attention",)
    blank_id, eos_id = 0, 1

    def __init__(self, config: AttentionConfig, encoder_dim: int, vocab_size: int, folder: Path | None = None) -> None:
        super().__init__(config)
        self.vocab_size, self.encoder_dim = vocab_size, encoder_dim
        self.suppressed = [self.blank_id]
        if config.share:
            return
        sizes, tied = config.decoder, config.tied
        if config.path:
            folder = folder or find_model(config.path, PATH)
            sizes, tied = whisper_sizes(folder, "decoder", config.decoder.dropout), True
            if sizes.dim != encoder_dim:
                found = f"reads {sizes.dim} values a frame, the encoder gives {encoder_dim}"
                raise UserError(f"{PATH}: the decoder of {config.path} {found}: give its own encoder.")
        own = TransformerDecoder(sizes, encoder_dim, vocab_size, tied)
        self.decoder = add_lora(own, config.lora)

    def borrow(self, other: Head, key: str) -> None:
        """Use the decoder of `other`, the head called `key`."""
        if not isinstance(other, AttentionHead) or other.config.share:
            raise UserError(f"heads: share: {key} is no attention head with a decoder of its own: give another head.")
        if other.vocab_size != self.vocab_size:
            raise UserError(f"heads: share: {key} has {other.vocab_size} tokens, not {self.vocab_size}: use one lang.")
        if other.encoder_dim != self.encoder_dim:
            dims = f"{other.encoder_dim} values a frame, not {self.encoder_dim}"
            raise UserError(f"heads: share: the layer that {key} reads has {dims}: give both the same 'layer'.")
        object.__setattr__(self, "decoder", other.decoder)  # past torch: its parameters are not this head's too

    @property
    def positions(self) -> int | None:
        """The most tokens that the decoder takes, prompt included (None: no limit)."""
        return None if self.decoder.pos is None else self.decoder.pos.num_embeddings

    @property
    def backends(self) -> dict[str, str]:
        return {"attention": "torch"}

    def load_pretrained(self, ids: list[int] | None) -> None:
        """Whisper's decoder; `ids[i]` is its id of token i, -1 for one that it lacks (None: the same tokens)."""
        if not self.config.path:
            return
        folder = find_model(self.config.path, PATH)
        weights = whisper_weights(folder, "decoder")
        chosen = vocabulary_rows(weights["embed.weight"], ids, self.config.lang, folder)
        load_weights(self.decoder, {**weights, "embed.weight": chosen}, str(folder))

    def suppress(self, tokens: list[int]) -> None:
        self.suppressed = sorted({self.blank_id, *tokens})

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return {f"decoder.{name}" for name in pretrained_part(self.decoder)} if self.config.path else set()

    def losses(self, encoder_out: Tensor, lens: Tensor, targets, step: int) -> dict:
        before, after = teacher_forcing(targets.tokens, targets.lens.to(lens.device), targets.prompts, self.eos_id)
        logits = self.decoder(before, encoder_out, lens)
        logits = logits[:, -after.shape[1] :].float()
        return {"attention": smoothed_cross_entropy(logits, after, self.config.label_smoothing)}

    def score(self, encoder_out: Tensor, lens: Tensor, prompts: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
        """ln p `(N,)` of each of `tokens (N, U)` and of its end behind `token_lens (N,)`, as searches add it up."""
        device = encoder_out.device
        before, after = teacher_forcing(tokens.to(device), token_lens.to(device), prompts.to(device), self.eos_id)
        logits = self.decoder(before, encoder_out, lens)[:, -after.shape[1] :].float()
        logits[..., self.suppressed] = float("-inf")
        costs = F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=IGNORED, reduction="none")
        return -costs.view_as(after).sum(1)

    def start(self, encoder_out: Tensor, lens: Tensor):
        """The decoder's state before the prompt, for searches."""
        return self.decoder.start(encoder_out, lens)

    def log_probs(self, tokens: Tensor, state) -> Tensor:
        """Log-probabilities `(N, B, vocab)` of what follows `tokens (N, B, U)`, which `state` then holds."""
        logits = self.decoder.extend(tokens, state)[:, :, -1].float()
        logits[..., self.suppressed] = float("-inf")
        return logits.log_softmax(dim=-1)


def teacher_forcing(tokens: Tensor, lens: Tensor, prompts: Tensor, eos: int) -> tuple[Tensor, Tensor]:
    """Inputs `(batch, P + U)` and what should follow `(batch, U + 1)`, `IGNORED` beyond the `eos` behind each text.

    `tokens (batch, U)`, `lens (batch,)`, `prompts (batch, P)` with P at least 1.
    """
    return torch.cat((prompts, tokens), dim=1), following(tokens, lens, eos)


def following(tokens: Tensor, lens: Tensor, eos: int) -> Tensor:
    """What should be said one after the other `(batch, U + 1)`: `tokens (batch, U)` and `eos`, `IGNORED` beyond.

    `lens (batch,)` are the lengths of the texts.
    """
    after = F.pad(tokens, (0, 1))
    place = torch.arange(after.shape[1], device=tokens.device)
    return after.masked_fill(place == lens[:, None], eos).masked_fill(place > lens[:, None], IGNORED)


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Sum over `targets (batch, U)` of the cross-entropy of `logits (batch, U, vocab)`, in nats."""
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
