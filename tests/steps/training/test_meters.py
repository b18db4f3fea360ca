"""Sums of losses: what a skipped batch counts for, how many frames can be told apart, processes without a batch."""

from __future__ import annotations

import pytest
import torch

from steps.training.meters import Meter
from utils.distributed import World


def test_a_skipped_batch_counts_neither_frames_nor_tokens():
    meter = Meter(skip_nonfinite=True)
    meter.add({"one.a": torch.tensor(float("nan"))}, 70, {"one": 50})
    meter.add({"one.a": torch.tensor(100.0)}, 200, {"one": 50})
    assert meter.means(World()) == ({"loss": 0.5, "one.a": 0.5}, {"one.a": 2.0})


@pytest.mark.parametrize("skip", [True, False])
def test_frames_are_counted_one_by_one_beyond_float32(skip):
    meter = Meter(skip_nonfinite=skip)
    for frames in (2**24, 1, 1, 1):
        meter.add({"one.a": torch.tensor(1.0)}, frames, {"one": frames})
    state = meter.state_dict(World())
    assert state["frames"] == state["tokens"]["one"] == 2**24 + 3


def test_a_process_without_a_batch_adds_zeros():
    class Second(World):
        """The second of two processes, whose main one has seen the losses of two heads."""

        def from_main(self, value):
            return ["one.a", "two.b"], ["one", "two"]

    assert Meter().state_dict(Second(rank=1, size=1)) == {
        "frames": 0.0,
        "sums": {"one.a": 0.0, "two.b": 0.0},
        "tokens": {"one": 0.0, "two": 0.0},
    }


def test_sums_go_on_from_a_state():
    meter, other = Meter(skip_nonfinite=True), Meter(skip_nonfinite=True)
    meter.add({"one.a": torch.tensor(3.0)}, 10, {"one": 4})
    other.load_state_dict(meter.state_dict(World()))
    for each in (meter, other):
        each.add({"one.a": torch.tensor(5.0)}, 6, {"one": 1})
    assert other.state_dict(World()) == meter.state_dict(World())
