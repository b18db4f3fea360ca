"""What is there, whether it fits together, what is switched off and how to switch it on: python -m utils.doctor.

Exits with 1 when something that is there is broken; a part that is merely absent is no failure.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable

from utils.environment import ROOT, has, profile, version
from utils.errors import run
from utils.hardware import cores, cpu_name, memory_gb
from utils.options import Parser

PACKAGES = ("torch", "torchaudio", "k2", "lhotse", "sentencepiece", "numpy", "soundfile", "av", "sacrebleu")
MODULES = ("lhotse", "yaml", "pydantic", "sentencepiece", "scipy", "kaldialign", "sacrebleu", "soundfile", "av", "tqdm")
MODULES += ("num2words", "torch.utils.tensorboard", "pyroomacoustics")


class Report:
    """Prints lines as they are found out, and counts what is broken."""

    def __init__(self) -> None:
        self.broken = 0

    def line(self, mark: str, name: str, text: str) -> None:
        print(f"{mark:>7}  {name:<14} {text}", flush=True)

    def check(self, name: str, test: Callable[[], str]) -> bool:
        """Run `test`, which returns what it found; an exception is what is broken."""
        try:
            self.line("ok", name, test())
        except Exception as error:  # whatever a half-installed package raises is the finding
            self.broken += 1
            self.line("BROKEN", name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            return False
        return True


def check_imports() -> str:
    """Import everything that every profile needs; returns how many packages that were."""
    for module in MODULES:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise RuntimeError(f"{module}: {error}") from error
    return f"{len(MODULES)} packages import"


def check_torch() -> str:
    """Multiply two matrices, on the GPU too where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    ones = torch.ones(8, 8, device=device)
    if (ones @ ones).sum().item() != 512:
        raise RuntimeError(f"a product of 8 x 8 ones is wrong on {device}")
    build = torch.version.cuda or "the CPU"
    return f"{torch.__version__} (built for {'CUDA ' if torch.version.cuda else ''}{build}) multiplies on {device}"


def check_torchaudio() -> str:
    """torchaudio imports and is of torch's release."""
    import torch
    import torchaudio

    # torchaudio 0.13 belongs to torch 1.13; from 2.0 on the numbers are equal
    own = torchaudio.__version__.split("+")[0].split(".")[:2]
    wanted = torch.__version__.split("+")[0].split(".")[:2]
    if own[1] != wanted[1] or (own[0] != wanted[0] and (own[0], wanted[0]) != ("0", "1")):
        raise RuntimeError(f"{torchaudio.__version__} is not of torch {torch.__version__}")
    return f"{torchaudio.__version__} belongs to torch {torch.__version__}"


def check_k2_build() -> str:
    """k2 was built for exactly this torch, and for its CUDA."""
    import k2
    import torch

    built, here = k2.k2_torch_version.split("+")[0], torch.__version__.split("+")[0]
    if built != here:
        raise RuntimeError(f"{version('k2')} was built for torch {built}, this is {here}")
    if torch.cuda.is_available() and (not k2.with_cuda or k2.k2_torch_cuda_version != torch.version.cuda):
        raise RuntimeError(f"built for CUDA {k2.k2_torch_cuda_version or 'none'}, torch for {torch.version.cuda}")
    return f"{version('k2')} was built for this torch"


def check_k2_loss() -> str:
    """A CTC loss on a lattice of two frames and a transducer loss on k2, against values worked out by hand."""
    import math

    import k2
    import torch

    graph = k2.ctc_graph([[1]], modified=False)
    dense = k2.DenseFsaVec(torch.full((1, 2, 2), math.log(0.5)), torch.tensor([[0, 0, 2]], dtype=torch.int32))
    loss = k2.ctc_loss(graph, dense, reduction="sum", target_lengths=torch.tensor([1])).item()
    if abs(loss + math.log(0.75)) > 1e-5:  # three of the four paths through two frames spell the token
        raise RuntimeError(f"ctc_loss is {loss:.4f} instead of {-math.log(0.75):.4f}")
    logits = torch.zeros(1, 2, 2, 2)
    value = k2.rnnt_loss(logits, torch.ones(1, 1, dtype=torch.int64), termination_symbol=0, reduction="sum").item()
    if abs(value - 2 * math.log(2)) > 1e-5:  # two paths of three arcs, each arc one half
        raise RuntimeError(f"rnnt_loss is {value:.4f} instead of {2 * math.log(2):.4f}")
    return f"ctc_loss {loss:.4f} and rnnt_loss {value:.4f} are right"


def check_fbank() -> str:
    """80 mel filters of a second of noise."""
    import numpy as np
    from lhotse import Fbank

    features = Fbank().extract(np.random.default_rng(0).normal(size=16000).astype(np.float32), sampling_rate=16000)
    if features.shape != (100, 80) or not np.isfinite(features).all():
        raise RuntimeError(f"a second gave {features.shape} instead of (100, 80) finite numbers")
    return "a second of sound gives 100 frames of 80"


def check_training() -> str:
    """A gradient flows through torch's CTC loss."""
    import torch

    logits = torch.zeros(4, 1, 3, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        logits.log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])
    )
    loss.backward()
    if not torch.isfinite(logits.grad).all() or not logits.grad.abs().sum() > 0:
        raise RuntimeError("the gradient of a CTC loss is not finite")
    return "a CTC gradient is finite"


def gpu_lines(report: Report) -> None:
    """Name the GPUs, or say why none is used."""
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            seen = torch.cuda.get_device_properties(number)
            report.line("ok", "GPU", f"{seen.name}, {seen.total_memory / 2**30:.0f} GiB")
        return
    if not shutil.which("nvidia-smi"):
        return report.line("off", "GPU", "none here: training and decoding run on the CPU")
    why = (
        "torch is built without CUDA"
        if not torch.version.cuda
        else f"the driver does not suit CUDA {torch.version.cuda}"
    )
    return report.line(
        "off", "GPU", f"nvidia-smi is there but {why}: take another DRAGOMAN_PROFILE or update the driver"
    )


def absent_lines(report: Report) -> None:
    """What is switched off because it is not installed, and how to switch it on."""
    if not has("k2"):
        report.line("off", "k2", "lattices, HLG and MMI: DRAGOMAN_PROFILE=k2-index or pypi . path.sh makes one with k2")
    if not has("torchaudio"):
        report.line("off", "torchaudio", "nothing of the recipes needs it; the profile pypi on Python 3.10 has it")
    if not shutil.which("ffmpeg"):
        report.line("off", "ffmpeg", "not on PATH; sound is read through libsndfile and PyAV, which need none")
    if not shutil.which("git"):
        report.line("off", "git", "results will not name their commit: apt-get install git")


def stale_lines(report: Report) -> None:
    """Whether the environment is the one that today's requirements describe."""
    if profile() == "own":
        report.line("note", "environment", f"{sys.prefix} was not made by the installer: its versions are your choice")
        return
    checked = subprocess.run([sys.executable, str(ROOT / "utils" / "install.py"), "--venv", sys.prefix, "--check"])
    if checked.returncode:
        report.broken += 1
        report.line("BROKEN", "environment", "not as requirements/ says: `. path.sh` repairs it")


def main() -> int:
    Parser(description=__doc__.split("\n\n")[0]).parse_args()
    report = Report()
    report.line("", "profile", f"{profile()} ({sys.prefix})")
    report.line("", "Python", f"{platform.python_version()} on {platform.platform(terse=True)} {platform.machine()}")
    for package in PACKAGES:
        report.line("", package, version(package) or "-")
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    report.line(
        "", "machine", f"{cpu_name()}, {cores()} cores, {memory_gb()} GiB memory, {free:.0f} GB of disk free here"
    )
    print()
    stale_lines(report)
    if report.check("torch", check_torch):
        report.check("gradient", check_training)
        report.check("imports", check_imports)
        report.check("fbank", check_fbank)
        if has("torchaudio"):
            report.check("torchaudio", check_torchaudio)
        if has("k2") and report.check("k2 build", check_k2_build):
            report.check("k2 at work", check_k2_loss)
        gpu_lines(report)
    absent_lines(report)
    low = [text for text, is_low in (("disk (< 5 GB)", free < 5), ("memory (< 8 GiB)", memory_gb() < 8)) if is_low]
    if low:
        report.line("note", "low", " and ".join(low) + ": the Asterisk recipes want more")
    mend = f": remove {sys.prefix}, and `. path.sh` makes it anew" if profile() != "own" else ""
    print("\n" + (f"{report.broken} broken{mend}" if report.broken else "all that is there works"))
    return 1 if report.broken else 0


if __name__ == "__main__":
    run(main)
