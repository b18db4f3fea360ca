"""What this Python has: versions of packages, and the profile that the installer made."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(package: str) -> str | None:
    """A package's version by its metadata (k2 1.23.4 has no `__version__`), None where it is not installed."""
    try:
        return metadata_version(package)
    except PackageNotFoundError:
        return None


def has(module: str) -> bool:
    """Whether `module` could be imported, without importing it."""
    return find_spec(module) is not None


def profile() -> str:
    """`k2-index`, `pypi` or `no-k2` as installed, `own` where the environment was made by something else."""
    try:
        return json.loads((Path(sys.prefix) / "dragoman.json").read_text("utf-8"))["profile"]
    except (OSError, ValueError, KeyError):
        return "own"
