"""A recipe in a tree of links to the checkout, with configs that can be made small, and its run as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from utils.options import load_yaml

ROOT = Path(__file__).resolve().parents[2]


def link_house(root: Path) -> None:
    """Everything but recipes, below `root`, as links to the checkout."""
    for name in ("path.sh", "utils", "steps", "local", "tests", "requirements", "setup.py", "egs/conf"):
        if not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(ROOT / name)


def copy_recipe(root: Path, recipe: str, change: Callable[[dict], None]) -> Path:
    """`egs/<recipe>` below `root` with conf/mini for conf/laptop; its models' YAML files as `change` makes them."""
    for name in ("path.sh", "utils", "steps", "local", "requirements", "setup.py", "egs/conf"):
        if not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(ROOT / name)
    folder = root / "egs" / recipe
    conf = ROOT / "egs" / recipe / "conf"
    shutil.copytree(conf, folder / "conf", ignore=shutil.ignore_patterns("gpu", "laptop", "mini"))
    shutil.copytree(conf / "laptop", folder / "conf/mini")
    shutil.copy(ROOT / "egs" / recipe / "run.sh", folder)
    for path in (folder / "conf").rglob("*.yaml"):
        values = load_yaml(path)
        if values.keys() & {"heads", "translator", "language_model"}:
            change(values)
            path.write_text(yaml.safe_dump(values))
    return folder


def replace(folder: Path, old: str, new: str) -> None:
    """Change a word of a copied run.sh."""
    text = (folder / "run.sh").read_text()
    assert old in text
    (folder / "run.sh").write_text(text.replace(old, new))


def run_script(script: Path, *options: str) -> subprocess.CompletedProcess:
    """`bash run.sh ...` in this Python's environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    environment.pop("PYTHONPATH", None)
    environment["DRAGOMAN_VENV"] = sys.prefix
    command = ["bash", str(script), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def run_recipe(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """`bash run.sh --conf conf/mini ...` of a copied recipe."""
    return run_script(folder / "run.sh", "--conf", "conf/mini", *options)
