"""path.sh: from any folder, in a path with spaces, and with mistakes answered before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.utils.conftest import ROOT, TOY, environment


def bash(script: str, cwd: Path, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", script], cwd=cwd, env=environment(**more), capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path) -> Path:
    """What path.sh needs of a clone, in a path with spaces, with a toy recipe."""
    root = tmp_path / "a clone of mine"
    shutil.copytree(ROOT / "utils", root / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "requirements", root / "requirements")
    shutil.copy(ROOT / "path.sh", root)
    recipe = root / "egs" / "toy" / "asr"
    recipe.mkdir(parents=True)
    (recipe / "run.sh").write_text(TOY.replace('"ROOT/path.sh"', "../../../path.sh"), "utf-8")
    return root


def test_steps_run_from_a_recipe_folder(clone):
    (clone / "steps").mkdir()
    (clone / "steps" / "x.py").write_text("import utils.errors, os; print(os.getcwd())\n")
    done = bash('. ../../../path.sh && python -m steps.x && command -v python && echo "$LC_ALL"', clone / "egs/toy/asr")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-3:] == [str(clone / "egs/toy/asr"), f"{sys.prefix}/bin/python", "C.UTF-8"]


def test_recipe_in_a_path_with_spaces_called_from_elsewhere(clone, tmp_path):
    done = bash('bash "$0" --stop-stage 1'.replace("$0", str(clone / "egs/toy/asr/run.sh")), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (clone / "egs/toy/asr/data/manifests").exists()


def test_sourced_twice_changes_nothing(clone):
    done = bash('. ./path.sh; a=$PATH:$PYTHONPATH; . ./path.sh; [ "$a" = "$PATH:$PYTHONPATH" ]', clone)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("option", "status", "text"), [("--help", 0, "5  Training"), ("--lang", 2, "did you mean '--langs'")]
)
def test_help_and_mistakes_are_answered_before_anything_is_installed(clone, option, status, text):
    done = bash(f"bash egs/toy/asr/run.sh {option}", clone, DRAGOMAN_VENV="")
    assert done.returncode == status
    assert text in done.stdout + done.stderr
    assert not list(clone.glob(".venv*"))


def test_failing_installation_ends_the_recipe(clone):
    done = bash("bash egs/toy/asr/run.sh", clone, DRAGOMAN_VENV="", DRAGOMAN_PROFILE="pipy")
    assert done.returncode == 1
    assert "did you mean 'pypi'" in done.stderr and "stage" not in done.stdout


def test_python_that_does_not_run_is_passed_over(clone, tmp_path):
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "python3").write_text("#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n")
    (shims / "python3").chmod(0o755)
    path = f"{shims}:{os.environ['PATH']}"
    done = bash("bash egs/toy/asr/run.sh --help", clone, DRAGOMAN_VENV="", PATH=path)
    assert done.returncode == 0 and "Training" in done.stdout


def test_each_profile_has_its_folder(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "dragoman.json").write_text('{\n "profile": "pypi"\n}')
    script = (
        "source <(sed '/^if dragoman_environment/,$d' path.sh | sed \"s#^DRAGOMAN_ROOT=.*#DRAGOMAN_ROOT='$PWD'#\"); "
    )
    for profile, folder in (("pypi", ".venv"), ("no-k2", ".venv-no-k2"), ("", ".venv")):
        done = bash(script + "dragoman_folder", clone, DRAGOMAN_VENV="", DRAGOMAN_PROFILE=profile)
        assert done.stdout.strip() == str(clone / folder)


def test_pip_install_makes_the_packages_importable(tmp_path):
    """`pip install -e .` of a copy of the repository, with the build tools of requirements/dev.txt."""
    source, prefix = tmp_path / "source", tmp_path / "prefix"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "requirements", "steps", "local", "utils"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--prefix",
        str(prefix),
    ]
    done = subprocess.run([*command, "-e", str(source)], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    site = next(prefix.glob("lib/python3*/site-packages"))
    script = f"""
import site; site.addsitedir({str(site)!r})
import local, steps.search, utils.errors
from importlib.metadata import requires
assert utils.errors.__file__.startswith({str(source)!r}), utils.errors.__file__
print(requires("dragoman"))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], env=clean, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lhotse==1.33.0" in done.stdout and "extra == 'dev'" in done.stdout.replace('"', "'")
