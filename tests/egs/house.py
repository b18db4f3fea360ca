"""A recipe in a tree of links to the checkout, and its run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def link_house(root: Path) -> None:
    """Everything but recipes, below `root`, as links to the checkout."""
    for name in ("path.sh", "utils", "steps", "local", "tests", "requirements", "setup.py", "egs/conf"):
        if not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(ROOT / name)


def copy_recipe(recipe: str, root: Path) -> Path:
    """The run.sh of `egs/<recipe>` in a tree of links below `root`, with nothing that it made before."""
    link_house(root)
    folder = root / "egs" / recipe
    folder.mkdir(parents=True)
    for name in ("run.sh", "conf", "README.md"):
        (folder / name).symlink_to(ROOT / "egs" / recipe / name)
    return folder / "run.sh"


def run_script(script: Path, *options: str) -> subprocess.CompletedProcess:
    """`bash run.sh ...` in this Python's environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    environment.pop("PYTHONPATH", None)
    environment["DRAGOMAN_VENV"] = sys.prefix
    command = ["bash", str(script), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
