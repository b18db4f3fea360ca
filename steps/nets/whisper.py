"""Whisper's encoder (Radford et al. 2022): log-mel frames of 10 ms to vectors of 20 ms, without padding to 30 s."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.nets.activation import gelu
from steps.nets.lora import load_weights, pretrained_part
from steps.nets.speech import Encoded, FrameStacker, LayerMix, SpeechEncoder
from steps.nets.transformer import LayerNorm, TransformerLayer, padding_mask
from steps.pretrained.folder import find_model, read_config
from steps.pretrained.whisper import whisper_sizes, whisper_weights
from utils.errors import UserError

FLOOR = 2.0  # the quietest value of Whisper's features lies this much below the loudest
OWN = ("mix.", "stack.")  # parts that Whisper does not have
SILENCE = -1.5  # and is at least that, what no sound at all becomes


class WhisperEncoder(SpeechEncoder):
    """The encoder that the `config.json` in `folder` describes; `load_pretrained` takes its weights from `path`.

    An utterance gives the same whatever it is batched with. `pad_seconds` pads all to this length with silence, as
    Whisper was trained (30): its own decoder wants that until it is fine-tuned.
    """

    def __init__(
        self,
        folder: Path,
        path: str,
        feature_dim: int,
        dropout: float,
        mix: bool,
        downsample: int,
        pad_seconds: float,
    ) -> None:
        super().__init__()
        self.path, config = path, whisper_sizes(folder, "encoder", dropout)
        bins = read_config(folder, "whisper", ["num_mel_bins"])["num_mel_bins"]
        if feature_dim != bins:
            raise UserError(
                f"encoder.path: {folder} wants {bins} mel bins a frame, the features have {feature_dim}: "
                f"make them with type: whisper, num_mel_bins: {bins} (stage 2)."
            )
        self.pad_frames = round(100 * pad_seconds)
        self.conv1 = nn.Conv1d(feature_dim, config.dim, 3, padding=1)
        self.conv2 = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        self.pos = nn.Embedding(config.max_positions, config.dim)
        self.pos.weight.requires_grad_(False)  # sinusoids in all released models; saved with ours
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.dim)
        self.mix = LayerMix(config.layers) if mix else None
        self.stack = FrameStacker(config.dim, downsample)
        self.output_dim, self.layer_dims = config.dim, [config.dim] * config.layers
        self.subsampling_factor = 2 * downsample
        self.origin = -1.0  # features around their time, not behind it, and every other of them the middle of a frame

    def load_pretrained(self) -> None:
        """Whisper's own weights."""
        source = find_model(self.path, "encoder.path")
        load_weights(self, whisper_weights(source, "encoder"), str(source), OWN)

    def pretrained_names(self) -> set[str]:
        """The parameters that `load_pretrained` sets."""
        return pretrained_part(self, spared=(*OWN, "pos."))

    def output_lens(self, lens: Tensor) -> Tensor:
        lens = lens.clamp(min=self.pad_frames) if self.pad_frames else lens
        return self.stack.lens(torch.div(lens + 1, 2, rounding_mode="floor"))

    def forward(self, features: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        features, lens = self._padded(self._within(features, lens), lens)
        x = features.transpose(1, 2)
        keep = (torch.arange(x.shape[2], device=x.device) < lens[:, None])[:, None].to(x.dtype)
        x = gelu(self.conv1(x * keep))  # zeros beyond the end: as the convolution itself pads
        x = gelu(self.conv2(x * keep.to(x.dtype))).transpose(1, 2)
        lens = torch.div(lens + 1, 2, rounding_mode="floor")
        x = x.float() + self.pos.weight[: x.shape[1]]
        mask, outputs = padding_mask(lens, x.shape[1]), []
        for layer in self.layers:
            x, _ = layer(x, mask)
            outputs.append(x)
        if self.mix is not None:
            x = self.mix(outputs)
        out = {number: self.stack(outputs[number - 1], lens) for number in layers}
        return Encoded(self.stack(self.norm(x), lens), self.stack.lens(lens), out)

    def _within(self, features: Tensor, lens: Tensor) -> Tensor:
        """Features no longer than the positions reach: a batch may be padded beyond its longest utterance."""
        most = 2 * self.pos.num_embeddings
        if features.shape[1] > most and (longest := int(lens.max())) > most:
            raise UserError(
                f"An utterance of {longest / 100:.1f} s is longer than the {most / 100:.0f} s that Whisper takes: "
                "leave it out or cut it (stage 2: max_duration)."
            )
        return features[:, :most]

    def _padded(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features with silence from each utterance's end to `pad_seconds`, which then counts as speech."""
        if not self.pad_frames:
            return features, lens
        features = F.pad(features, (0, 0, 0, max(self.pad_frames - features.shape[1], 0)))
        inside = (torch.arange(features.shape[1], device=lens.device) < lens[:, None])[..., None]
        loudest = features.masked_fill(~inside, -1e4).amax((1, 2), keepdim=True)
        return torch.where(inside, features, (loudest - FLOOR).clamp(min=SILENCE)), lens.clamp(min=self.pad_frames)
