"""On what something was measured: for results, logs and the doctor."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

from utils.environment import ROOT, profile, version


def cpu_name() -> str:
    """The processor's name, for instance "AMD EPYC 7R13"."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores that this process may use (its affinity, and its cgroup's quota where there is one)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, max(1, round(int(limit) / int(period))))
    return count


def memory_gb() -> float:
    """Main memory in GiB that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return round(total / 2**30, 1)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit() -> tuple[str | None, bool | None]:
    """The repository's commit (12 digits) and whether tracked files differ from it; (None, None) outside of git."""
    name = _output("git", "rev-parse", "--short=12", "HEAD")
    return (name, bool(_output("git", "status", "--porcelain", "--untracked-files=no"))) if name else (None, None)


def hardware() -> dict:
    """Machine, versions and commit, as a flat dictionary that JSON takes.

    cpu, cores, threads (torch's), gpu (a name or None), memory_gb, python, torch, k2 (None where it is not
    installed), lhotse, profile, commit, dirty.
    """
    import torch

    name, dirty = commit()
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": memory_gb(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "k2": version("k2"),
        "lhotse": version("lhotse"),
        "profile": profile(),
        "commit": name,
        "dirty": dirty,
    }


def provenance(command: str) -> dict:
    """What every record of a result tells of how it came about: code, time, machine, versions, and the command."""
    machine = hardware()
    return {
        "hardware": {key: machine[key] for key in ("cpu", "cores", "threads", "gpu", "memory_gb")},
        "versions": {key: machine[key] for key in ("python", "torch", "k2", "lhotse", "profile")},
        "commit": f"{machine['commit']}-dirty" if machine["dirty"] else machine["commit"],
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": command,
    }
