"""`run.sh --mini` of every recipe that has it, as a user runs it: from the miniature to RESULTS.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.egs.house import ROOT, link_house, run_script
from tests.local.conftest import real_corpus  # noqa: F401  what miniatures are made of
from utils.options import load_yaml
from utils.recipe import read_recipe

MINIS = [path for path in sorted(ROOT.glob("egs/*/*/run.sh")) if "mini" in read_recipe(path).options]


def recipe(path: Path, root: Path) -> Path:
    """A copy of a recipe's folder in a tree of links, with nothing that it made before; its run.sh."""
    link_house(root)
    folder = root / path.parent.relative_to(ROOT)
    folder.mkdir(parents=True)
    for name in ("run.sh", "conf", "README.md"):
        (folder / name).symlink_to(path.parent / name)
    return folder / "run.sh"


@pytest.mark.parametrize("path", MINIS, ids=lambda path: str(path.parent.relative_to(ROOT / "egs")))
@pytest.mark.usefixtures("real_corpus")
def test_a_miniature_goes_through_all_stages(path: Path, tmp_path: Path):
    script = recipe(path, tmp_path)
    done = run_script(script, "--mini")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for number, title in read_recipe(path).stages.items():
        assert f"== stage {number}: " in done.stdout, f"stage {number} ({title}) did not run"
    assert "Traceback" not in done.stdout + done.stderr
    made = script.parent / "mini"
    report = (made / "RESULTS.md").read_text("utf-8")
    assert "## How these numbers were made" in report
    systems = [file.parent.name for file in made.glob("exp/*/averaged.pt")]
    assert systems and all(f"| {system} " in report for system in systems)
    assert not (script.parent / "data").exists() and not (script.parent / "exp").exists()
    again = run_script(script, "--mini")
    assert again.returncode == 0 and "log in" not in again.stdout, again.stdout[-3000:]


@pytest.mark.parametrize("path", MINIS, ids=lambda path: str(path.parent.relative_to(ROOT / "egs")))
def test_its_models_are_smaller_versions_of_the_published_ones(path: Path):
    conf = path.parent / "conf"
    for mini in conf.glob("mini/*.yaml"):
        whole = next((path for path in (conf / mini.name, conf / "laptop" / mini.name) if path.exists()), None)
        assert whole, f"{mini} has no larger counterpart"
        whole, small = load_yaml(whole), load_yaml(mini)
        assert whole.get("heads", {}).keys() == small.get("heads", {}).keys()


@pytest.mark.parametrize("path", MINIS, ids=lambda path: str(path.parent.relative_to(ROOT / "egs")))
def test_a_corpus_and_a_miniature_are_not_asked_for_at_once(path: Path, tmp_path: Path):
    done = run_script(recipe(path, tmp_path), "--mini", "--corpus", "somewhere")
    assert done.returncode == 2
    assert re.fullmatch(r"error: --mini makes a corpus of its own: leave out --corpus somewhere\.\n", done.stderr)
