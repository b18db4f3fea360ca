"""What is particular to the Mboshi recipe; test_minis.py runs it whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.egs.house import copy_recipe, run_script


def test_a_corpus_that_is_not_there_is_named(tmp_path: Path):
    options = ("--corpus", str(tmp_path / "nothing"), "--systems", "blind")
    done = run_script(copy_recipe("mboshi_french/st", tmp_path), *options)
    assert done.returncode != 0 and "nothing does not exist" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        ("blind combination", "--systems has 'combination' but none to combine: add whisper-aed, "),
        ("blind whisper", "--systems has 'whisper', which is none of: blind fbank-transducer "),
    ],
)
def test_systems_that_cannot_be(tmp_path: Path, systems: str, said: str):
    done = run_script(copy_recipe("mboshi_french/st", tmp_path), "--systems", systems)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
