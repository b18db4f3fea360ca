"""GELU's gradient is right whatever the layout in memory of what goes in and of what comes back."""

from __future__ import annotations

import itertools

import pytest
import torch

from steps.nets.activation import Gelu

LAYOUTS = {
    "plain": lambda: torch.randn(2, 16, 20),
    "transposed": lambda: torch.randn(2, 20, 16).transpose(1, 2),
    "sliced": lambda: torch.randn(2, 16, 21)[..., :-1],
    "expanded": lambda: torch.randn(2, 1, 20).expand(2, 16, 20),
}


def formula(x: torch.Tensor, **_) -> torch.Tensor:
    """x times the normal distribution's function, by its definition."""
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("given", "back"), itertools.product(LAYOUTS, LAYOUTS))
def test_value_and_gradient_are_those_of_the_formula(given, back, dtype):
    torch.manual_seed(0)
    x, upstream = LAYOUTS[given]().to(dtype).requires_grad_(), LAYOUTS[back]().to(dtype)
    y, expected = Gelu()(x), formula(x.double())
    (gradient,) = torch.autograd.grad(y, x, upstream)
    (wanted,) = torch.autograd.grad(expected, x, upstream.double())
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    torch.testing.assert_close(y.double(), expected, **tolerance)
    torch.testing.assert_close(gradient.double(), wanted.double(), **tolerance)
