"""wav2vec 2.0, HuBERT and WavLM (arXiv:2006.11477, 2106.07447, 2110.13900): samples to vectors of 20 ms.

The layers are transformers'; the way through them is ours, so that an utterance gives the same in any batch and what
it gives alone: padding reaches neither a convolution's valid frames, nor the statistics of a group norm, nor attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.nets.activation import Gelu
from steps.nets.lora import load_weights, pretrained_part
from steps.nets.speech import Encoded, FrameStacker, LayerMix, SpeechEncoder
from steps.nets.transformer import LayerNorm, padding_mask
from steps.pretrained.folder import find_model, read_config, read_weights
from utils.errors import UserError
from utils.files import read_json, require

SAMPLES = 160  # of a frame of features (10 ms)
FULL_SCALE = 32768.0  # of the samples in features
OWN = ("mix.", "stack.")  # parts that the pretrained model does not have
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
NORM = "pos_conv_embed.conv."  # the convolution whose weight is stored as length (g) and direction (v)


class Wav2Vec2Encoder(SpeechEncoder):
    """The encoder that `config.json` and `preprocessor_config.json` in `folder` describe, of model type `name`.

    `load_pretrained` takes its weights from `path`. Features are frames of 160 samples (`type: waveform`). Layers are
    never skipped and nothing is masked in training: `dropout` is all the noise there is.
    """

    def __init__(
        self, name: str, folder: Path, path: str, feature_dim: int, dropout: float, mix: bool, downsample: int
    ) -> None:
        super().__init__()
        self.path, self.name = path, name
        config = _read(folder, name, dropout)
        if feature_dim != SAMPLES:
            raise UserError(
                f"encoder.path: {path} wants {SAMPLES} samples a frame, the features have {feature_dim} values: "
                "make them with type: waveform (stage 2)."
            )
        self.normalize = _normalizes(folder)
        parts = _modules(config)
        self.feature_extractor, self.feature_projection = parts.feature_extractor, parts.feature_projection
        self.pos_conv_embed, self.layer_norm = parts.encoder.pos_conv_embed, parts.encoder.layer_norm
        self.layers, self.dropout = parts.encoder.layers, nn.Dropout(dropout)
        self.pre_norm = config.do_stable_layer_norm
        self.kernels = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.mix = LayerMix(len(self.layers)) if mix else None
        self.stack = FrameStacker(config.hidden_size, downsample)
        self.output_dim, self.layer_dims = config.hidden_size, [config.hidden_size] * len(self.layers)
        self.subsampling_factor = _stride(self.kernels, path) * downsample
        self.origin = _overhang(self.kernels) / SAMPLES

    def load_pretrained(self) -> None:
        """The weights of the model in `path`."""
        source = find_model(self.path, "encoder.path")
        load_weights(self, _weights(source, self.name, set(self.state_dict())), str(source), OWN)

    def pretrained_names(self) -> set[str]:
        return pretrained_part(self, spared=OWN)

    def output_lens(self, lens: Tensor) -> Tensor:
        """Frames out for `lens` frames in, any shape; 0 for an utterance of less than 25 ms."""
        return self.stack.lens(self._valid(SAMPLES * lens, len(self.kernels)))

    def _valid(self, samples: Tensor, layers: int) -> Tensor:
        """Lengths behind so many convolutions, none of which pads."""
        for kernel, stride in self.kernels[:layers]:
            samples = (torch.div(samples - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
        return samples

    def forward(self, features: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        samples = self._samples(features, SAMPLES * lens)
        x = self._convolved(samples, SAMPLES * lens).transpose(1, 2)
        lens = self._valid(SAMPLES * lens, len(self.kernels))
        x = _first(self.feature_projection(x)).float()
        x = x.masked_fill(_beyond(x, lens), 0.0)
        x = x + self.pos_conv_embed(x)
        outputs = self._transformed(self.dropout(x if self.pre_norm else self.layer_norm(x)), lens)
        x = outputs[-1] if self.mix is None else self.mix(outputs)
        out = {number: self.stack(outputs[number - 1], lens) for number in layers}
        return Encoded(self.stack(self.layer_norm(x) if self.pre_norm else x, lens), self.stack.lens(lens), out)

    def _samples(self, features: Tensor, lens: Tensor) -> Tensor:
        """`(batch, time)`: normalised as the model was trained, zero beyond `lens`, at least one frame long."""
        x = features.flatten(1).float() / FULL_SCALE
        beyond = torch.arange(x.shape[1], device=x.device) >= lens[:, None]
        x = x.masked_fill(beyond, 0.0)
        if self.normalize:
            count = lens.clamp(min=1)[:, None]
            x = (x - x.sum(1, keepdim=True) / count).masked_fill(beyond, 0.0)
            x = x / (x.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
        least = 1
        for kernel, stride in reversed(self.kernels):
            least = (least - 1) * stride + kernel
        return F.pad(x, (0, max(least - x.shape[1], 0)))

    def _convolved(self, samples: Tensor, lens: Tensor) -> Tensor:
        """`(batch, dim, frames)` of the front end."""
        x = samples[:, None]
        for number, layer in enumerate(self.feature_extractor.conv_layers, 1):
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                x = layer.activation(_instance_norm(layer.conv(x), self._valid(lens, number), norm))
            else:
                x = layer(x)
        return x

    def _transformed(self, x: Tensor, lens: Tensor) -> list[Tensor]:
        """The output of every layer, `(batch, frames, dim)`."""
        outputs, bias = [], None
        lens = lens.clamp(min=1)  # attention has to look somewhere
        if self.name == "wavlm":  # which makes a position's bias in the first layer, for all
            inside = ~_beyond(x, lens)[..., 0]
            for layer in self.layers:
                x, bias = layer(x, attention_mask=inside, position_bias=bias)[:2]
                outputs.append(x)
            return outputs
        mask = padding_mask(lens, x.shape[1]).expand(-1, 1, x.shape[1], -1)
        for layer in self.layers:
            x = _first(layer(x, attention_mask=mask))
            outputs.append(x)
        return outputs


def _first(output: Tensor | tuple) -> Tensor:
    """The first of several outputs; versions of transformers differ in whether there are several."""
    return output[0] if isinstance(output, tuple) else output


def _beyond(x: Tensor, lens: Tensor) -> Tensor:
    """`(batch, time, 1)` bool for x `(batch, time, dim)`: which frames lie beyond `lens (batch,)`."""
    return (torch.arange(x.shape[1], device=x.device) >= lens[:, None])[..., None]


def _instance_norm(x: Tensor, lens: Tensor, norm: nn.GroupNorm) -> Tensor:
    """`norm`, whose groups are channels, of x `(batch, channels, time)` over the first `lens (batch,)` frames."""
    inside = (torch.arange(x.shape[2], device=x.device) < lens[:, None])[:, None]
    x, count = x.float(), lens.clamp(min=1)[:, None, None]
    x = x - (x * inside).sum(2, keepdim=True) / count
    variance = (x.square() * inside).sum(2, keepdim=True) / count
    return x * (variance + norm.eps).rsqrt() * norm.weight[:, None] + norm.bias[:, None]


def _read(folder: Path, name: str, dropout: float):
    """transformers' configuration of the model in `folder`, with `dropout` everywhere and no layer skipped."""
    from transformers import AutoConfig

    if read_config(folder, name).get("conv_pos_batch_norm"):
        raise UserError(f"encoder.path: {folder} has a batch norm, which depends on the batch: give another model.")
    config = AutoConfig.from_pretrained(str(folder))
    for key in DROPOUTS:
        setattr(config, key, dropout)
    return config


def _normalizes(folder: Path) -> bool:
    """Whether each utterance is brought to zero mean and unit variance before it is heard."""
    about = read_json(require(folder / "preprocessor_config.json", "the download of the whole model"))
    if (rate := about.get("sampling_rate", 16000)) != 16000:
        raise UserError(
            f"encoder.path: {folder} wants {rate} samples a second, features have 16000: give another model."
        )
    return about.get("do_normalize", True)


def _modules(config) -> nn.Module:
    """transformers' modules, with our norms (in float32) and GELU, and a plain convolution for the positions."""
    from transformers import AutoModel

    model = AutoModel.from_config(config, attn_implementation="eager").float()
    conv = model.encoder.pos_conv_embed.conv
    if hasattr(conv, "parametrizations"):
        nn.utils.parametrize.remove_parametrizations(conv, "weight")
    else:  # torch 1.13
        nn.utils.remove_weight_norm(conv)
    for module in list(model.modules()):
        for key, child in module.named_children():
            if type(child) is nn.LayerNorm:
                setattr(module, key, LayerNorm(child.normalized_shape, child.eps))
            elif type(child).__name__ == "GELUActivation":
                setattr(module, key, Gelu())
    return model


def _overhang(kernels: list[tuple[int, int]]) -> float:
    """Samples that a frame hears on each side of its own."""
    seen, step = 1, 1
    for kernel, stride in kernels:
        seen, step = seen + (kernel - 1) * step, step * stride
    return (seen - step) / 2


def _stride(kernels: list[tuple[int, int]], path: str) -> int:
    """Frames of features for one of the encoder's."""
    samples = 1
    for _, stride in kernels:
        samples *= stride
    if samples % SAMPLES:
        raise UserError(f"encoder.path: {path} gives a frame for {samples} samples, no multiple of {SAMPLES}.")
    return samples // SAMPLES


def _weights(folder: Path, name: str, wanted: set[str]) -> dict[str, Tensor]:
    """The weights called as in `wanted`, of a bare model or of one with a head."""

    def rename(key: str) -> str | None:
        key = key.removeprefix(f"{name}.").removeprefix("encoder.")
        key = key.replace("parametrizations.weight.original0", "weight_g")
        key = key.replace("parametrizations.weight.original1", "weight_v")
        adapted = key.replace(".weight", ".base_layer.weight"), key.replace(".bias", ".base_layer.bias")
        return key if key in wanted or key.startswith(NORM) or any(k in wanted for k in adapted) else None

    weights = read_weights(folder, rename)
    if {f"{NORM}weight_g", f"{NORM}weight_v"} <= weights.keys():
        length, direction = weights.pop(f"{NORM}weight_g"), weights.pop(f"{NORM}weight_v")
        weights[f"{NORM}weight"] = length * direction / direction.norm(dim=(0, 1), keepdim=True)
    return weights
