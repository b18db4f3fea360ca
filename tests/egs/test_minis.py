"""`run.sh --mini` of every recipe that has it, as a user runs it: from the miniature to RESULTS.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.egs.house import ROOT, copy_recipe, run_script
from tests.local.conftest import real_corpus  # noqa: F401  what miniatures are made of
from utils.options import load_yaml
from utils.recipe import read_recipe

RECIPES = sorted(str(path.parent.relative_to(ROOT / "egs")) for path in ROOT.glob("egs/*/*/run.sh"))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.usefixtures("real_corpus")
def test_a_miniature_goes_through_all_stages(recipe: str, tmp_path: Path):
    script = copy_recipe(recipe, tmp_path)
    done = run_script(script, "--mini")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for number, title in read_recipe(script).stages.items():
        assert f"== stage {number}: " in done.stdout, f"stage {number} ({title}) did not run"
    assert "Traceback" not in done.stdout + done.stderr
    made = script.parent / "mini"
    report = (made / "RESULTS.md").read_text("utf-8")
    assert "## How these numbers were made" in report and "Commit: –" not in report
    systems = [file.parent.name for file in made.glob("exp/*/averaged.pt")]
    assert systems and all(f"| {system} " in report for system in systems)
    for searches in made.glob("exp/*/searches.yaml"):
        for name in load_yaml(searches):
            assert list(searches.parent.glob(f"decode/*.{name.replace(':', '.')}/score.json")), f"{searches}: {name}"
    assert not (script.parent / "data").exists() and not (script.parent / "exp").exists()
    again = run_script(script, "--mini")
    assert again.returncode == 0 and "log in" not in again.stdout, again.stdout[-3000:]


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_models_are_smaller_versions_of_the_published_ones(recipe: str):
    conf = ROOT / "egs" / recipe / "conf"
    for mini in conf.glob("mini/*.yaml"):
        whole = next((path for path in (conf / mini.name, conf / "laptop" / mini.name) if path.exists()), None)
        assert whole, f"{mini} has no larger counterpart"
        whole, small = load_yaml(whole), load_yaml(mini)
        assert whole.get("heads", {}).keys() == small.get("heads", {}).keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_corpus_and_a_miniature_are_not_asked_for_at_once(recipe: str, tmp_path: Path):
    done = run_script(copy_recipe(recipe, tmp_path), "--mini", "--corpus", "somewhere")
    assert done.returncode == 2
    assert re.fullmatch(r"error: --mini makes a corpus of its own: leave out --corpus somewhere\.\n", done.stderr)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--corpus", "--corpus {folder}/nonesuch does not exist: give the folder that has the corpus."),
        ("--conf", "--conf nonesuch is no folder: give one that has the YAML files of conf, such as a copy of it."),
        ("--systems", "--systems has 'nonesuch', which is none of: "),
    ],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_not_there_is_told_before_anything_is_fetched(recipe: str, tmp_path: Path, option: str, said: str):
    script = copy_recipe(recipe, tmp_path)
    done = run_script(script, option, "nonesuch")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "== stage" not in done.stdout
    assert done.stderr.startswith("error: " + said.format(folder=script.parent))
