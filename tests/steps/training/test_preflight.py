"""What is tried before the first step: number formats, the largest batch."""

from __future__ import annotations

import pytest
import torch

from steps.training import precision as module
from steps.training.ledger import Ledger
from steps.training.precision import check_precision, choose_precision
from steps.training.preflight import probe
from tests.steps.training.toy_model import CPU, ToyBatches, ToyModel, toy_batches
from utils.distributed import World
from utils.errors import UserError


@pytest.mark.parametrize(("ratio", "chosen"), [(2.0, "bf16"), (0.8, "float32")])
def test_auto_takes_the_faster_format_on_a_processor_that_has_both(monkeypatch, ratio, chosen):
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    seconds = {"float32": iter([9.0, ratio, ratio]), "bf16": iter([0.1, 1.0, 1.2])}  # the first round does not count
    monkeypatch.setattr(module, "_time", lambda model, sample, device, precision: next(seconds[precision]))
    found, why = choose_precision("auto", CPU, None, None)
    assert found == chosen and f"{ratio:.2f} times as fast" in why


def test_auto_does_not_measure_where_the_processor_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    assert choose_precision("auto", CPU, None, None)[0] == "float32"
    assert choose_precision("bf16", CPU, None, None) == ("bf16", "as configured")
    with pytest.raises(UserError, match="precision=fp16 needs a GPU"):
        check_precision("fp16", CPU)


def test_measuring_and_probing_leave_no_trace(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    model, batch = ToyModel(), toy_batches([5])[0]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert choose_precision("auto", CPU, model, batch)[0] in ("bf16", "float32")
    ledger = Ledger(tmp_path, World(), 1.0, 1)
    probe(model, ToyBatches([batch]), "float32", CPU, ledger)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert "largest batch: 5 utterances of at most 1.0 s" in (tmp_path / "log/train.log").read_text()


def test_a_batch_that_does_not_fit_is_one_sentence(tmp_path):
    class Hungry(ToyModel):
        def forward(self, batch):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(
        UserError, match=r"largest batch \(2 utterances of at most 1\.0 s\) .* lower data\.max_duration"
    ):
        probe(Hungry(), ToyBatches(toy_batches([2])), "float32", CPU, Ledger(tmp_path, World(), 1.0, 1))


def test_another_error_is_not_called_a_lack_of_memory(tmp_path):
    class Wrong(ToyModel):
        def forward(self, batch):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        probe(Wrong(), ToyBatches(toy_batches([2])), "float32", CPU, Ledger(tmp_path, World(), 1.0, 1))


def test_the_time_left_follows_the_speed(tmp_path):
    ledger = Ledger(tmp_path, World(), total=7200.0, epochs=3)
    assert ledger.left(0.0) == "?"
    ledger.speed = 4.0
    assert ledger.left(3600.0) == "1:15:00" and ledger.left(1e9) == "0:00:00"
