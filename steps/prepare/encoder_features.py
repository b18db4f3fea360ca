"""Features that a frozen pretrained encoder computes: once, in stage 2, instead of in every epoch.

Every utterance is encoded alone, at its own length (Whisper's without padding to 30 s).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from lhotse.utils import compute_num_frames_from_samples
from torch import nn

from steps.nets.encoders import PretrainedConfig, WhisperConfig, build_encoder, pretrained_config
from steps.nets.pretrained_parts import PartedModel
from steps.nets.speech import SpeechEncoder
from steps.prepare.audio import AudioError, make_extractor
from steps.prepare.config import EncoderFeatureConfig, FeatureConfig
from steps.pretrained.folder import find_model, read_config
from steps.training.initial import initialise
from utils.devices import choose_device
from utils.errors import UserError
from utils.files import require

KEY = "encoder.path"


def complete(config: FeatureConfig) -> FeatureConfig:
    """`config` with the dimension and the frame rate of its encoder, if it has one.

    Errors: `UserError` where the encoder cannot be had, or has no such layer.
    """
    if config.encoder is None:
        return config
    encoder, _ = _build(config.encoder)
    if config.encoder.init:
        require(config.encoder.init, "stage 5 (training)")
    dims, layers = encoder.layer_dims, _layers(config.encoder, encoder)
    if layers and layers[-1] > len(dims):
        raise UserError(
            f"encoder.layer is {layers[-1]}, {config.encoder.path} has {len(dims)} layers: give one of these."
        )
    found = {"dim": sum(dims[layer - 1] for layer in layers) or encoder.output_dim, "layers": max(len(layers), 1)}
    found["frame_shift"] = round(0.01 * encoder.subsampling_factor, 4)
    found["parameters"] = sum(p.numel() for name, p in encoder.named_parameters() if not name.startswith("stack."))
    return config.model_copy(update={"encoder": config.encoder.model_copy(update=found)})


def _build(config: EncoderFeatureConfig) -> tuple[SpeechEncoder, FeatureConfig]:
    """The encoder, without its weights, and the features that it reads."""
    section: PretrainedConfig = pretrained_config(config.name, path=config.path, downsample=config.downsample)
    folder = find_model(config.path, KEY)
    inputs = FeatureConfig(type=section.takes[0])
    if isinstance(section, WhisperConfig):
        bins = read_config(folder, "whisper", ["num_mel_bins"])["num_mel_bins"]
        inputs = inputs.model_copy(update={"num_mel_bins": bins})
    return build_encoder(section, inputs.feature_dim, folder), inputs


def _layers(config: EncoderFeatureConfig, encoder: SpeechEncoder) -> list[int]:
    """The layers whose outputs are the features, from 1 on; none: the encoder's own output."""
    if config.layer == "all":
        return list(range(1, len(encoder.layer_dims) + 1))
    return [] if config.layer is None else [config.layer]


@lru_cache(maxsize=2)
def encoder_extractor(config: str) -> EncoderExtractor:
    """The one extractor of this configuration (its JSON) in this process, which reads the weights when it is made."""
    return EncoderExtractor(EncoderFeatureConfig.model_validate_json(config))


class Alone(PartedModel):
    """A model that is an encoder only."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def parts(self) -> dict[str, nn.Module]:
        """The encoder."""
        return {"encoder": self.encoder}


class EncoderExtractor:
    """A pretrained encoder's output, a layer's, or all layers' side by side, as features."""

    def __init__(self, config: EncoderFeatureConfig) -> None:
        self.name, self.config = f"{config.name} encoder", config
        self.device = choose_device("auto")
        encoder, self.inputs = _build(config)
        encoder.load_pretrained()
        if config.init:
            initialise(Alone(encoder), {"encoder": config.init})
        self.encoder = encoder.eval().requires_grad_(False).to(self.device)

    def extract(self, samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Samples (time,) at 16 kHz to (time / frame_shift, dim) float32, the quotient rounded as Lhotse does.

        Encoders round their own ways: the last frame is repeated or left out where they differ. `AudioError` for more
        than the encoder takes.
        """
        features = torch.from_numpy(make_extractor(self.inputs).extract(samples, sampling_rate))
        lens = torch.tensor([len(features)], device=self.device)
        layers = _layers(self.config, self.encoder)
        try:
            encoded = self.encoder(features[None].to(self.device), lens, layers)
        except UserError as error:
            raise AudioError("too long", "audio", str(error).rstrip(".")) from None
        frames = torch.cat([encoded.at(layer)[0] for layer in layers or [None]], dim=-1)
        values = frames[: max(int(encoded.lens[0]), 1)].float().cpu().numpy()
        wanted = max(compute_num_frames_from_samples(len(samples), self.config.frame_shift, sampling_rate), 1)
        return np.pad(values[:wanted], ((0, max(wanted - len(values), 0)), (0, 0)), mode="edge")
