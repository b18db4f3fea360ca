"""The YAML files that recipes share: encoders of the published sizes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from steps.nets.model import Model, ModelConfig
from utils.options import check_config, load_yaml

CONF = Path(__file__).parents[2] / "egs" / "conf"
# icefall, egs/librispeech/ASR/RESULTS.md, zipformer + CR-CTC: parameters with nothing but a CTC head of 500 tokens
PUBLISHED = {"small": 22118279, "medium": 64250603, "large": 147010094}


@pytest.mark.parametrize("size", PUBLISHED)
def test_an_encoder_has_as_many_parameters_as_the_published_one(size):
    on_meta = hasattr(torch.device, "__enter__")
    if size != "small" and not on_meta:
        pytest.skip(f"torch {torch.__version__} makes no model without its memory")
    encoder = load_yaml(CONF / f"zipformer-{size}.yaml")["encoder"]
    values = {"encoder": encoder, "heads": {"ctc": {"target": "text", "lang": "lang"}}, "feature_dim": 80}
    config = check_config(values, ModelConfig, size)
    with torch.device("meta") if size != "small" else nullcontext():
        model = Model(config, {"ctc": 500})
    # to within some biases and scales
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(PUBLISHED[size], rel=2e-4)
