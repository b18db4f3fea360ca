"""Where a tensor is, for code that has one way for CPUs and one for accelerators."""

from __future__ import annotations

from torch import Tensor

CPUS = {"cpu"}


def on_cpu(x: Tensor) -> bool:
    """True where caches decide the speed and looking at a value costs nothing; False on accelerators, where memory is
    short and looking at a value makes the program wait."""
    return x.device.type in CPUS
