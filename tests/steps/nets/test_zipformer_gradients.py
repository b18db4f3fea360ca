"""Functions with a backward pass of their own against numerical gradients; regularisers against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from steps.nets.attention_kernel import RelativeAttention
from steps.nets.regularizers import Balancer, Whiten
from steps.nets.scaling import BiasNorm, Bypass, Swoosh, swoosh, swoosh_linear
from steps.nets.subsampling import DepthwiseConv2d


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_swoosh_is_its_formula():
    x = torch.tensor([-1000.0, -90.0, -3.0, 0.0, 1.0, 4.0, 17.0, 200.0])
    for kind, shift, constant in (("l", 4.0, 0.035), ("r", 1.0, 0.313261687)):
        expected = F.softplus(x.double() - shift) - 0.08 * x - constant
        for piece in (x, x.bfloat16()):
            value, slope = swoosh(piece.view(1, -1), kind)
            tolerance = {"atol": 2e-6, "rtol": 1e-6 if piece is x else 2**-7}
            torch.testing.assert_close(value[0].double(), expected, **tolerance)
            torch.testing.assert_close(slope[0].double(), torch.sigmoid(x.double() - shift) - 0.08, **tolerance)


def test_gradients_of_activations_and_norms():
    x = double(2, 5, 4)
    assert torch.autograd.gradcheck(Swoosh("l"), x)
    assert torch.autograd.gradcheck(Swoosh("r"), x)
    mask = (torch.rand(2, 1, 4) > 0.5).double() * 2
    assert torch.autograd.gradcheck(lambda *args: swoosh_linear(*args, "l", mask), (x, double(3, 4), double(3)))
    norm, bypass = BiasNorm(4).double(), Bypass(4).double()
    with torch.no_grad():
        norm.bias.normal_()
    assert torch.autograd.gradcheck(lambda *_: norm(x), (x, norm.bias, norm.log_scale))
    assert torch.autograd.gradcheck(lambda *_: bypass.eval()(x, x * x), (x, bypass.bypass_scale))


def test_gradient_of_the_depthwise_convolution():
    conv = DepthwiseConv2d(3, 7).double()
    x = double(2, 9, 5, 3)
    expected = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=3, groups=3).permute(0, 2, 3, 1)
    torch.testing.assert_close(conv(x), expected)
    assert torch.autograd.gradcheck(lambda *_: conv(x), (x, conv.weight, conv.bias))


@pytest.mark.parametrize("content_only", [False, True])
@pytest.mark.parametrize("pieces", [1, 100])
def test_gradient_of_attention(monkeypatch, content_only, pieces):
    monkeypatch.setattr("steps.nets.attention_kernel.PIECE", pieces * 25)
    heads, batch, time = 2, 3, 5
    q, k = double(heads, batch, time, 3), double(heads, batch, time, 3)
    p, positions = double(heads, batch, time, 2), double(heads, 2, 2 * time - 1)
    bias = torch.zeros(batch, 1, time, dtype=torch.float64)
    bias[1, :, 3:] = -1000.0
    one, two, first = double(heads, batch, time, 2), double(heads, batch, time, 4), double(batch, time, 3)

    def kernel(q, k, p, positions, one, two, first):
        attention = RelativeAttention(q, k, None if content_only else p, positions, bias)
        return attention.average(one), attention.average(two), attention.average(first)

    def plain(q, k, p, positions, one, two, first):
        scores = torch.einsum("hbid,hbjd->hbij", q, k) + bias
        if not content_only:
            offsets = torch.arange(time) - torch.arange(time).unsqueeze(1) + time - 1  # key - query
            scores = scores + torch.einsum("hbid,hdij->hbij", p, positions[:, :, offsets])
        weights = scores.softmax(3)
        return weights @ one, weights @ two, weights[0] @ first

    inputs = (q, k, p, positions, one, two, first)
    for mine, theirs in zip(kernel(*inputs), plain(*inputs), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(kernel, inputs)


def gradient_with(module, x, grad):
    x = x.clone().requires_grad_()
    module.train()(x).backward(grad)
    return x.grad


def test_balancer_is_the_gradient_of_its_penalty():
    scale = torch.tensor([0.01, 1.0, 30.0, 1.0, 1.0])
    x = torch.randn(4, 50, 5) * scale + torch.tensor([0.0, 0.0, 0.0, 3.0, -3.0])
    grad = torch.randn(4, 50, 5)
    balancer = Balancer(min_positive=0.2, max_positive=0.8, min_abs=0.2, max_abs=10.0, gain=0.04, prob=1.0)
    y = x.double().requires_grad_()
    mean, square = y.mean((0, 1)), y.square().mean((0, 1))
    ratio, rms = mean / (square - mean**2).sqrt(), square.sqrt()
    # icefall's rough inverse error function of the share of positive values
    low, high = (0.8139535143 * math.atanh(2 * share - 1) for share in (0.2, 0.8))
    least, most = (math.sqrt(math.pi / 2) * limit for limit in (0.2, 10.0))
    penalty = (ratio - ratio.clamp(low, high)).abs() + (rms.clamp(least, most) / rms).log().abs()
    (pull,) = torch.autograd.grad(penalty.sum(), y)
    pull = pull * 0.04 / pull.square().mean((0, 1)).sqrt().clamp(min=1e-20)
    expected = grad + grad.abs() * pull.float()
    found = gradient_with(balancer, x, grad)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found[..., 1], grad[..., 1]) and not torch.equal(found[..., 0], grad[..., 0])
    balancer.enabled = False
    assert torch.equal(gradient_with(balancer, x, grad), grad)


def test_balancer_survives_constant_channels():
    x = torch.zeros(2, 10, 3)
    x[..., 1], x[..., 2] = 1e-8, 1e4
    assert torch.isfinite(gradient_with(Balancer(prob=1.0), x, torch.ones_like(x))).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_whiten_is_the_gradient_of_its_measure(groups):
    x, grad = torch.randn(3, 40, 8) @ torch.randn(8, 8) + 1.0, torch.randn(3, 40, 8)
    y = x.double().requires_grad_()
    parts = (y.flatten(0, 1) - y.flatten(0, 1).mean(0)).view(-1, groups, 8 // groups).transpose(0, 1)
    eigenvalues = torch.linalg.eigvalsh(parts.transpose(1, 2) @ parts)
    measure = eigenvalues.square().mean() / eigenvalues.mean().square()
    (pull,) = torch.autograd.grad(measure, y)
    expected = grad + 0.1 * pull.float() * grad.norm() / pull.float().norm()
    whiten = Whiten(float(measure) - 0.1, gain=0.1, groups=groups, prob=1.0)
    torch.testing.assert_close(gradient_with(whiten, x, grad), expected, atol=1e-4, rtol=1e-4)
    whiten.limit = float(measure) + 0.1
    assert torch.equal(gradient_with(whiten, x, grad), grad)


def test_a_share_keeps_its_limits():
    bypass = Bypass(3).train()
    bypass.scale_min.step = 0  # at least 0.9, at most 1
    with torch.no_grad():
        bypass.bypass_scale.copy_(torch.tensor([0.5, 0.95, 1.5]))
    old, new = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    for sign in (1.0, -1.0):
        bypass.zero_grad()
        (sign * bypass(old, new)).sum().backward()
        # descent raises what is too low, lowers what is too high, and leaves the rest alone
        assert bypass.bypass_scale.grad.tolist() == [-1.0, sign, 1.0]
