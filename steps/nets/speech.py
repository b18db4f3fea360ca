"""What encoders of speech share: the interface that models and searches rely on, and changes of the frame rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Encoded:
    """An encoder's output `(batch, frames, dim)` with its `lens (batch,)`, and that of the layers asked for."""

    out: Tensor
    lens: Tensor
    layers: dict[int, Tensor] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Tensor]:
        """So that `out, lens = encoder(features, lens)`."""
        return iter((self.out, self.lens))

    def at(self, layer: int | None) -> Tensor:
        """The output of a layer (None: of the encoder)."""
        return self.out if layer is None else self.layers[layer]

    def select(self, rows: list[int]) -> Encoded:
        """These utterances alone."""
        return Encoded(self.out[rows], self.lens[rows], {layer: x[rows] for layer, x in self.layers.items()})


class SpeechEncoder(nn.Module):
    """Base of encoders: `(batch, time, feature_dim)` in, `Encoded` out, one output frame for `subsampling_factor`.

    `output_dim` values a frame; `layer_dims[i]` is what layer i + 1 gives, for heads on lower layers. `bounds_text`:
    whether the number of frames tells how long a text may be. `origin`: frame t stands for the sound from feature frame
    `origin + subsampling_factor * t` on (convolutions that do not pad begin later than their input).
    """

    output_dim: int
    subsampling_factor: int
    layer_dims: Sequence[int]
    bounds_text = True
    origin = 0.0

    def set_batch_count(self, step: float) -> None:
        """Tell schedules how many training steps were made."""

    def load_pretrained(self) -> None:
        """Set the parameters that others trained to what they trained."""

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return set()

    def output_lens(self, lens: Tensor) -> Tensor:
        """Frames out for `lens` frames in, any shape."""
        raise NotImplementedError

    def forward(self, features: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        """Features and their `lens (batch,)` to the output, and those of `layers` (from 1)."""
        raise NotImplementedError


def stacked(x: Tensor, factor: int) -> Tensor:
    """(batch, time, dim) to (batch, ceil(time / factor), factor * dim): frames side by side, zeros behind the last."""
    x = F.pad(x, (0, 0, 0, -x.shape[1] % factor))
    return x.unflatten(1, (-1, factor)).flatten(2)


def divided(lens: Tensor, factor: int) -> Tensor:
    """Lengths after `stacked`."""
    return torch.div(lens + factor - 1, factor, rounding_mode="floor")


class FrameStacker(nn.Module):
    """Joins every `factor` frames into one: their mean at first, then what is learned."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(dim * factor, dim) if factor > 1 else None
        if self.proj is not None:
            with torch.no_grad():
                self.proj.weight.copy_(torch.eye(dim).repeat(1, factor) / factor)
                self.proj.bias.zero_()

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """(batch, time, dim) to (batch, ceil(time / factor), dim); frames beyond `lens (batch,)` count as zeros."""
        if self.proj is None:
            return x
        beyond = torch.arange(x.shape[1], device=x.device) >= lens[:, None]
        return self.proj(stacked(x.masked_fill(beyond[..., None], 0.0), self.factor))

    def lens(self, lens: Tensor) -> Tensor:
        """Frames out for `lens` frames in."""
        return divided(lens, self.factor)


class LayerMix(nn.Module):
    """A learned mean of all layers' outputs (SUPERB, arXiv:2105.01051, section 4.2; ELMo's scalar mix)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs of equal shape to one."""
        shares = self.weights.softmax(0)
        return sum(share * x for share, x in zip(shares, outputs, strict=True))
