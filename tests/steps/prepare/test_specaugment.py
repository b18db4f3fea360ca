"""SpecAugment on padded batches: masks within bounds, padding untouched, icefall's amounts."""

from __future__ import annotations

import math

import pytest
import torch

from steps.prepare.specaugment import SpecAugment, SpecAugmentConfig, time_warp

LENS = torch.tensor([1000, 700, 333, 90, 7])


def batch(dim: int = 80):
    features = torch.randn(5, 1000, dim, generator=torch.Generator().manual_seed(1))
    for row, length in zip(features, LENS, strict=True):
        row[length:] = -23.0
    return features


def apply(seed: int = 0, features: torch.Tensor | None = None, **config) -> tuple[torch.Tensor, torch.Tensor]:
    features = batch() if features is None else features
    before = features.clone()
    out = SpecAugment(SpecAugmentConfig(**config))(features, LENS, torch.Generator().manual_seed(seed))
    assert torch.equal(features, before), "the input must not change"
    return before, out


@pytest.mark.parametrize("seed", range(5))
def test_padding_stays_and_generator_decides(seed):
    before, out = apply(seed)
    for row, was, length in zip(out, before, LENS, strict=True):
        assert torch.equal(row[length:], was[length:])
    assert torch.equal(out, apply(seed)[1]) and not torch.equal(out, apply(seed + 1)[1])
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("seed", range(5))
def test_time_masks_have_icefalls_number_and_size(seed):
    before, out = apply(seed, time_warp_factor=0, num_feature_masks=0, probability=1.0)
    for row, was, length in zip(out, before, LENS.tolist(), strict=True):
        masked = (row != was).any(1)[:length].tolist()
        assert sum(masked) <= 0.15 * length
        runs = sum(now and not last for last, now in zip([False, *masked], masked, strict=False))
        assert runs <= min(10, math.ceil(0.15 * length / 100))
        for frame, is_masked in enumerate(masked):
            if is_masked:
                assert torch.allclose(row[frame], was[:length].mean(), atol=1e-5)


def test_masks_reach_their_limits():
    """Over many draws, time masks use most of what they may, everywhere in the utterance."""
    covered, most = torch.zeros(1000), 0
    for seed in range(200):
        before, out = apply(seed, time_warp_factor=0, num_feature_masks=0, probability=1.0)
        masked = (out[0] != before[0]).any(1)
        covered += masked
        most = max(most, int(masked.sum()))
    assert 120 <= most <= 150
    assert (covered > 0).float().mean() > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_frequency_masks(seed):
    before, out = apply(seed, time_warp_factor=0, num_frame_masks=0, probability=1.0)
    for row, was, length in zip(out, before, LENS, strict=True):
        masked = (row[:length] != was[:length]).all(0)
        assert torch.equal(row[:length][:, ~masked], was[:length][:, ~masked])
        assert int(masked.sum()) <= 2 * 26
    narrow = apply(seed, batch(dim=8), time_warp_factor=0, num_frame_masks=0)[1]
    assert narrow.shape == (5, 1000, 8)


def test_probability():
    before, out = apply(probability=0.0)
    assert torch.equal(before, out)
    changed = sum((b != o).any().item() for s in range(60) for b, o in zip(*apply(s, probability=0.5), strict=True))
    assert 100 < changed < 200


def test_everything_off_is_the_identity():
    before, out = apply(time_warp_factor=0, num_frame_masks=0, num_feature_masks=0, probability=1.0)
    assert torch.equal(before, out)


@pytest.mark.parametrize("seed", range(5))
def test_time_warp_is_a_monotonous_stretch(seed):
    ramp = torch.arange(1000.0)[None, :, None].repeat(5, 1, 2)
    draws = torch.rand(5, 2, generator=torch.Generator().manual_seed(seed))
    out = time_warp(ramp, LENS, 80, draws)
    for row, length, was in zip(out, LENS.tolist(), ramp, strict=True):
        assert torch.equal(row[length:], was[length:])
        if length <= 161:
            assert torch.equal(row, was)
            continue
        line = row[:length, 0]
        assert line[0] == 0 and line[-1] == pytest.approx(length - 1, abs=2)
        assert (line.diff() >= 0).all()
        assert (line - torch.arange(float(length))).abs().max() <= 80


def test_half_precision_and_other_lengths():
    out = apply(features=batch().to(torch.bfloat16))[1]
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("seed", range(3))
def test_views_have_the_same_warping_and_masks_of_their_own(seed):
    plain, generator = batch(), torch.Generator()
    warping = SpecAugment(SpecAugmentConfig(num_frame_masks=0, num_feature_masks=0, probability=1.0))
    one, other = warping(plain, LENS, generator.manual_seed(seed), 2).chunk(2)
    assert torch.equal(one, other) and not torch.equal(one[0], plain[0])
    masking = SpecAugment(SpecAugmentConfig(time_warp_factor=0, probability=1.0))
    one, other = masking(plain, LENS, generator.manual_seed(seed), 2).chunk(2)
    for row in range(3):
        masked = [(view[row] != plain[row]) for view in (one, other)]
        assert masked[0].any() and masked[1].any() and not torch.equal(*masked)
    for view in (one, other):
        assert all(torch.equal(row[length:], was[length:]) for row, was, length in zip(view, plain, LENS, strict=True))
