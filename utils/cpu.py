"""Settings of the C libraries below torch that make a training process on a CPU faster."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h


def tune_cpu() -> None:
    """Call once, before the first matrix product; does nothing where it does not apply, and respects what is set.

    Freed memory is kept for the next step: otherwise every large tensor costs the kernel a round of page faults, which
    was a fifth to a third of a training step here. On AMD processors the MKL of torch 1.13 is told to use AVX2.
    """
    if platform.system() != "Linux":
        return
    if "AuthenticAMD" in _cpuinfo():
        # MKL 2020.0 takes its slowest path on processors of others without this; newer ones ignore it
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    # batches differ in shape, and torch's library compiles a kernel for each: keep more of them than the usual 1,024
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version") and not any(name.startswith("MALLOC_") for name in os.environ):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 << 20)


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace") if path.exists() else ""
