"""Devices and number formats: choosing them, seeding them, asking how much memory they took."""

from __future__ import annotations

import contextlib
import random
import resource
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from utils.cpu import tune_cpu
from utils.errors import UserError

STATUS = Path("/proc/self/status")  # Linux alone has it

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1` ... as a device; `UserError` when it is not there.

    On a CPU this also makes the settings of `utils.cpu`: call it before anything is computed.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"Device '{name}' is unknown: give auto, cpu, cuda or cuda:<number>.") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"Device '{name}' was asked for, but torch {torch.__version__} sees no GPU: give device=cpu."
            )
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index >= torch.cuda.device_count():
            raise UserError(f"Device '{device}' was asked for, but there are {torch.cuda.device_count()} GPUs.")
        torch.cuda.set_device(device)
    elif device.type == "cpu":
        tune_cpu()
    return device


@lru_cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AVX512-BF16 or AMX), so that bf16 can be faster."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


PRECISIONS = ("float32", "bf16", "fp16", "auto")  # of inference


def inference_precision(name: str, device: torch.device) -> str:
    """The format `--precision` means on `device`: `auto` is bf16 where the processor computes in it, else what is next.

    Errors: `UserError` for fp16 on a CPU.
    """
    if name == "fp16" and device.type == "cpu":
        raise UserError("--precision fp16 needs a GPU: on a CPU use float32, bf16 or auto.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "float32"


def autocast(device: torch.device, precision: str):
    """A context in which matrix products run in `precision` (`float32`, `bf16` or `fp16`)."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def seed_all(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's generators (of every device) with one mixture of `numbers`."""
    words = np.random.SeedSequence([number % 2**63 for number in numbers]).generate_state(2, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[0] % 2**32))
    torch.manual_seed(int(words[1] % 2**63))


def peak_memory_mb(device: torch.device) -> int:
    """The most memory taken so far, or since `reset_peak_memory`, in MiB: on a GPU what torch reserved, otherwise the
    process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) >> 20
    if STATUS.exists():
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) >> 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10


def reset_peak_memory(device: torch.device) -> None:
    """Measure `peak_memory_mb` from here on; where the system cannot, it stays that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        with contextlib.suppress(OSError):
            STATUS.with_name("clear_refs").write_text("5")  # proc(5): the peak of the resident memory


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out (torch has a class for GPUs and plain RuntimeErrors for the CPU)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "not enough memory" in str(error))
