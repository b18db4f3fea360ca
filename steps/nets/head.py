"""What all heads have in common: their configuration, and the choice of the utterances that have a target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from torch import Tensor, nn

from steps.objectives.backend import Backend
from utils.options import Config

if TYPE_CHECKING:
    from steps.prepare.dataset import Targets


class HeadConfig(Config):
    """What every head has; the subclass chosen by `name` adds its own keys."""

    name: str
    # what it learns to write: the transcript, or the translation into a language (ISO 639-1)
    target: str = Field("text", pattern=r"^(text|translation\.[a-z]{2,3})$")
    # the lang folder that made its tokens
    lang: str
    weight: float = Field(1.0, ge=0.0)
    layer: int | None = Field(None, ge=1)  # the encoder's layer (a Zipformer's stack) that it reads; null: its output
    # utterances already in the target's language: learn their transcript (else they have no target)
    same_language: bool = False
    backend: Backend = "auto"


class Head(nn.Module):
    """Base of heads: keeps the configuration and leaves out the utterances that have no target for this head."""

    loss_names: ClassVar[tuple[str, ...]]
    positions: int | None = None  # the most tokens that it takes, prompt included (None: no limit)

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def backends(self) -> dict[str, str]:
        """What computes each of the head's losses: "k2" or "torch"."""
        raise NotImplementedError

    def speech_positions(self, frames: int) -> int:
        """How many of the `positions` so many encoder frames take."""
        return 0

    def losses(self, encoder_out: Tensor, lens: Tensor, targets: Targets, step: int) -> dict[str, Tensor]:
        """The losses of utterances that all have a target; all tensors on one device, but `targets.lens` perhaps."""
        raise NotImplementedError

    def load_pretrained(self, ids: list[int] | None) -> None:
        """Set the parameters that others trained to what they trained; `ids` are their ids of the tokens."""

    not_first: tuple[int, ...] = ()  # tokens that searches must not begin with

    def suppress(self, tokens: list[int]) -> None:
        """Tokens that searches must not choose."""

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return set()

    def forward(self, encoder_out: Tensor, lens: Tensor, targets: Targets, step: int = 0) -> dict[str, Tensor]:
        """Named losses, whose sum is the head's loss: scalars in nats, summed over the utterances that have a target.

        `encoder_out` `(batch, frames, dim)`, `lens` `(batch,)` in its frames; `step` is the training step that
        schedules go by. Without any target the losses are zeros that still depend on every parameter, as distributed
        training wants.
        """
        present = targets.present.cpu()
        if not present.any():
            nothing = sum(p.flatten()[:0].sum() for p in self.parameters()) + encoder_out.flatten()[:0].sum()
            return {name: nothing.float() for name in self.loss_names}
        if not present.all():
            rows = present.nonzero().squeeze(1)
            targets = replace(targets, **{n: _rows(getattr(targets, n), rows) for n in ("tokens", "lens", "prompts")})
            encoder_out, lens = _rows(encoder_out, rows), _rows(lens, rows)
        return self.losses(encoder_out, lens, targets, step)


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.index_select(0, rows.to(tensor.device))
