"""The YAML in the READMEs is what steps.train reads, or --searches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from steps.search.plan import plan_searches
from steps.search_options import read_searches
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
def test_a_block_is_a_configuration(file, number, block, tmp_path):
    values = yaml.safe_load(block)
    if all(":" in key for key in values):
        (tmp_path / "searches.yaml").write_text(block)
        searches = read_searches(str(tmp_path / "searches.yaml"))
        first = {name: {key: values[0] for key, values in own.items()} for name, own in searches.items()}
        plan_searches(first, {head: head for head in ("attention", "ctc", "transducer")}, {}, file)
        return
    if (kind := config_kind(values)) is TrainConfig:
        values = {"encoder": {"name": "zipformer"}, "data": {"train": "data/train/cuts.jsonl.gz"}, **values}
    check_config(values, kind, f"{file}, block {number}")
