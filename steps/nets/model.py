"""A model: an encoder and heads. It knows features and tokens, not where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor, nn

from steps.nets.encoders import EncoderConfig, build_encoder
from steps.nets.head import HeadConfig
from steps.nets.heads import build_head, head_config
from steps.nets.pretrained_parts import PartedModel
from steps.nets.speech import Encoded
from utils.errors import UserError, nearest
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
    feature_parameters: int = Field(0, ge=0)  # of the frozen encoder that made the features, if one did
    feature_layers: int = Field(1, ge=1)  # of it, whose outputs are side by side in a frame
    feature_init: str | None = None  # where that encoder was trained, if not only by others
    freeze: tuple[str, ...] = ()  # parts that are not trained: encoder, encoder.conv1, heads.ctc ...

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


class Model(PartedModel):
    """Encoder and heads. `vocab_sizes` gives each head's number of tokens, blank included.

    Pretrained parts are as the `config.json` in `folder`/encoder and `folder`/heads.<name> says, or that in their path;
    their weights come with `load_pretrained` or a checkpoint.
    """

    def __init__(self, config: ModelConfig, vocab_sizes: dict[str, int], folder: Path | None = None) -> None:
        super().__init__()
        self.config, self.feature_parameters = config, config.feature_parameters
        self.feature_init = config.feature_init
        inside = _inside(folder, "encoder")
        self.encoder = build_encoder(config.encoder, config.feature_dim, inside, config.feature_layers)
        self.heads = nn.ModuleDict()
        for key, head in config.heads.items():
            dim = self._dim(key, head.layer)
            self.heads[key] = build_head(head, dim, vocab_sizes[key], _inside(folder, f"heads.{key}"))
        for key, head in config.heads.items():
            if share := getattr(head, "share", None):
                if share not in self.heads:
                    raise UserError(f"heads.{key}.share: there is no head '{share}'{nearest(share, self.heads)}.")
                self.heads[key].borrow(self.heads[share], share)
        self.layers = sorted({head.layer for head in config.heads.values() if head.layer is not None})
        self.freeze(config.freeze)
        self._encoder_learns = any(p.requires_grad for p in self.encoder.parameters())

    def _dim(self, key: str, layer: int | None) -> int:
        dims = self.encoder.layer_dims
        if layer is not None and layer > len(dims):
            raise UserError(f"heads.{key}.layer is {layer}, the encoder has {len(dims)} layers: give one of these.")
        return self.encoder.output_dim if layer is None else dims[layer - 1]

    def parts(self) -> dict[str, nn.Module]:
        """The encoder and the heads."""
        return {"encoder": self.encoder, **{f"heads.{key}": head for key, head in self.heads.items()}}

    def load_pretrained(self, ids: dict[str, list[int] | None]) -> None:
        """Set what others trained to what they trained; `ids` are, by head, their ids of its tokens."""
        self.encoder.load_pretrained()
        for key, head in self.heads.items():
            head.load_pretrained(ids.get(key))

    def set_batch_count(self, step: float) -> None:
        """Tell schedules (the encoder's, the losses' warm-up) which training step comes next."""
        super().set_batch_count(step)
        self.encoder.set_batch_count(step)

    def encode(self, features: Tensor, lens: Tensor) -> Encoded:
        """Features `(batch, frames, feature_dim)` and their `lens` to `(batch, fewer frames, dim)` and theirs."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._encoder_learns):
            return self.encoder(features, lens, self.layers)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses named `<head>.<loss>`: scalars in nats, summed over utterances, times the heads' weights."""
        encoded = self.encode(batch.features, batch.feature_lens)
        losses = {}
        for key, head in self.heads.items():
            found = head(encoded.at(head.config.layer), encoded.lens, batch.targets[key], self.step)
            for name, loss in found.items():
                losses[f"{key}.{name}"] = loss * head.config.weight
        return losses

    def backends(self) -> dict[str, str]:
        """What computes each loss: `{"ctc.ctc": "torch", ...}`."""
        return {f"{key}.{name}": used for key, head in self.heads.items() for name, used in head.backends.items()}


def _inside(folder: Path | None, part: str) -> Path | None:
    return folder / part if folder is not None and (folder / part / "config.json").exists() else None
