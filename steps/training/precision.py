"""Which number format to train in."""

from __future__ import annotations

import time

import torch
from torch import nn

from utils.devices import autocast, cpu_has_bf16
from utils.errors import UserError


def check_precision(name: str, device: torch.device) -> None:
    """`UserError` when `device` cannot train in the format that was asked for."""
    if name == "fp16" and device.type == "cpu":
        raise UserError("precision=fp16 needs a GPU: on a CPU use float32, bf16 or auto.")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(f"precision=bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use fp16 or auto.")


def choose_precision(name: str, device: torch.device, model: nn.Module, sample) -> tuple[str, str]:
    """The format to use and the reason, in words.

    `auto` on a GPU is bf16 where it is supported and fp16 elsewhere; on a CPU with bfloat16 instructions, the faster of
    bf16 and float32 on `sample`, a small batch.
    """
    check_precision(name, device)
    if name != "auto":
        return name, "as configured"
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported()
        return ("bf16", "supported by the GPU") if bf16 else ("fp16", "the GPU has no bfloat16")
    if not cpu_has_bf16():
        return "float32", "the processor has no bfloat16 instructions"
    times = {"float32": [], "bf16": []}
    for _ in range(3):  # interleaved, the first round warms up
        for precision, taken in times.items():
            taken.append(_time(model, sample, device, precision))
    best = {precision: min(taken[1:]) for precision, taken in times.items()}
    ratio = best["float32"] / best["bf16"]
    return ("bf16" if ratio > 1.05 else "float32"), f"bf16 measured {ratio:.2f} times as fast as float32"


def _time(model: nn.Module, sample, device: torch.device, precision: str) -> float:
    started = time.perf_counter()
    with autocast(device, precision):
        losses = model(sample)
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started
