"""SpecAugment (Park et al. 2019) on a whole padded batch at once, with icefall's defaults."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from steps.prepare.config import Probability
from utils.options import Config

Count = Annotated[int, Field(ge=0)]


class SpecAugmentConfig(Config):
    """icefall's names and defaults (`time_warp_factor` 0: no warping)."""

    time_warp_factor: Count = 80  # frames
    num_feature_masks: Count = 2
    features_mask_size: Annotated[int, Field(ge=1)] = 27  # bins
    num_frame_masks: Count = 10
    frames_mask_size: Annotated[int, Field(ge=1)] = 100  # frames
    max_frames_mask_fraction: Probability = 0.15
    probability: Probability = 0.9  # of an utterance being augmented at all
    first_epoch: Annotated[int, Field(ge=1)] = 1  # from 1; a short training first learns to align


class SpecAugment:
    """`augment(features (batch, time, dim), lens (batch,), generator) -> features`: a new tensor, padding untouched.

    As in icefall, time masks number ceil(fraction * frames / frames_mask_size), at most `num_frame_masks`, and share
    fraction * frames; masked values become the utterance's mean. The generator lives on the CPU, so that a seed
    gives the same masks on every device. `views`: so many copies of the batch, one behind the other, with masks of
    their own and the same warping, so that their frames correspond (CR-CTC, arXiv:2410.05101, section 3.2).
    """

    def __init__(self, config: SpecAugmentConfig) -> None:
        self.config = config

    def __call__(self, features: Tensor, lens: Tensor, generator: torch.Generator, views: int = 1) -> Tensor:
        config, (count, frames, dim) = self.config, features.shape
        device = features.device
        chosen = (torch.rand(views * count, generator=generator) < config.probability).to(device)
        draws = torch.rand(count, 2, generator=generator).to(device)
        bands = config.num_feature_masks
        widths, starts = torch.rand(2, views * count, bands + config.num_frame_masks, generator=generator).to(device)
        if config.time_warp_factor:
            warped = chosen.view(views, count).any(0)
            features = time_warp(features, lens * warped, config.time_warp_factor, draws)
        features, lens = features.repeat(views, 1, 1), lens.repeat(views)
        true = torch.arange(frames, device=device) < lens[:, None]
        mean = (features * true[..., None]).sum((1, 2)) / (lens.clamp(min=1) * dim)
        band_widths = (widths[:, :bands] * min(config.features_mask_size, dim)).floor()
        masked_bins = _covered(starts[:, :bands], band_widths, torch.full_like(lens, dim), dim)
        span_widths = self._span_widths(lens, widths[:, bands:])
        masked_frames = _covered(starts[:, bands:], span_widths, lens, frames)
        masked = (masked_frames[:, :, None] | masked_bins[:, None, :]) & (true & chosen[:, None])[..., None]
        return torch.where(masked, mean[:, None, None].to(features.dtype), features)

    def _span_widths(self, lens: Tensor, draws: Tensor) -> Tensor:
        """(batch, masks) widths of the time masks in frames; those beyond an utterance's number of masks are 0."""
        config = self.config
        budget = config.max_frames_mask_fraction * lens
        number = (budget / config.frames_mask_size).ceil().clamp(max=config.num_frame_masks)
        widest = (budget / number.clamp(min=1)).floor().clamp(max=config.frames_mask_size)
        used = torch.arange(draws.shape[1], device=lens.device) < number[:, None]
        return (draws * widest[:, None]).floor() * used


def _covered(starts: Tensor, widths: Tensor, limits: Tensor, size: int) -> Tensor:
    """(batch, size) bool: positions under any of the masks; `starts` in [0, 1) of the room that each mask leaves."""
    first = (starts * (limits[:, None] - widths).clamp(min=0)).floor()
    places = torch.arange(size, device=starts.device)
    return ((places >= first[..., None]) & (places < (first + widths)[..., None])).any(1)


def time_warp(features: Tensor, lens: Tensor, factor: int, draws: Tensor) -> Tensor:
    """Move a random frame of each utterance by less than `factor` frames and stretch both sides linearly to fit.

    `draws` (batch, 2) in [0, 1). Utterances of at most 2 * factor + 1 frames stay as they are, and so does padding.
    """
    frames = features.shape[1]
    room = (lens - 2 * factor - 1).clamp(min=0)
    center = factor + 1 + (draws[:, 0] * room).floor()
    moved = center - factor + 1 + (draws[:, 1] * (2 * factor - 1)).floor()
    place = torch.arange(frames, device=features.device, dtype=torch.float32).expand(len(lens), -1)
    center, moved, length = center[:, None], moved[:, None], lens[:, None].float()
    left = place * center / moved
    right = center + (place - moved) * (length - center) / (length - moved).clamp(min=1)
    source = torch.where(place < moved, left, right).clamp(min=0)
    source = torch.minimum(source, (length - 1).clamp(min=0))
    source = torch.where((room[:, None] > 0) & (place < length), source, place)
    low = source.floor().long()
    high = (low + 1).clamp(max=frames - 1)
    part = (source - low)[..., None].to(features.dtype)
    rows = torch.arange(len(lens), device=features.device)[:, None]
    return torch.lerp(features[rows, low], features[rows, high], part)
