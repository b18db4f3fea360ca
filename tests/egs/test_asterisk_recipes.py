"""What is particular to the Asterisk recipes; test_minis.py runs them whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.egs.house import copy_recipe, run_script
from tests.local.conftest import real_corpus  # noqa: F401  what the miniature is made of


@pytest.mark.usefixtures("real_corpus")
def test_without_whisper_the_others_go_on(tmp_path: Path):
    script = copy_recipe("asterisk/st", tmp_path)
    done = run_script(script, "--mini", "--whisper", "nobody/no-such-whisper", "--stop-stage", "1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "downloads/whisper is not there: going on with joint translation\n" in done.stderr


def test_stage_out_of_order_names_the_stage_that_is_missing(tmp_path: Path):
    done = run_script(copy_recipe("asterisk/st", tmp_path), "--stage", "6", "--stop-stage", "6")
    assert done.returncode != 0
    assert "averaged.pt does not exist: stage 5 (Training) makes it" in done.stdout + done.stderr
