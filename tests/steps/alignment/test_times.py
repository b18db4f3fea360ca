"""Where encoders' frames lie: the middle of what the front end hears in each, by its gradient."""

from __future__ import annotations

import pytest
import torch
from lhotse.supervision import AlignmentItem

from steps.alignment.script import Misfit, script
from steps.alignment.times import Clock, align, scaled
from steps.lang.tokenizer import Tokenizer
from steps.nets.encoders import build_encoder, pretrained_config
from steps.nets.subsampling import Conv2dSubsampling, SubsamplingConfig
from steps.nets.wav2vec2 import SAMPLES
from tests.steps.tiny_models import make_speech_model, make_whisper

TOKENS = ["<blk>", "<sos/eos>", "<unk>", "▁", "a", "b"]


def heard(gradient: torch.Tensor) -> float:
    """The middle of the frames `(time,)` that have a gradient, counted from the edge of the first."""
    frames = gradient.nonzero().flatten()
    return (int(frames[0]) + int(frames[-1]) + 1) / 2


@pytest.mark.parametrize("factor", [2, 4])
def test_the_zipformers_front_end(factor):
    front = Conv2dSubsampling(20, 8, SubsamplingConfig(factor=factor, channels=(2, 3, 4), convnext=False), 0.0).eval()
    features = torch.randn(1, 80, 20, requires_grad=True)
    out, _ = front(features, torch.tensor([80]))
    (gradient,) = torch.autograd.grad(out[0, 5].sum(), features)
    assert heard(gradient[0].abs().sum(1)) == front.origin + factor * 5.5


def test_whispers_convolutions(tmp_path):
    """A frame of features is around its time, not behind it: half a frame earlier."""
    make_whisper(tmp_path, ["no"])
    encoder = build_encoder(pretrained_config("whisper", path=str(tmp_path)), 8, tmp_path)
    features = torch.randn(1, 8, 80, requires_grad=True)
    out = encoder.conv2(encoder.conv1(features))
    (gradient,) = torch.autograd.grad(out[0, :, 5].sum(), features)
    assert heard(gradient[0].abs().sum(0)) - 0.5 == encoder.origin + 2 * 5.5


def test_wav2vec2s_convolutions(tmp_path):
    make_speech_model(tmp_path, "wav2vec2")
    encoder = build_encoder(pretrained_config("wav2vec2", path=str(tmp_path)), SAMPLES, tmp_path)
    samples = torch.randn(1, 6000, requires_grad=True)
    out = encoder.eval().feature_extractor(samples)
    (gradient,) = torch.autograd.grad(out[0, :, 5].sum(), samples)
    assert heard(gradient[0]) / SAMPLES == pytest.approx(encoder.origin + encoder.subsampling_factor * 5.5)


def test_words_and_tokens_by_hand():
    """▁ in frame 1, a in 2 and 3, a blank, b in 5; then ▁ in 6 and b in 7."""
    labels = [0, 3, 4, 4, 0, 5, 3, 5]
    log_probs = torch.full((1, 9, 6), -50.0)
    for frame, (label, prob) in enumerate(zip(labels, [1, 1, 0.8, 0.6, 1, 0.4, 1, 0.9], strict=True)):
        log_probs[0, frame, label] = torch.tensor(float(prob)).log()
    text = script("ab b", Tokenizer(TOKENS, ["en"], False), None)
    (found,) = align(log_probs, torch.tensor([8]), [text], Clock(0.04, 0.05))
    # half a frame more: before ab, between ab and b; behind b there is none left
    assert found.words == [AlignmentItem("ab", 0.11, 0.2, 0.6), AlignmentItem("b", 0.31, 0.06, 0.9)]
    assert [token[:3] for token in found.tokens[:3]] == [("▁", 0.09, 0.04), ("a", 0.13, 0.08), ("b", 0.25, 0.04)]
    assert found.tokens[1].score == 0.7 and found.missing == []


def test_the_prior_taken_off():
    """Bayes: what the frame says beyond what is usual, as probabilities."""
    log_probs, prior = torch.randn(2, 3, 4).log_softmax(-1), torch.tensor([0.7, 0.1, 0.1, 0.1])
    expected = log_probs.exp() / prior
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(scaled(log_probs, prior.log(), 1.0).exp(), expected)
    assert scaled(log_probs, prior.log(), 0.0) is log_probs


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "no text"), (" \n", "no text"), ("abc d", "unknown characters: 2")]
)
def test_texts_that_cannot_be_aligned(text, reason):
    with pytest.raises(Misfit, match=reason):
        script(text, Tokenizer(TOKENS, ["en"], False), None)


def test_a_languages_tag_is_no_word():
    tokenizer = Tokenizer([*TOKENS[:3], "<en>", *TOKENS[3:]], ["en"], True)
    found = script("ab b", tokenizer, "en")
    assert found.symbols == ["<en>", "▁", "a", "b", "▁", "b"] and found.words == ["ab", "b"]
    assert found.spans == [(2, 4), (5, 6)] and found.starts == [1, 4]
