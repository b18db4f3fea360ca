"""Projectors: an encoder's frames as fewer vectors of a language model's size."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from steps.nets.activation import gelu
from steps.nets.speech import divided, stacked
from steps.nets.transformer import LayerNorm, TransformerConfig, TransformerLayer, padding_mask
from utils.errors import UserError
from utils.options import Config


class MlpConfig(Config):
    """`name: mlp`: `factor` frames side by side through two layers (SLAM-ASR, arXiv:2402.08846)."""

    name: Literal["mlp"]
    factor: int = Field(5, ge=1)
    hidden_dim: int = Field(2048, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class ConvConfig(Config):
    """`name: conv`: convolutions, each with a stride (Li et al. 2021, arXiv:2010.12829, section 2), and a layer."""

    name: Literal["conv"]
    strides: tuple[Annotated[int, Field(ge=1)], ...] = (2, 2)
    kernel: int = Field(3, ge=1)
    dim: int | None = Field(None, ge=1)  # of the convolutions; null: the encoder's
    dropout: float = Field(0.0, ge=0, lt=1)


class QformerConfig(Config):
    """`name: qformer`: learned queries that attend to each window of frames (SALMONN, arXiv:2310.13289)."""

    name: Literal["qformer"]
    window: int = Field(17, ge=1)  # frames; SALMONN's third of a second at 50 Hz
    queries: int = Field(1, ge=1)  # vectors a window
    dim: int = Field(768, ge=2)
    layers: int = Field(2, ge=1)
    heads: int = Field(12, ge=1)
    feedforward_dim: int = Field(3072, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class NoneConfig(Config):
    """`name: none`: the vectors are of the language model's size already."""

    name: Literal["none"]


ProjectorConfig = Annotated[MlpConfig | ConvConfig | QformerConfig | NoneConfig, Field(discriminator="name")]


class Projector(nn.Module):
    """Base: `(batch, frames, encoder_dim)` to `(batch, fewer, llm_dim)`, with `gain` times a unit variance.

    Frames beyond an utterance's end count nothing, and every utterance of a frame or more has a vector.
    """

    def __init__(self, llm_dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(llm_dim)

    def set_gain(self, gain: float) -> None:
        """Begin with vectors of this standard deviation: of the size of what the language model is used to."""
        nn.init.constant_(self.norm.weight, gain)

    def output_lens(self, lens: Tensor) -> Tensor:
        """Vectors out for `lens` frames in."""
        raise NotImplementedError

    def project(self, x: Tensor, lens: Tensor) -> Tensor:
        """`(batch, frames, encoder_dim)`, zero beyond `lens`, to `(batch, fewer, llm_dim)`."""
        raise NotImplementedError

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and how many of them each utterance has."""
        return self.norm(self.project(x * _inside(x, lens), lens)), self.output_lens(lens)


class MlpProjector(Projector):
    """Stacked frames and two layers."""

    def __init__(self, config: MlpConfig, encoder_dim: int, llm_dim: int) -> None:
        super().__init__(llm_dim)
        self.factor = config.factor
        self.layers = nn.Sequential(
            nn.Linear(encoder_dim * config.factor, config.hidden_dim),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, llm_dim),
        )

    def output_lens(self, lens: Tensor) -> Tensor:
        return divided(lens, self.factor)

    def project(self, x: Tensor, lens: Tensor) -> Tensor:
        return self.layers(stacked(x, self.factor))


class ConvProjector(Projector):
    """Strided convolutions."""

    def __init__(self, config: ConvConfig, encoder_dim: int, llm_dim: int) -> None:
        super().__init__(llm_dim)
        self.strides, dim = config.strides, config.dim or encoder_dim
        self.convs = nn.ModuleList(
            nn.Conv1d(encoder_dim if i == 0 else dim, dim, max(config.kernel, stride), stride)
            for i, stride in enumerate(config.strides)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(dim if config.strides else encoder_dim, llm_dim)

    def output_lens(self, lens: Tensor) -> Tensor:
        for stride in self.strides:
            lens = divided(lens, stride)
        return lens

    def project(self, x: Tensor, lens: Tensor) -> Tensor:
        for conv, stride in zip(self.convs, self.strides, strict=True):
            # as much padding as makes a vector for every begun stride, whatever the batch's longest utterance
            (kernel,), frames = conv.kernel_size, x.shape[1]
            before = (kernel - stride) // 2
            total = (-(-frames // stride) - 1) * stride + kernel - frames
            y = conv(F.pad(x.transpose(1, 2), (before, total - before))).transpose(1, 2)
            lens = divided(lens, stride)
            x = self.dropout(gelu(y)) * _inside(y, lens)
        return self.out(x)


class QformerProjector(Projector):
    """Queries that attend to each other and to a window of frames."""

    def __init__(self, config: QformerConfig, encoder_dim: int, llm_dim: int) -> None:
        super().__init__(llm_dim)
        self.window = config.window
        sizes = {key: getattr(config, key) for key in ("dim", "layers", "heads", "feedforward_dim", "dropout")}
        transformer = TransformerConfig(**sizes, activation="gelu")
        self.queries = nn.Parameter(torch.randn(config.queries, config.dim) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(transformer, encoder_dim) for _ in range(config.layers))
        self.out = nn.Linear(config.dim, llm_dim)

    def output_lens(self, lens: Tensor) -> Tensor:
        return divided(lens, self.window) * len(self.queries)

    def project(self, x: Tensor, lens: Tensor) -> Tensor:
        windows = stacked(x, self.window).unflatten(2, (self.window, -1)).flatten(0, 1)
        count = len(windows) // len(x)
        starts = torch.arange(count, device=x.device) * self.window
        # a window beyond the end sees its first frame: its vectors are not used
        seen = padding_mask((lens[:, None] - starts).clamp(1, self.window).flatten(), self.window)
        y = self.queries.expand(len(windows), -1, -1)
        for layer in self.layers:
            y, _ = layer(y, None, memory=layer.src_attn.project(windows), seen=seen)
        return self.out(y).unflatten(0, (len(x), count)).flatten(1, 2)


def _inside(x: Tensor, lens: Tensor) -> Tensor:
    """`(batch, time, 1)`: 1 within `lens`, 0 beyond."""
    return (torch.arange(x.shape[1], device=x.device) < lens[:, None])[..., None].to(x.dtype)


class Unprojected(nn.Module):
    """What comes goes, as it is."""

    def __init__(self, config: NoneConfig, encoder_dim: int, llm_dim: int) -> None:
        super().__init__()
        if encoder_dim != llm_dim:
            raise UserError(f"projector: none: the encoder gives {encoder_dim} values, {llm_dim} are read: choose one.")

    def set_gain(self, gain: float) -> None:
        """Nothing: there is no norm."""

    def output_lens(self, lens: Tensor) -> Tensor:
        """As many."""
        return lens

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """As they are."""
        return x, lens


KINDS = {
    MlpConfig: MlpProjector,
    ConvConfig: ConvProjector,
    QformerConfig: QformerProjector,
    NoneConfig: Unprojected,
}


def build_projector(config: ProjectorConfig, encoder_dim: int, llm_dim: int) -> Projector | Unprojected:
    """The projector that `config` describes; `UserError` where none is asked for and the sizes differ."""
    return KINDS[type(config)](config, encoder_dim, llm_dim)
