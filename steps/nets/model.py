"""A model: an encoder and heads. It knows features and tokens, not where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor, nn

from steps.nets.encoder import EncoderConfig, build_encoder
from steps.nets.heads import HeadConfig, build_head, head_config
from utils.errors import UserError
from utils.options import Config

if TYPE_CHECKING:
    from steps.prepare.dataset import Batch


class ModelConfig(Config):
    """`encoder: {name: zipformer, ...}` and `heads: {<any name>: {name: ctc, target: text, lang: ..., ...}, ...}`.

    A head's `name` (its type) may be left out where the head is called by it.
    """

    encoder: EncoderConfig
    heads: dict[str, SerializeAsAny[HeadConfig]]
    feature_dim: int = Field(80, ge=1)

    @field_validator("heads", mode="before")
    @classmethod
    def _check_heads(cls, heads: Any) -> dict[str, HeadConfig]:
        if not isinstance(heads, dict) or not heads:
            raise UserError("'heads' must hold at least one head, such as ctc: {target: text, lang: data/lang_char}.")
        for key in heads:
            # the name becomes part of parameter names and of losses' names
            if not str(key).isidentifier() or hasattr(nn.ModuleDict, str(key)):
                raise UserError(f"heads.{key}: a head's name is letters, digits and '_', and no word of Python's dict.")
        return {key: head_config(key, values) for key, values in heads.items()}


class Model(nn.Module):
    """Encoder and heads. `vocab_sizes` gives each head's number of tokens, blank included."""

    def __init__(self, config: ModelConfig, vocab_sizes: dict[str, int]) -> None:
        super().__init__()
        self.config = config
        self.step = 0
        self.encoder = build_encoder(config.encoder, config.feature_dim)
        dim = self.encoder.output_dim
        self.heads = nn.ModuleDict({key: build_head(head, dim, vocab_sizes[key]) for key, head in config.heads.items()})

    def set_batch_count(self, step: int) -> None:
        """Tell schedules (the encoder's, the losses' warm-up) which training step comes next."""
        self.step = step
        self.encoder.set_batch_count(step)

    def encode(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(batch, frames, feature_dim)` and their `lens` to `(batch, fewer frames, dim)` and theirs."""
        return self.encoder(features, lens)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses named `<head>.<loss>`: scalars in nats, summed over utterances, times the heads' weights."""
        encoder_out, lens = self.encode(batch.features, batch.feature_lens)
        losses = {}
        for key, head in self.heads.items():
            for name, loss in head(encoder_out, lens, batch.targets[key], self.step).items():
                losses[f"{key}.{name}"] = loss * head.config.weight
        return losses

    def backends(self) -> dict[str, str]:
        """What computes each loss: `{"ctc.ctc": "torch", ...}`."""
        return {f"{key}.{name}": used for key, head in self.heads.items() for name, used in head.backends.items()}


def parameter_counts(model: Model) -> dict[str, int]:
    """Numbers of parameters: of the encoder, of each head, and in all."""
    parts = {"encoder": model.encoder, **{f"heads.{key}": head for key, head in model.heads.items()}, "total": model}
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
