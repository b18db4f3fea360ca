"""Settings of the libraries below torch that make computing on a CPU faster."""

from __future__ import annotations

import os
from pathlib import Path


def tune_cpu() -> None:
    """Call before the first matrix product of the process; what the user set in the environment stays.

    The MKL in torch 1.13 (2020.0) takes its slowest path on AMD processors unless told to use AVX2, which makes float32
    matrix products 2.5 times as fast (training a Zipformer: 2 times). Newer versions ignore the variable.
    oneDNN compiles a kernel for every shape, batches differ in shape, and once its store of kernels is full (1,024 by
    default) it searches all of it for the oldest at every step. With room for them all, and few shapes (see
    `data.pad_fraction`), a small Zipformer trains 1.9 times as fast in bfloat16 as with 8,192, for 1.5 MB a shape.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32768")
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text(errors="replace"):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
