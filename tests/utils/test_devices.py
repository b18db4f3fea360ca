"""Devices: refusals, seeds, memory; and a world of one process."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import devices
from utils.devices import autocast, choose_device, is_out_of_memory, peak_memory_mb, reset_peak_memory, seed_all
from utils.distributed import World, join_world
from utils.errors import UserError

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == CPU
    with pytest.raises(UserError, match="Device 'gpu' is unknown: give auto, cpu, cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(UserError, match="sees no GPU"):
            choose_device("cuda")


def draw() -> tuple:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seeds_fix_all_generators_and_every_number_counts():
    draws = []
    for numbers in ((1, 2, 3), (1, 2, 3), (1, 2, 4), (2, 2, 3), (1, 0, 3)):
        seed_all(*numbers)
        draws.append(draw())
    assert draws[0] == draws[1] and len(set(draws)) == 4
    assert all(len(set(column)) == 4 for column in zip(*draws, strict=True))


def test_autocast_computes_products_in_the_type_asked_for():
    a = torch.randn(4, 4)
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert (a @ a).dtype == dtype


def test_memory_is_measured_and_its_end_recognised():
    before = peak_memory_mb(CPU)
    grown = torch.ones(64 << 18)  # 64 MiB
    assert peak_memory_mb(CPU) >= before > 10 and float(grown[0]) == 1.0
    if Path("/proc/self/clear_refs").exists():  # Linux can begin anew
        most = peak_memory_mb(CPU)
        grown = None
        reset_peak_memory(CPU)
        assert peak_memory_mb(CPU) <= most - 48
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError("CUDA out of memory. Tried"))
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory"))


def test_one_process_is_a_world_of_its_own(monkeypatch):
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    world = join_world(use_gpu=False)
    assert world == World() and world.main and world.total([1, 2.5]) == [1, 2.5] and world.from_main("x") == "x"
    model = torch.nn.Linear(1, 1)
    assert world.wrap(model) is model
    monkeypatch.setenv("RANK", "a")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="must be numbers"):
        join_world(use_gpu=False)


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bf16_where_the_processor_computes_in_it(monkeypatch, has):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has)
    assert devices.inference_precision("auto", CPU) == ("bf16" if has else "float32")
    assert devices.inference_precision("bf16", CPU) == "bf16"
    with pytest.raises(UserError, match=r"--precision fp16 needs a GPU: on a CPU use float32, bf16 or auto"):
        devices.inference_precision("fp16", CPU)
