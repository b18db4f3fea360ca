from __future__ import annotations

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from steps.nets.projector import Projector, ProjectorConfig, build_projector

ENCODER, LLM = 6, 10
KINDS = {
    "mlp": {"name": "mlp", "factor": 3, "hidden_dim": 8},
    "conv": {"name": "conv", "strides": [2, 3], "kernel": 5, "dim": 7},
    "even": {"name": "conv", "strides": [2, 2], "kernel": 4},
    "layer": {"name": "conv", "strides": []},
    "qformer": {"name": "qformer", "window": 4, "queries": 2, "dim": 8, "heads": 2, "layers": 2, "feedforward_dim": 12},
}
RATES = {"mlp": (3, 1), "conv": (6, 1), "even": (4, 1), "layer": (1, 1), "qformer": (4, 2)}


def make(kind: str) -> Projector:
    torch.manual_seed(0)
    return build_projector(TypeAdapter(ProjectorConfig).validate_python(KINDS[kind]), ENCODER, LLM).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_every_begun_group_of_frames_is_a_vector(kind):
    projector, (frames, vectors) = make(kind), RATES[kind]
    for length in (1, 2, 3, 4, 5, 11, 12, 13, 24):
        out, lens = projector(torch.randn(1, length, ENCODER), torch.tensor([length]))
        assert lens.tolist() == [math.ceil(length / frames) * vectors] and out.shape == (1, lens[0], LLM)
    assert projector.output_lens(torch.tensor([0])).tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_is_the_same_whatever_it_is_batched_with(kind):
    projector, lens = make(kind), [13, 4, 1, 20]
    x = torch.randn(len(lens), max(lens), ENCODER, generator=torch.Generator().manual_seed(1)) * 3
    together, found = projector(x, torch.tensor(lens))
    for i, length in enumerate(lens):
        alone, _ = projector(x[i : i + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together[i, : found[i]], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_counts_and_every_parameter_learns(kind):
    projector = make(kind)
    x = torch.randn(1, 12, ENCODER, requires_grad=True)
    out, lens = projector(x, torch.tensor([11]))
    (out[:, : lens[0]] * torch.randn(1, int(lens[0]), LLM)).sum().backward()
    assert (x.grad[0, :11].abs().sum(1) > 0).all() and not x.grad[0, 11].any()
    silent = [name for name, p in projector.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6]
    assert all(name.endswith("linear_k.bias") for name in silent)  # which changes no softmax


def test_vectors_begin_as_large_as_they_are_told():
    projector = make("mlp")
    projector.set_gain(0.25)
    out, _ = projector(torch.randn(1, 12, ENCODER), torch.tensor([12]))
    torch.testing.assert_close(out.std(-1, unbiased=False), torch.full((1, 4), 0.25), atol=1e-3, rtol=0)


def test_stacked_frames_and_two_layers_as_in_slam_asr():
    projector, x = make("mlp"), torch.randn(1, 6, ENCODER)
    first, second = projector.layers[0], projector.layers[3]
    expected = second(first(x.reshape(1, 2, 3 * ENCODER)).relu())
    torch.testing.assert_close(projector.project(x, torch.tensor([6])), expected)


def test_queries_see_their_window_alone():
    projector, x = make("qformer"), torch.randn(1, 8, ENCODER)
    changed = x.clone()
    changed[0, 5] += 1
    before, after = (projector(y, torch.tensor([8]))[0] for y in (x, changed))
    assert torch.equal(before[0, :2], after[0, :2]) and not torch.isclose(before[0, 2:], after[0, 2:]).all(1).any()
    assert not torch.isclose(before[0, 0], before[0, 1]).all()  # one query is not the other


def test_convolutions_are_torchs():
    projector, x = make("even"), torch.randn(1, 8, ENCODER)
    y = x.transpose(1, 2)
    for conv in projector.convs:
        y = torch.nn.functional.gelu(torch.conv1d(y, conv.weight, conv.bias, 2, padding=1))
    torch.testing.assert_close(projector.project(x, torch.tensor([8])), projector.out(y.transpose(1, 2)))


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"name": "mpl"}, "'mlp', 'conv', 'qformer'"),
        ({"name": "mlp", "factor": 0}, "factor"),
        ({"name": "conv", "strides": [2, 0]}, "strides"),
        ({"name": "qformer", "factor": 2}, "factor"),
    ],
)
def test_wrong_values_are_named(values, complaint):
    with pytest.raises(ValidationError, match=complaint):
        TypeAdapter(ProjectorConfig).validate_python(values)
