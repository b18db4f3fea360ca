"""The house rules that a program can see: who may import whom, how long a file may be, what a recipe folder holds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tree import ROOT, files

OURS = ("steps", "local", "utils", "tests")
# folder -> prefixes of our modules that it must not import; `nets` knows no corpus, no search and no trainer
FORBIDDEN = {
    "utils": ("steps", "local", "tests"),
    "local": ("steps", "tests"),
    "steps": ("local", "tests"),
    "steps/nets": ("steps.search", "steps.training", "steps.train", "steps.decode", "steps.scoring"),
    "steps/objectives": ("steps.search", "steps.training", "steps.train", "steps.decode", "steps.prepare"),
    "steps/search": ("steps.training", "steps.train", "steps.prepare", "steps.lang", "steps.scoring"),
}


def imported(path: Path) -> set[str]:
    """The dotted names of our modules that a file imports, at the top or inside of functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parent.parts
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in OURS}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_of_imports(folder):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(f"{folder}/*.py")
        for name in imported(path)
        for prefix in FORBIDDEN[folder]
        if name == prefix or name.startswith(prefix + ".")
    ]
    assert wrong == []


def test_imports_are_seen(tmp_path):
    path = ROOT / "steps" / "nets" / "no_such_file.py"
    source = tmp_path / "x.py"
    source.write_text(
        "def f():\n    from steps.search import ctc\n    import local.asterisk as a\nfrom .. import train\n"
    )
    read, Path.read_text = Path.read_text, lambda self, *_: read(source)
    try:
        names = imported(path)
    finally:
        Path.read_text = read
    assert {"steps.search.ctc", "local.asterisk", "steps.train"} <= names


def test_recipes_hold_no_python():
    assert files("egs/**.py") == []


def test_recipes_read_as_a_table_of_contents():
    long = {str(path): n for path in files("egs/**run.sh") if (n := len(path.read_text("utf-8").splitlines())) >= 150}
    assert long == {}


def test_no_file_needs_much_scrolling():
    long = {str(path): n for path in files("*.py") if (n := len(path.read_text("utf-8").splitlines())) >= 400}
    assert long == {}
