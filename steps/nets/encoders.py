"""Encoders by configuration: those trained here, and those that others trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from steps.nets.encoder import Encoder, ZipformerConfig
from steps.nets.lora import LoraConfig, TransformersLoraConfig, add_lora
from steps.nets.speech import Encoded, SpeechEncoder
from steps.nets.stored import StoredEncoder
from steps.nets.transformer import TransformerConfig
from steps.nets.wav2vec2 import Wav2Vec2Encoder
from steps.nets.whisper import OWN, WhisperEncoder
from steps.pretrained.folder import ModelPath, find_model
from utils.errors import UserError
from utils.options import Config


class PretrainedConfig(Config):
    """What encoders that others trained have in common; `path` is a folder in transformers' layout or a hub name."""

    path: ModelPath
    dropout: float = Field(0.0, ge=0, lt=1)
    mix: bool = False  # a learned mean of all layers instead of the last
    downsample: int = Field(1, ge=1)  # join so many output frames into one
    lora: LoraConfig | None = None  # train adapters, and nothing else of the pretrained part


class WhisperConfig(PretrainedConfig):
    """Whisper's encoder on features of `type: whisper`; 20 ms a frame."""

    takes: ClassVar[tuple[str, ...]] = ("whisper",)
    name: Literal["whisper"]
    pad_seconds: float = Field(0.0, ge=0, le=30)  # pad all utterances to that (30 as Whisper was trained)


class Wav2Vec2Config(PretrainedConfig):
    """wav2vec 2.0, HuBERT or WavLM on features of `type: waveform`; 20 ms a frame."""

    takes: ClassVar[tuple[str, ...]] = ("waveform",)
    name: Literal["wav2vec2", "hubert", "wavlm"]
    lora: TransformersLoraConfig | None = None


class StoredConfig(Config):
    """Features of `type: encoder`, which a pretrained encoder made in stage 2, and transformer layers of our own."""

    takes: ClassVar[tuple[str, ...]] = ("encoder",)
    name: Literal["stored"]
    downsample: int = Field(1, ge=1)  # join so many frames into one
    dropout: float = Field(0.1, ge=0, lt=1)
    layers: int = Field(0, ge=0)  # 0: the heads read the features as they are
    dim: int = Field(256, ge=2)  # of the layers, as what follows
    heads: int = Field(4, ge=1)
    feedforward_dim: int = Field(1024, ge=1)

    @model_validator(mode="after")
    def _check(self) -> StoredConfig:
        self.transformer()
        return self

    def transformer(self) -> TransformerConfig | None:
        """The sizes of the layers."""
        keys = ("layers", "dim", "heads", "feedforward_dim", "dropout")
        return TransformerConfig(**{key: getattr(self, key) for key in keys}) if self.layers else None


class BlindConfig(Config):
    """An encoder that hears nothing: what its heads then say is what a language model alone would."""

    takes: ClassVar[tuple[str, ...]] = ("fbank", "mfcc", "whisper", "waveform", "encoder")
    name: Literal["blind"]
    dim: int = Field(8, ge=1)


class BlindEncoder(SpeechEncoder):
    """A single frame of zeros for every utterance, whatever was said: the control for systems that listen."""

    subsampling_factor = 1
    bounds_text = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output_dim, self.layer_dims = dim, []

    def output_lens(self, lens: Tensor) -> Tensor:
        return torch.ones_like(lens)

    def forward(self, features: Tensor, lens: Tensor, layers: Sequence[int] = ()) -> Encoded:
        return Encoded(features.new_zeros(len(lens), 1, self.output_dim), torch.ones_like(lens))


EncoderConfig = Annotated[
    ZipformerConfig | WhisperConfig | Wav2Vec2Config | StoredConfig | BlindConfig, Field(discriminator="name")
]


def pretrained_config(name: str, **values: Any) -> PretrainedConfig:
    """The section of the pretrained encoder of this name."""
    return (WhisperConfig if name == "whisper" else Wav2Vec2Config)(name=name, **values)


# WavLM's attention reads the weights of these, not what they give: adapters would do nothing
PAST_ADAPTERS = {"q_proj", "k_proj", "v_proj", "out_proj"}


def build_encoder(
    config: EncoderConfig, feature_dim: int, folder: Path | None = None, feature_layers: int = 1
) -> SpeechEncoder:
    """The encoder that `config` describes, for features of this dimension, stored ones of so many layers side by side.

    A pretrained one is as the `config.json` in `folder` (None: that of its `path`) says, without its weights.
    Errors: `UserError` if it cannot be had, or if the features do not fit it.
    """
    if isinstance(config, PretrainedConfig):
        folder = folder or find_model(config.path, "encoder.path")
        return add_lora(_pretrained(config, folder, feature_dim), config.lora, spared=OWN, key="encoder.lora")
    if isinstance(config, StoredConfig):
        return StoredEncoder(feature_dim, config.transformer(), config.downsample, config.dropout, feature_layers)
    if isinstance(config, BlindConfig):
        return BlindEncoder(config.dim)
    if feature_dim < (least := 7 if config.subsampling.factor == 2 else 15):
        raise UserError(f"The front end needs features of {least} or more dimensions, found feature_dim {feature_dim}.")
    return Encoder(config, feature_dim)


def _pretrained(config: PretrainedConfig, folder: Path, feature_dim: int) -> SpeechEncoder:
    options = (folder, config.path, feature_dim, config.dropout, config.mix, config.downsample)
    if isinstance(config, WhisperConfig):
        return WhisperEncoder(*options, config.pad_seconds)
    if config.name == "wavlm" and config.lora and (useless := PAST_ADAPTERS & set(config.lora.targets)):
        raise UserError(
            f"encoder.lora.targets: adapters of {', '.join(sorted(useless))} would do nothing in WavLM: "
            "give [intermediate_dense, output_dense]."
        )
    return Wav2Vec2Encoder(config.name, *options)
