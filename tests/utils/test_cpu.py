"""Settings of the C libraries: they take effect, and what the user set is respected."""

import os
import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource
from utils.cpu import tune_cpu
if {tune}:
    tune_cpu()
import torch
for _ in range(3):
    x = torch.ones(1 << 24)
    del x
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    x = torch.ones(1 << 24)
    del x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(tune, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PAGE_FAULTS.format(tune=tune)]
    return int(subprocess.run(command, env={**environment, **variables}, check=True, capture_output=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_freed_memory_is_kept():
    assert page_faults(tune=True) < 100
    assert page_faults(tune=True, MALLOC_ARENA_MAX="4") > 1000  # the user's own setting is left alone
