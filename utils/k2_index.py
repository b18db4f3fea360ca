"""Chooses k2's wheel from its authors' index: the build for exactly our torch, Python, machine and CUDA."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import urllib.request
from typing import NamedTuple
from urllib.parse import unquote, urljoin

INDEX = "https://k2-fsa.github.io/k2/"  # DRAGOMAN_K2_INDEX names a mirror
TORCH = "https://download.pytorch.org/whl/"  # torch's builds by CUDA version
PATIENCE = 5  # seconds

# k2-1.24.4.dev20260625+cuda12.8.torch2.11.0-cp310-cp310-manylinux_2_28_x86_64.whl
WHEEL = re.compile(
    r"""["'>](?P<url>[^"'<>\s]*?k2-(?P<version>[\w.]+?)(?:\+|%2B)(?P<device>cpu|cuda[\d.]+)\.torch(?P<torch>[\d.]+)-"""
    r"""cp(?P<python>\d+)-cp\d+-(?P<machine>[\w.]+)\.whl)""",
    re.IGNORECASE,
)


class Wheel(NamedTuple):
    """A k2 build: where it is, its version, and the CUDA version of torch it wants ("" for the CPU)."""

    url: str
    version: str
    cuda: str


def fetch(url: str) -> str:
    """The text at `url`; OSError when it cannot be reached within seconds."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.read().decode("utf-8", "replace")


def reachable(url: str) -> bool:
    """Whether a page answers within seconds."""
    try:
        fetch(url)
    except (OSError, ValueError):
        return False
    return True


def driver_cuda() -> str:
    """The newest CUDA version that the NVIDIA driver runs ("12.8"), or "" without a GPU."""
    if not shutil.which("nvidia-smi"):
        return ""
    try:
        shown = subprocess.run(["nvidia-smi"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"CUDA Version:\s*([\d.]+)", shown.stdout.decode("utf-8", "replace"))
    return found.group(1) if found and shown.returncode == 0 else ""


def ordered(version: str) -> tuple[int, ...]:
    """A version as numbers, for comparison."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def fits(machine: str) -> bool:
    """Whether a wheel's platform tag is for this machine."""
    here = platform.machine().lower()
    if platform.system() == "Darwin":
        return "macosx" in machine and (here in machine or "universal2" in machine)
    return "linux" in machine and machine.endswith(here)


def choose(page: str, base: str, torch: str, python: str, cuda: str) -> Wheel | None:
    """The newest wheel on `page` for this torch ("2.11.0"), Python ("3.10") and a CUDA that the driver runs, if any."""
    best: tuple | None = None
    for match in WHEEL.finditer(page):
        device = match["device"].lower()
        built = device[4:] if device.startswith("cuda") else ""
        right = match["torch"] == torch and match["python"] == python.replace(".", "") and fits(match["machine"])
        if not right or bool(built) != bool(cuda) or ordered(built) > ordered(cuda):
            continue
        rank = (ordered(built), ordered(match["version"]))
        if best is None or rank > best[0]:
            best = (rank, Wheel(urljoin(base, match["url"]), unquote(match["version"]), built))
    return best[1] if best else None


def look_up(torch: str, python: str) -> tuple[Wheel | None, str]:
    """k2's wheel for this machine, or None and why there is none."""
    cuda = driver_cuda()
    base = os.environ.get("DRAGOMAN_K2_INDEX", INDEX)
    page = urljoin(base, "cuda.html" if cuda else "cpu.html")
    try:
        wheel = choose(fetch(page), page, torch, python, cuda)
    except (OSError, ValueError) as error:
        return None, f"{page} cannot be reached ({getattr(error, 'reason', error)})"
    device = f"CUDA {cuda} or older" if cuda else "the CPU"
    return wheel, "" if wheel else f"{page} has no k2 for torch {torch}, Python {python} and {device} on this machine"


def torch_index(cuda: str) -> list[str]:
    """pip's options for torch built for this CUDA ("" for the CPU), or none where that index is not reached."""
    url = TORCH + (f"cu{cuda.replace('.', '')}" if cuda else "cpu")
    return ["--extra-index-url", url] if platform.system() == "Linux" and reachable(url + "/torch/") else []
