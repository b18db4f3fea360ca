"""The YAML in the READMEs is what steps.train reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from steps.train import config_kind
from steps.training.config import TrainConfig
from utils.options import check_config

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = [
    (file, number, block)
    for file in ("README.md", "steps/README.md")
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / file).read_text("utf-8"), re.DOTALL), 1)
]


def test_there_are_some():
    assert len(BLOCKS) > 8


@pytest.mark.parametrize(("file", "number", "block"), BLOCKS)
def test_a_block_is_a_configuration(file, number, block):
    values = yaml.safe_load(block)
    if (kind := config_kind(values)) is TrainConfig:
        values = {"encoder": {"name": "zipformer"}, "data": {"train": "data/train/cuts.jsonl.gz"}, **values}
    check_config(values, kind, f"{file}, block {number}")
