"""The Zipformer as an encoder: features of utterances in, embeddings at a lower frame rate out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from steps.nets.regularizers import Balancer, Whiten
from steps.nets.schedule import choose, schedule_of, schedules_in
from steps.nets.speech import Encoded, SpeechEncoder
from steps.nets.subsampling import Conv2dSubsampling, SubsamplingConfig
from steps.nets.zipformer import Downsample, DownsampledStack, Frames, LayerSizes, Stack
from utils.options import Config

DROPOUT = ((0.0, 0.3), (20000.0, 0.1))
PerStack = int | tuple[int, ...]


class ZipformerConfig(Config):
    """A Zipformer; a value that can differ from stack to stack is one number or a list as long as
    `downsampling_factor`. The defaults are icefall's 65 M parameters."""

    takes: ClassVar[tuple[str, ...]] = ("fbank", "mfcc", "whisper")  # types of features
    name: Literal["zipformer"] = "zipformer"
    subsampling: SubsamplingConfig = SubsamplingConfig()
    downsampling_factor: tuple[int, ...] = (1, 2, 4, 8, 4, 2)  # per stack, against the front end's frame rate
    output_downsampling_factor: int = Field(2, ge=1)
    encoder_dim: PerStack = (192, 256, 384, 512, 384, 256)
    num_encoder_layers: PerStack = (2, 2, 3, 4, 3, 2)
    encoder_unmasked_dim: PerStack = (192, 192, 256, 256, 256, 192)  # what the masking of channels in training spares
    num_heads: PerStack = (4, 4, 4, 8, 4, 4)
    query_head_dim: PerStack = 32
    pos_head_dim: PerStack = 4
    value_head_dim: PerStack = 12
    feedforward_dim: PerStack = (512, 768, 1024, 1536, 1024, 768)
    cnn_module_kernel: PerStack = (31, 31, 15, 15, 15, 31)
    pos_dim: int = Field(48, ge=2, multiple_of=2)
    dropout: float | tuple[tuple[float, float], ...] = DROPOUT  # a number, or [training step, value] points
    warmup_batches: float = Field(4000.0, ge=0)  # layers are skipped less and less over as many training steps
    schedule_scale: float = Field(1.0, gt=0)  # stretches all schedules but warmup_batches; 0.05 for 2,000 steps in all
    regularize: bool = True  # balancers and whitening
    causal: bool = False
    chunk_size: tuple[int, ...] = (-1,)  # frames of the front end; one is drawn for each batch; -1: whole utterances
    left_context_frames: tuple[int, ...] = (-1,)

    def per_stack(self, name: str) -> tuple[int, ...]:
        """The values of a field, one for each stack."""
        value = getattr(self, name)
        value = (value,) if isinstance(value, int) else value
        return value * len(self.downsampling_factor) if len(value) == 1 else value

    @model_validator(mode="after")
    def _check(self) -> ZipformerConfig:
        stacks = len(self.downsampling_factor)
        for name, field in type(self).model_fields.items():
            if field.annotation == PerStack and len(self.per_stack(name)) != stacks:
                raise ValueError(f"{name} has {len(self.per_stack(name))} values for {stacks} stacks")
            if field.annotation == PerStack and min(self.per_stack(name)) < 1:
                raise ValueError(f"{name} must be above 0")
        if not stacks or min(self.downsampling_factor) < 1:
            raise ValueError("downsampling_factor needs values above 0")
        if any(
            u > d for u, d in zip(self.per_stack("encoder_unmasked_dim"), self.per_stack("encoder_dim"), strict=True)
        ):
            raise ValueError("encoder_unmasked_dim is above encoder_dim")
        if any(kernel % 2 == 0 for kernel in self.per_stack("cnn_module_kernel")):
            raise ValueError("cnn_module_kernel must be odd")
        if any(dim % 4 for dim in self.per_stack("encoder_dim")):
            raise ValueError("encoder_dim must be a multiple of 4")
        self._check_chunks()
        return self

    def _check_chunks(self) -> None:
        chunks = [size for size in self.chunk_size if size > 0]
        if not self.causal and (chunks or any(left >= 0 for left in self.left_context_frames)):
            raise ValueError("chunk_size and left_context_frames need causal: true")
        if not self.chunk_size or not self.left_context_frames:
            raise ValueError("chunk_size and left_context_frames need a value (-1 for no limit)")
        for size in chunks:
            if any(size % factor for factor in (*self.downsampling_factor, self.output_downsampling_factor)):
                raise ValueError(f"chunk_size {size} is not a multiple of every downsampling factor")
            # a stream that keeps this much of the past must have all that a convolution looks back on
            kernels = zip(self.per_stack("cnn_module_kernel"), self.downsampling_factor, strict=True)
            reach = max(kernel // 2 * factor for kernel, factor in kernels)
            for left in self.left_context_frames:
                if left >= 0 and max(left // size, 1) * size < reach:
                    raise ValueError(f"left_context_frames {left} is less than the {reach} of the convolutions")


class Zipformer(nn.Module):
    """The stacks, and what joins them."""

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dims = config.per_stack("encoder_dim")
        self.output_dim = max(self.dims)
        dropout = schedule_of(config.dropout)
        columns = ("encoder_dim", "num_heads", "query_head_dim", "pos_head_dim", "value_head_dim", "feedforward_dim")
        table = zip(*(config.per_stack(name) for name in (*columns, "cnn_module_kernel")), strict=True)
        factors, layers = config.downsampling_factor, config.per_stack("num_encoder_layers")
        share = config.warmup_batches / config.schedule_scale / (len(factors) + 1)
        self.encoders = nn.ModuleList()
        for n, (dim, *rest) in enumerate(table):
            sizes = LayerSizes(dim, config.pos_dim, *rest)
            warmup = (share * (n + 1), share * (n + 2))
            stack = Stack(sizes, layers[n], dropout, config.causal, warmup, 0.035 * factors[n] ** 0.5)
            self.encoders.append(stack if factors[n] == 1 else DownsampledStack(stack, dim, factors[n]))
        self.downsample_output = Downsample(config.output_downsampling_factor)

    def forward(self, x: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        """x (batch, time, encoder_dim[0]), lens (batch,) to (batch, time / output factor, output_dim), its lens.

        `layers` are stacks, from 1; their outputs come at the same rate.
        """
        frames = Frames.of(x, lens, *self._chunks())
        masks = self._feature_masks(x)
        outputs = []
        for dim, stack, mask in zip(self.dims, self.encoders, masks, strict=True):
            x = F.pad(x, (0, dim - x.shape[2])) if dim != x.shape[2] else x
            x = stack(x, frames, mask)
            outputs.append(x)
        x = self.downsample_output(self._join(outputs), lens)
        factor = self.config.output_downsampling_factor
        asked = {number: self.downsample_output(outputs[number - 1], lens) for number in layers}
        return Encoded(x, torch.div(lens + factor - 1, factor, rounding_mode="floor"), asked)

    def _join(self, outputs: list[Tensor]) -> Tensor:
        """The last output, and the channels that it lacks from the latest output that has them."""
        pieces, dim = [outputs[-1]], self.dims[-1]
        for size, output in zip(self.dims[-2::-1], outputs[-2::-1], strict=True):
            if size > dim:
                pieces.append(output[..., dim:size])
                dim = size
        return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]

    def _chunks(self) -> tuple[int, int]:
        """Chunk size in frames and chunks of left context, -1 for no limit; drawn anew for each batch."""
        size = choose(self.config.chunk_size)
        left = choose(self.config.left_context_frames) if size > 0 else -1
        return size, max(left // size, 1) if left >= 0 else -1

    def _feature_masks(self, x: Tensor) -> list[Tensor | None]:
        """(batch, 1, dim) for each stack: some utterances do without the channels above encoder_unmasked_dim, some
        without half of these; None where nothing is masked."""
        if not self.training:
            return [None] * len(self.dims)
        keep = (torch.rand(x.shape[0], 1, 2, device=x.device) >= 0.125).to(x.dtype)
        low, high = keep[..., :1], keep.amin(2, keepdim=True)
        masks: list[Tensor | None] = []
        for dim, spared in zip(self.dims, self.config.per_stack("encoder_unmasked_dim"), strict=True):
            half = (dim - spared) // 2
            parts = (torch.ones_like(low).expand(-1, -1, spared), low.expand(-1, -1, half))
            last = high.expand(-1, -1, dim - spared - half)
            masks.append(None if dim == spared else torch.cat((*parts, last), dim=2))
        return masks


class Encoder(SpeechEncoder):
    """The front end (`encoder_embed`) and the stacks (`encoder`), icefall's names.

    Under autocast everything is computed in its type, as in any model; outputs come in that type too.
    """

    def __init__(self, config: ZipformerConfig, feature_dim: int) -> None:
        super().__init__()
        dropout = schedule_of(config.dropout)
        self.encoder_embed = Conv2dSubsampling(
            feature_dim, config.per_stack("encoder_dim")[0], config.subsampling, dropout
        )
        self.encoder = Zipformer(config)
        self.output_dim, self.layer_dims = self.encoder.output_dim, self.encoder.dims
        self.subsampling_factor = config.subsampling.factor * config.output_downsampling_factor
        self.origin = self.encoder_embed.origin
        self._schedules = list(schedules_in(self))
        for schedule in self._schedules:
            schedule.scale = config.schedule_scale
        for module in self.modules():
            if isinstance(module, (Balancer, Whiten)):
                module.enabled = config.regularize

    def set_batch_count(self, step: float) -> None:
        for schedule in self._schedules:
            schedule.step = step

    def output_lens(self, lens: Tensor) -> Tensor:
        """Frames out for `lens` frames in, any shape; 0 for an utterance shorter than the front end's reach."""
        factor = self.encoder.config.output_downsampling_factor
        return torch.div(self.encoder_embed.output_lens(lens) + factor - 1, factor, rounding_mode="floor")

    def forward(self, features: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        """Features (batch, time, feature_dim) and lens (batch,) in frames to (batch, time', output_dim) and its lens.

        An utterance too short for a single output frame has length 0 there (and one meaningless frame if all are).
        """
        features = F.pad(features, (0, 0, 0, max(self.encoder_embed.min_frames - features.shape[1], 0)))
        device = features.device.type
        dtype = autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            x, lens = self.encoder_embed(features if dtype is None else features.to(dtype), lens)
            return self.encoder(x, lens, layers)


def autocast_dtype(device: str) -> torch.dtype | None:
    """The type that autocast computes in on this kind of device, or None where it is off."""
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device == "cpu":  # torch before 2.4
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
