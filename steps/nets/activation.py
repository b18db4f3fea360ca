"""GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415) with a gradient that is right on a CPU in every torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def gelu(x: Tensor) -> Tensor:
    """x Φ(x), any shape.

    torch 1.13's kernel for CPUs reads past a gradient whose memory is laid out otherwise than x, as behind a
    convolution whose output is transposed, and gives numbers such as 1e30: here it gets one as it expects it.
    """
    y = F.gelu(x)
    if y.requires_grad:
        y.register_hook(Tensor.contiguous)
    return y


class Gelu(nn.Module):
    """`gelu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)
