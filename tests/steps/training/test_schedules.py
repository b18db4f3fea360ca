"""Learning-rate schedules against icefall's values and against their definitions."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from steps.training.schedules import Constant, Cosine, Eden, Schedule, Warmup

# (step, epoch, rate) by icefall's Eden(lr_batches=300, lr_epochs=4, warmup_batches=100) over a base rate of 0.045
ICEFALL = [
    (0, 0, 0.0225),
    (50, 0, 0.0335196111),
    (100, 0, 0.0438301686),
    (250, 1, 0.0388484276),
    (1000, 3, 0.0215755319),
    (5000, 10, 0.0067114054),
]


@pytest.mark.parametrize(("step", "epoch", "rate"), ICEFALL)
def test_eden_is_icefalls(step, epoch, rate):
    schedule = Eden(lr_batches=300, lr_epochs=4, warmup_batches=100)
    assert 0.045 * schedule.factor(step, epoch, 0.5) == pytest.approx(rate, rel=1e-7)


def test_cosine_ends_at_its_minimum_after_a_linear_warm_up():
    schedule = Cosine(warmup_steps=10, min_factor=0.1)
    assert schedule.factor(0, 0, 0.0) == pytest.approx(0.1)
    assert schedule.factor(4, 0, 0.0) == pytest.approx(0.5)
    assert schedule.factor(50, 3, 0.5) == pytest.approx(0.55)
    assert schedule.factor(100, 9, 1.0) == pytest.approx(0.1)


def test_warm_up_peaks_at_its_last_step_and_falls_with_the_square_root():
    schedule = Warmup(warmup_steps=100)
    assert schedule.factor(49, 0, 0.0) == pytest.approx(0.5)
    assert schedule.factor(99, 0, 0.0) == pytest.approx(1.0)
    assert schedule.factor(399, 0, 0.0) == pytest.approx(0.5)


def test_constant_is_one_from_the_first_step_unless_it_warms_up():
    assert Constant().factor(0, 0, 0.0) == 1.0
    assert [Constant(warmup_steps=4).factor(step, 0, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_name_chooses_the_schedule_and_its_keys():
    adapter = TypeAdapter(Schedule)
    assert adapter.validate_python({"name": "cosine", "warmup_steps": 3}) == Cosine(warmup_steps=3)
    with pytest.raises(ValidationError, match="lr_epochs"):
        adapter.validate_python({"name": "cosine", "lr_epochs": 3})
