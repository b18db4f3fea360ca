"""A folder as a git repository that others can fetch parts of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def serve(folder: Path) -> str:
    """Make `folder` a repository that serves parts of itself, as GitHub does; the commit of all its files."""
    git(folder, "init", "--quiet")
    for name in ("allowFilter", "allowAnySHA1InWant"):
        git(folder, "config", f"uploadpack.{name}", "true")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all")
    return git(folder, "rev-parse", "HEAD")
