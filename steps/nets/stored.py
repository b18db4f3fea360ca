"""An encoder on features that a frozen pretrained encoder made in stage 2: as they are, or through more layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steps.nets.speech import Encoded, FrameStacker, LayerMix, SpeechEncoder
from steps.nets.transformer import LayerNorm, TransformerConfig, TransformerLayer, padding_mask, sinusoids


class StoredEncoder(SpeechEncoder):
    """`downsample` frames joined into one, then, with `config`, a norm, a projection to its `dim` and its layers.

    Where a frame holds the outputs of `mixed` layers side by side, a learned mean of these comes first.

    Without `config` and with `downsample` 1 the features reach the heads unchanged (but for `dropout` in training), as
    a decoder that was trained on them wants it.
    """

    def __init__(
        self, feature_dim: int, config: TransformerConfig | None, downsample: int, dropout: float, mixed: int = 1
    ) -> None:
        super().__init__()
        self.mix, feature_dim = LayerMix(mixed) if mixed > 1 else None, feature_dim // mixed
        self.stack = FrameStacker(feature_dim, downsample)
        self.dropout = nn.Dropout(dropout)
        self.config = config
        self.output_dim, self.subsampling_factor, self.layer_dims = feature_dim, downsample, []
        if config is not None:
            self.input = nn.Sequential(LayerNorm(feature_dim), nn.Linear(feature_dim, config.dim))
            self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
            self.norm = LayerNorm(config.dim)
            self.output_dim, self.layer_dims = config.dim, [config.dim] * config.layers

    def output_lens(self, lens: Tensor) -> Tensor:
        return self.stack.lens(lens)

    def forward(self, features: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        if self.mix is not None:
            features = self.mix(features.chunk(len(self.mix.weights), dim=-1))
        beyond = torch.arange(features.shape[1], device=features.device) >= lens[:, None]
        x, lens = self.stack(features.masked_fill(beyond[..., None], 0.0), lens), self.stack.lens(lens)
        if self.config is None:
            return Encoded(self.dropout(x), lens)
        x = self.input(x)
        x = self.dropout(x + sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2]))
        mask, outputs = padding_mask(lens.clamp(min=1), x.shape[1]), []
        for layer in self.layers:
            x, _ = layer(x, mask)
            outputs.append(x)
        return Encoded(self.norm(x), lens, {number: outputs[number - 1] for number in layers})
