"""Heads: what is learned from the encoder's output. Each has a target of its own, and returns named losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from steps.nets.attention_head import AttentionConfig, AttentionHead
from steps.nets.ctc_head import CtcConfig, CtcHead
from steps.nets.decoder import Decoder
from steps.nets.head import Head, HeadConfig
from steps.nets.joiner import INITIAL_SCALE, Joiner
from steps.nets.llm_head import LlmConfig, LlmHead
from steps.nets.scaling import Linear
from steps.objectives.transducer import RnntType, do_prune, prune_ranges, pruned_loss, simple_loss, transducer_backend
from utils.errors import UserError, nearest
from utils.options import check_config

if TYPE_CHECKING:
    from steps.prepare.dataset import Targets


class TransducerConfig(HeadConfig):
    """`name: transducer`: stateless predictor, pruned loss."""

    name: Literal["transducer"] = "transducer"
    decoder_dim: int = Field(512, ge=4, multiple_of=4)
    joiner_dim: int = Field(512, ge=1)
    context_size: int = Field(2, ge=1)
    rnnt_type: RnntType = "regular"
    prune_range: int = Field(5, ge=2)
    # smoothing of the simple loss with the predictor alone, and with the encoder alone
    lm_scale: float = Field(0.25, ge=0.0, le=1.0)
    am_scale: float = Field(0.0, ge=0.0, le=1.0)
    # over the first warm_step steps the simple loss counts 1 -> simple_loss_scale and the pruned one 0.1 -> 1
    simple_loss_scale: float = Field(0.5, ge=0.0)
    warm_step: int = Field(2000, ge=0)
    delay_penalty: float = Field(0.0, ge=0.0)


class TransducerHead(Head):
    """Transducer with a stateless predictor, trained with the pruned loss; icefall's module names."""

    loss_names = ("simple", "pruned")

    def __init__(self, config: TransducerConfig, encoder_dim: int, vocab_size: int) -> None:
        super().__init__(config)
        self.decoder = Decoder(vocab_size, config.decoder_dim, context_size=config.context_size)
        self.joiner = Joiner(encoder_dim, config.decoder_dim, config.joiner_dim, vocab_size)
        self.simple_am_proj = Linear(encoder_dim, vocab_size, scale=INITIAL_SCALE)
        self.simple_lm_proj = Linear(config.decoder_dim, vocab_size, scale=INITIAL_SCALE)
        self._backend = transducer_backend(config.backend)

    @property
    def backends(self) -> dict[str, str]:
        return dict.fromkeys(self.loss_names, self._backend)

    def scales(self, step: int) -> tuple[float, float]:
        """Factors of the simple and the pruned loss at a training step (icefall's); in evaluation the final ones."""
        config = self.config
        done = 1.0 if not self.training or step >= config.warm_step else step / config.warm_step
        return 1.0 - done * (1.0 - config.simple_loss_scale), 0.1 + 0.9 * done

    def losses(self, encoder_out: Tensor, lens: Tensor, targets: Targets, step: int) -> dict[str, Tensor]:
        config, tokens = self.config, targets.tokens
        token_lens = targets.lens.to(lens.device)
        decoder_out = self.decoder(F.pad(tokens, (1, 0), value=self.decoder.blank_id))
        options: dict[str, Any] = {
            "delay_penalty": config.delay_penalty,
            "rnnt_type": config.rnnt_type,
            "backend": self._backend,
        }
        am, lm = self.simple_am_proj(encoder_out), self.simple_lm_proj(decoder_out)
        simple, symbol, blank = simple_loss(
            am, lm, tokens, lens, token_lens, config.lm_scale, config.am_scale, **options
        )
        ranges = prune_ranges(symbol, blank, lens, token_lens, config.prune_range, config.rnnt_type)
        kept = do_prune(self.joiner.encoder_proj(encoder_out), self.joiner.decoder_proj(decoder_out), ranges)
        logits = self.joiner(*kept, project_input=False)
        pruned = pruned_loss(logits, tokens, ranges, lens, token_lens, **options)
        simple_scale, pruned_scale = self.scales(step)
        return {"simple": simple.sum() * simple_scale, "pruned": pruned.sum() * pruned_scale}


# name -> (configuration, module)
HEADS: dict[str, tuple[type[HeadConfig], type[Head]]] = {
    "attention": (AttentionConfig, AttentionHead),
    "ctc": (CtcConfig, CtcHead),
    "llm": (LlmConfig, LlmHead),
    "transducer": (TransducerConfig, TransducerHead),
}


def head_config(key: str, values: Any) -> HeadConfig:
    """The checked configuration of the head called `key`, whose type is `values["name"]` or else `key`.

    Raises `UserError` for an unknown type, with the nearest known one, and for wrong keys.
    """
    if isinstance(values, HeadConfig):
        return values
    if not isinstance(values, dict):
        raise UserError(f"heads.{key} must be a section such as {{name: ctc, target: text, lang: data/lang_char}}.")
    name = values.get("name", key)
    if name not in HEADS:
        known = ", ".join(HEADS)
        raise UserError(
            f"heads.{key}: there is no head '{name}'{nearest(str(name), HEADS)}; its 'name' is one of {known}."
        )
    return check_config({**values, "name": name}, HEADS[name][0], f"heads.{key}")


def build_head(config: HeadConfig, encoder_dim: int, vocab_size: int, folder: Path | None = None) -> Head:
    """The module of a head's configuration; a pretrained one is as the `config.json` in `folder` (None: its path) says.

    Errors: `UserError` when its backend is k2 and that is missing, or its path holds no such model.
    """
    if getattr(config, "path", None):
        return HEADS[config.name][1](config, encoder_dim, vocab_size, folder)
    return HEADS[config.name][1](config, encoder_dim, vocab_size)
