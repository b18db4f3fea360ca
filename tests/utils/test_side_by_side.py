"""A stage whose commands run at the same time (its third word is how many)."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest


@pytest.fixture
def pair(toy):
    """The toy recipe with `--beside N` trainings at a time."""
    script = toy.folder / "run.sh"
    text = script.read_text("utf-8").replace('"Training" &&', '"Training" "$beside" &&')
    script.write_text(text.replace("jobs=2 ", "beside=2   # at a time\njobs=2 "), "utf-8")
    return toy


# each of the two waits for the other: one after the other this never ends
MEET = "touch met-$0; for i in $(seq 200); do [ -e met-joint ] && [ -e met-st ] && exit 0; sleep 0.05; done; exit 1"


def test_commands_of_a_stage_run_at_the_same_time(pair):
    done = pair.run("--work", MEET, "--stop-stage", "6")
    assert done.returncode == 0, done.stderr
    # decoding reads both models, so it waited for both
    assert pair.read("exp/hyp").split() == ["joint", "st"]
    again = pair.run("--work", MEET, "--stop-stage", "6")
    assert again.returncode == 0 and again.stdout.count("skipped") == 5


def test_one_at_a_time_does_not_meet(pair):
    assert pair.run("--beside", "1", "--work", MEET.replace("200", "10")).returncode == 1


def test_a_failure_waits_for_the_others_and_ends_the_recipe(pair):
    done = pair.run("--work", '[ "$0" = st ] && { seq 30; exit 3; }; sleep 0.5; echo joint is done')
    assert done.returncode == 3
    *_, told = done.stderr.partition("    21\n")  # the last ten lines of its log: other lines may have come between
    assert told.startswith("".join(f"    {line}\n" for line in range(22, 31)) + "train-st failed")
    assert "train-st failed with status 3" in done.stderr and "to resume: bash run.sh --stage 5" in done.stderr
    assert (pair.folder / "exp/joint/averaged.pt").exists() and not (pair.folder / "exp/hyp").exists()
    again = pair.run("--work", '[ "$0" = st ] && echo once more && exit 3; true')  # not the first run's
    assert again.stderr.startswith("    once more\ntrain-st failed with status 3")


def test_cores_are_shared_and_lines_say_whose_they_are(pair):
    done = pair.run("--work", "echo threads $OMP_NUM_THREADS", "--stop-stage", "5")
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    expected = os.environ.get("OMP_NUM_THREADS", share)
    assert sorted(re.findall(r"^train-(\w+): threads (\d+)$", done.stdout, re.MULTILINE)) == [
        ("joint", expected),
        ("st", expected),
    ]


WAIT = "trap 'sleep 0.3; echo saved >saved-$0; exit 1' INT; touch began-$0; while :; do sleep 0.05; done"


def interrupt(toy, *options: str) -> str:
    """What it printed after Ctrl-C, once both of its commands had begun; each of them saved what it had."""
    process = toy.start("--work", WAIT, *options)
    end = time.monotonic() + 20
    while len(list(toy.folder.glob("began-*"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 130
    assert sorted(p.name for p in toy.folder.glob("saved-*")) == ["saved-joint", "saved-st"], output
    return output


def test_ctrl_c_reaches_all_and_waits_for_them(pair):
    interrupt(pair)


CHAINS = r"""
chain() {
  run "first-$1" --out "exp/$1/first" -- sh -c 'mkdir -p "exp/$0" && (eval "$1") && touch "exp/$0/first"' "$1" "$work"
  run "second-$1" --in "exp/$1/first" --out "exp/$1/second" -- touch "exp/$1/second"
}
stage 10 "Two each" 2 && for s in $systems; do in_turn chain "$s"; done
stage 11 "After them" && run after --in "exp/joint/second exp/st/second" -- true
"""


@pytest.fixture
def chains(toy):
    """The toy recipe with a stage of two chains of two commands."""
    script = toy.folder / "run.sh"
    script.write_text(script.read_text("utf-8") + CHAINS, "utf-8")
    return toy


def test_what_comes_in_turn_stands_beside_others(chains):
    done = chains.run("--work", MEET, "--stage", "10")
    assert done.returncode == 0, done.stderr
    assert (chains.folder / "exp/joint/second").exists() and (chains.folder / "exp/st/second").exists()


def test_a_failure_ends_what_comes_in_turn_and_the_recipe(chains):
    done = chains.run("--work", '[ "$0" = st ] && exit 3; sleep 0.5', "--stage", "10")
    assert done.returncode == 3 and "first-st failed with status 3" in done.stderr
    assert (chains.folder / "exp/joint/second").exists() and "second-st" not in done.stdout + done.stderr
    assert "stage 11" not in done.stdout and done.stderr.count("to resume") == 1


def test_ctrl_c_ends_what_comes_in_turn(chains):
    assert "second-" not in interrupt(chains, "--stage", "10")


def test_a_wrong_number_is_refused(pair):
    done = pair.run("--beside", "0", "--stage", "5")
    assert done.returncode == 2 and "'0' is not how many commands may run" in done.stderr
