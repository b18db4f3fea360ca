"""The command line of a run.sh: --help, overrides in every form, and refusals that name the nearest valid option."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.recipe import Recipe, maker, outputs, read_arguments, read_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(toy) -> Recipe:
    return read_recipe(toy.folder / "run.sh")


def test_reads_what_the_script_declares(recipe):
    assert recipe.doc == ["A toy: from nothing to a score.", "It trains nothing."]
    assert recipe.options == {
        "langs": "en es",
        "systems": "joint st",
        "jobs": "2",
        "fast": "false",
        "mini": "false",
        "work": ":",
    }
    assert recipe.descriptions["langs"] == "languages of the corpus"
    assert recipe.stages == {0: "Download", 1: "Manifests", 5: "Training", 6: "Decoding", 9: "Export"}


def test_reads_several_options_in_a_line(tmp_path):
    script = tmp_path / "run.sh"
    script.write_text('#!/bin/bash\n# Doc.\ncorpus=a/b  conf=$PWD/x  systems="a b"  n=$(nproc)  . parse_options.sh\n')
    assert read_recipe(script).options == {"corpus": "a/b", "conf": "$PWD/x", "systems": "a b", "n": "$(nproc)"}


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--langs", "en"], {"langs": "en"}),
        (["--langs=en fr"], {"langs": "en fr"}),
        (["langs=en"], {"langs": "en"}),
        (["--langs", ""], {"langs": ""}),
        (["--langs="], {"langs": ""}),
        (["--stage", "5", "--stop-stage=6"], {"stage": "5", "stop_stage": "6"}),
        (["--stop_stage", "6"], {"stop_stage": "6"}),
        (["--force", "jobs=3"], {"force": "true", "jobs": "3"}),
        (["langs=a=b"], {"langs": "a=b"}),
        (["--fast", "true"], {"fast": "true"}),
    ],
)
def test_accepts_every_form(recipe, arguments, values):
    assert read_arguments(recipe, arguments) == values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stge", "3"], "Unknown option --stge (did you mean '--stage'?)"),
        (["lang=en"], "Unknown option lang (did you mean '--langs'?)"),
        (["--qqqqqqqqqqqq", "3"], "Unknown option --qqqqqqqqqqqq; see --help"),
        (["--stage"], "--stage needs a value"),
        (["--langs", "--force"], "--langs needs a value, for instance --langs 'en es'"),
        (["--stage", "five"], "--stage takes a whole number, not 'five'"),
        (["--stage", "-x"], "--stage takes a whole number, not '-x'"),
        (["--stage="], "--stage takes a whole number, not ''"),
        (["--jobs", "1.5"], "--jobs takes a whole number, not '1.5'"),
        (["--fast", "yes"], "--fast takes true or false, not 'yes'"),
        (["--force=maybe"], "--force takes no value"),
        (["5"], "'5' is not an option"),
        (["--stage", "7", "--stop-stage", "8"], "No stage from 7 to 8"),
        (["--stage", "6", "--stop-stage", "5"], "No stage from 6 to 5"),
    ],
)
def test_refuses_in_one_sentence(recipe, arguments, message):
    with pytest.raises(UserError) as caught:
        read_arguments(recipe, arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_run_sh_refuses_with_status_2_and_does_nothing(toy):
    done = toy.run("--lang", "en")
    assert done.returncode == 2
    assert done.stderr == "error: Unknown option --lang (did you mean '--langs'?); see --help.\n"
    assert done.stdout == "" and not (toy.folder / "exp").exists()


def test_values_reach_the_commands_unharmed(toy):
    nasty = """it's "quoted" $HOME `id` ; rm -rf / \\ *"""
    assert toy.run("--stop-stage", "1", "--langs", nasty).returncode == 0
    assert toy.read("data/manifests") == nasty + "\n"


def test_help_lists_stages_and_options_and_does_nothing(toy):
    done = toy.run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("A toy: from nothing to a score.\nIt trains nothing.\n")
    for line in ("  5  Training", "--stop-stage N", "--langs 'en es'", "languages of the corpus", "--fast false"):
        assert line in done.stdout
    assert not (toy.folder / "exp").exists()


def test_outputs_of_run_lines():
    line = 'for s in $all; do run "train-$s" --in "a b" --out "exp/$s/averaged.pt data/${s}_x" -- x --out y; done'
    assert outputs(line) == ["exp/*/averaged.pt", "data/*_x"]


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("downloads", 0),
        ("downloads/a.wav", 0),
        ("exp/joint/averaged.pt", 5),
        ("exp/*/averaged.pt", 5),
        ("exp/joint", 5),
        ("exp/hyp", 6),
        ("exp/export", 9),
        ("conf/joint.yaml", None),
    ],
)
def test_maker_of_a_path(recipe, path, stage):
    assert maker(recipe, path) == stage


@pytest.mark.parametrize(
    ("path", "stage"), [("data/dev/cuts.jsonl.gz", 2), ("/nowhere", None), ("nowhere", None), ("data/lang_char", 3)]
)
def test_maker_of_a_path_that_a_variable_names(path, stage):
    assert maker(read_recipe(ROOT / "egs/asterisk/st/run.sh"), path) == stage


@pytest.mark.parametrize("script", sorted(ROOT.glob("egs/*/*/run.sh")), ids=str)
def test_all_recipes_say_which_stage_makes_what_training_reads(script):
    recipe = read_recipe(script)
    assert maker(recipe, "data/train/cuts.jsonl.gz") == maker(recipe, "data/whisper/train/cuts.jsonl.gz") == 2
    assert maker(recipe, "data/lang_x/tokens.txt") == 3 and maker(recipe, "exp/x/averaged.pt") == 5


def test_a_function_makes_its_files_where_it_is_called(tmp_path):
    text = """. parse_options.sh
stage 3 "Tokens" && run tokens --out data/lang -- make
train() {
  run train --out exp/asr/averaged.pt -- make
}
one() { run one --out exp/one -- make; }
stage 5 "Training" && train
stage 6 "Decoding" && one
"""
    (tmp_path / "run.sh").write_text(text)
    recipe = read_recipe(tmp_path / "run.sh")
    found = [maker(recipe, path) for path in ("data/lang", "exp/asr/averaged.pt", "exp/one")]
    assert found == [3, 5, 6] and recipe.stages == {3: "Tokens", 5: "Training", 6: "Decoding"}


def test_what_a_function_calls_is_made_where_it_is_called(tmp_path):
    text = """. parse_options.sh
train() { run train --out "exp/$1/averaged.pt" -- make; }
train_all() {
  for system in $1; do train "$system"; done
}
stage 5 "Training" && train_all "a b"
stage 6 "Decoding" && run decode --out exp/hyp -- make
"""
    (tmp_path / "run.sh").write_text(text)
    recipe = read_recipe(tmp_path / "run.sh")
    assert [maker(recipe, path) for path in ("exp/a/averaged.pt", "exp/hyp")] == [5, 6]


def test_maker_of_a_path_below_a_folder_that_was_given():
    script = ROOT / "egs/asterisk/st/run.sh"
    assert maker(read_recipe(script), "exp/joint/averaged.pt") == 5
    assert maker(read_recipe(script, {"exp": "exp/gpu"}), "exp/gpu/joint/averaged.pt") == 5
    assert maker(read_recipe(script, {"exp": "exp/gpu"}), "exp/joint/averaged.pt") is None


def test_a_switch_needs_no_value(recipe):
    assert read_arguments(recipe, ["--mini", "--jobs", "3"]) == {"mini": "true", "jobs": "3"}
    assert read_arguments(recipe, ["--jobs=3", "--mini"]) == {"mini": "true", "jobs": "3"}
    assert read_arguments(recipe, ["--mini", "false"])["mini"] == "false"
