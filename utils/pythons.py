"""Finds a Python of a wanted version that really runs and can make a virtual environment. Standard library only."""

from __future__ import annotations

import glob
import os
import subprocess
from typing import NamedTuple

PROBE = "import sys, platform; print('%d.%d' % sys.version_info[:2], platform.python_version()); import ensurepip, venv"


class Python(NamedTuple):
    """An interpreter: its path, "3.10", "3.10.13"."""

    path: str
    version: str
    release: str


def candidates(version: str) -> list[str]:
    """Where Python `version` ("3.10") may be: all of PATH (a shim may come first and fail), pyenv, uv, Homebrew."""
    home = os.path.expanduser("~")
    folders = os.environ.get("PATH", "").split(os.pathsep)
    pyenv = os.environ.get("PYENV_ROOT", os.path.join(home, ".pyenv"))
    data = os.environ.get("XDG_DATA_HOME", os.path.join(home, ".local", "share"))
    folders += sorted(glob.glob(os.path.join(pyenv, "versions", version + "*", "bin")), reverse=True)
    folders += sorted(glob.glob(os.path.join(data, "uv", "python", "cpython-" + version + "*", "bin")), reverse=True)
    folders += ["/usr/bin", "/usr/local/bin", "/opt/homebrew/opt/python@" + version + "/bin"]
    names = [os.path.join(folder, name) for folder in folders for name in ("python" + version, "python3")]
    return list(dict.fromkeys(name for name in names if os.access(name, os.X_OK)))


def probe(path: str) -> tuple[Python | None, bool]:
    """The interpreter at `path` if it runs, and whether it can make virtual environments."""
    try:
        done = subprocess.run([path, "-I", "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None, False
    words = done.stdout.decode().split()
    return (Python(path, *words), done.returncode == 0) if len(words) == 2 else (None, False)


def find(versions: tuple[str, ...]) -> tuple[Python | None, str]:
    """The first Python of `versions`, in that order of preference, or None and why there is none."""
    hint = f"there is no Python {' or '.join(versions)} here"
    for version in versions:
        for path in candidates(version):
            python, complete = probe(path)
            if python is None or python.version != version:
                continue
            if complete:
                return python, ""
            hint = f"{path} cannot make environments: apt-get install python{version}-venv"
    return None, hint
