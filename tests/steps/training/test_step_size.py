"""One size of a step for any number of processes and any memory: the rule, training by it, halving, going on."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from steps.nets.model import Model
from steps.prepare.sampler import BatchPlan
from steps.train import train
from steps.training.config import LoopConfig, TrainConfig
from steps.training.folder import TrainFolder
from steps.training.ledger import Ledger
from steps.training.preflight import probe
from steps.training.step_size import StepSize
from steps.training.translation import TranslationTrainConfig
from tests.steps.parallel import settings as settings_of_text
from tests.steps.training.conftest import write_split
from tests.steps.training.interrupt import stopping_at
from tests.steps.training.test_train_command import same_result
from tests.steps.training.test_two_processes import train_by_two
from tests.steps.training.toy_model import CPU, ToyBatches, ToyModel, toy_batches
from utils.checkpoint import load_checkpoint
from utils.distributed import World
from utils.errors import UserError
from utils.files import read_json
from utils.options import check_config


def config_of(total: float, limit: float) -> TrainConfig:
    data = {"train": "cuts", "max_duration": limit}
    values = {"encoder": {"name": "zipformer"}, "heads": {"ctc": {"target": "text", "lang": "l"}}}
    return check_config(values | {"data": data, "batch_seconds": total}, TrainConfig, "test")


def fit(settings: dict, out, **changes) -> int:
    return train(check_config({**settings, **changes}, TrainConfig, "test"), TrainFolder(out), World())


@pytest.mark.parametrize(
    ("total", "limit", "processes", "most", "accumulate"),
    [
        (4000, 1000, 4, 1000, 1),  # icefall's 4 V100
        (4000, 750, 1, 4000 / 6, 6),
        (4000, 2500, 8, 500, 1),
        (4000, 1000, 1, 1000, 4),
        (4000, 4000 / 3, 3, 4000 / 3, 1),  # no fourth of a step for a rounding error
    ],
)
def test_as_few_and_as_large_batches_as_memory_allows(total, limit, processes, most, accumulate):
    size = StepSize.of(config_of(total, limit), processes)
    assert size == (pytest.approx(most), accumulate, processes, 0)
    half = size.half().half()
    assert half.total == size.total == pytest.approx(total) and half.planned == size
    assert (half.most, half.accumulate) == (size.most / 4, 4 * accumulate)


def test_two_sizes_of_a_step_are_refused():
    with pytest.raises(UserError, match="'accumulate' follows from 'batch_seconds': set one of them"):
        check_config(config_of(10, 5).model_dump() | {"accumulate": 2}, TrainConfig, "test")
    check_config(config_of(10, 5).model_dump(mode="json"), TrainConfig, "a saved config has every key")
    assert not hasattr(LoopConfig(), "batch_seconds")


def test_a_step_has_as_many_seconds_on_any_machine():
    durations = np.random.default_rng(0).uniform(1, 20, 4000)
    seen = {}
    for limit, processes in ((200, 1), (200, 2), (250, 4), (330, 1), (2000, 8)):
        size = StepSize.of(config_of(800, limit), processes)
        batches = BatchPlan(durations, size.most, seed=1, world_size=processes).global_batches(0)
        many = processes * size.accumulate
        whole = range(0, len(batches) - many, many)
        seconds = [sum(float(durations[batch].sum()) for batch in batches[i : i + many]) for i in whole]
        assert max(seconds) <= 800 and 800 - np.median(seconds) < many * 20  # each batch but for one utterance
        seen.setdefault(many, []).append(float(np.mean(seconds)))
    assert sorted(seen) == [3, 4, 8] and max(seen[4]) - min(seen[4]) < 20, seen


@pytest.fixture(scope="module")
def larger(task, tmp_path_factory) -> dict:
    """The task with 160 utterances, 19.2 seconds of speech a step."""
    root = tmp_path_factory.mktemp("larger")
    write_split(root / "data", "train", 160, 5)
    (root / "data" / "features.yaml").write_text("num_mel_bins: 20\n")
    values = yaml.safe_load((task / "conf.yaml").read_text())
    values["data"] |= {"train": str(root / "data/train/cuts.jsonl.gz"), "max_duration": 5.0, "spec_augment": None}
    values |= {"batch_seconds": 19.2, "epochs": 4, "keep_last": 9, "optimizer": {"name": "scaled_adam", "lr": 0.02}}
    (root / "conf.yaml").write_text(yaml.safe_dump(values))
    return values | {"file": root / "conf.yaml"}


def curve(out) -> list[float]:
    """Validation losses after each epoch."""
    return [load_checkpoint(out / f"epoch-{n}.pt")["progress"]["valid"]["loss"] for n in range(1, 5)]


def test_one_process_and_two_learn_alike(larger, tmp_path):
    values = {key: value for key, value in larger.items() if key != "file"}
    assert fit(values, tmp_path / "one") == 0
    statuses, shown = train_by_two(str(larger["file"]), "--out", str(tmp_path / "two"))
    assert statuses == [0, 0], shown
    assert "step: 19.2 seconds, 2 process(es) x 2 batch(es) of at most 4.8 seconds" in shown[0]
    one, two = (read_json(tmp_path / name / "train.json") for name in ("one", "two"))
    assert one["step"] == {"most": 4.8, "accumulate": 4, "processes": 1, "halved": 0, "total": 19.2, "unit": "seconds"}
    assert two["step"] == {**one["step"], "accumulate": 2, "processes": 2}
    assert abs(one["steps"] - two["steps"]) <= 4  # the last step of an epoch has what is left
    first, second = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert first[-1] < 0.7 * first[0]
    assert second == pytest.approx(first, rel=0.03), (first, second)


class Hungry:
    """Out of memory above so many padded frames."""

    def __init__(self, most: int) -> None:
        self.most, self.forward = most, Model.forward

    def __enter__(self) -> None:
        def forward(model, batch):
            if model.training and batch.features.shape[0] * batch.features.shape[1] > self.most:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return self.forward(model, batch)

        Model.forward = forward

    def __exit__(self, *_) -> None:
        Model.forward = self.forward


def test_what_does_not_fit_is_halved_and_a_resumed_training_remembers_it(settings, tmp_path, capsys):
    settings |= {"batch_seconds": 10.0, "epochs": 2}
    with Hungry(300):
        assert fit(settings, tmp_path / "whole") == 0
    shown = capsys.readouterr().err
    assert "step: 10 seconds, 1 process(es) x 2 batch(es) of at most 5 seconds" in shown
    assert "more than fits into the memory of cpu: all are halved" in shown
    assert "step: 10 seconds, 1 process(es) x 4 batch(es) of at most 2.5 seconds" in shown
    assert read_json(tmp_path / "whole/train.json")["step"]["halved"] == 1
    with Hungry(300), stopping_at(2):
        assert fit(settings, tmp_path / "again") == 143
    progress = load_checkpoint(tmp_path / "again/checkpoint.pt")["progress"]
    assert (progress["step"], progress["batch"]) == (2, 8)
    assert fit(settings, tmp_path / "again") == 0  # all would fit now, but other batches would be another training
    same_result(tmp_path / "again", tmp_path / "whole", 2)


def test_another_memory_is_for_another_epoch(settings, tmp_path, capsys):
    settings |= {"batch_seconds": 10.0, "epochs": 2}
    with stopping_at(2):
        assert fit(settings, tmp_path) == 143
    smaller = {**settings, "data": {**settings["data"], "max_duration": 2.6}}
    with pytest.raises(
        UserError, match=r"in the middle of an epoch with 2 x 5 as batches .* 4 x 2\.5: give the data\.max"
    ):
        fit(smaller, tmp_path)
    done = load_checkpoint(tmp_path / "checkpoint.pt")["progress"]["step"] + 2  # an epoch has four steps
    with stopping_at(done):
        assert fit(settings, tmp_path) == 143
    capsys.readouterr()
    assert fit(smaller, tmp_path) == 0
    shown = capsys.readouterr().err
    assert "4 batch(es) of at most 2.5 seconds" in shown and "largest batch:" in shown
    with pytest.raises(UserError, match="trained with other values of batch_seconds"):
        fit(settings | {"batch_seconds": 11.0, "epochs": 3}, tmp_path)


def test_one_utterance_that_does_not_fit_is_one_sentence(settings, tmp_path):
    with Hungry(10), pytest.raises(UserError, match=r"\(1 utterances of at most .* does not fit .*: leave out what is"):
        fit(settings | {"batch_seconds": 10.0}, tmp_path)
    with Hungry(300), pytest.raises(UserError, match=r"lower data\.max_duration and raise accumulate, or"):
        fit(settings, tmp_path)


def test_of_text_a_step_is_counted_in_tokens(tmp_path):
    layer = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 32}
    values = settings_of_text(tmp_path, layer) | {"batch_tokens": 300, "epochs": 1}
    values["data"]["max_tokens"] = 200
    config = check_config(values, TranslationTrainConfig, "test")
    assert train(config, TrainFolder(tmp_path / "model"), World()) == 0
    found = read_json(tmp_path / "model/train.json")
    assert found["step"] == {"most": 150, "accumulate": 2, "processes": 1, "halved": 0, "total": 300, "unit": "tokens"}
    with pytest.raises(UserError, match=r"unknown key 'batch_seconds' \(did you mean 'batch_tokens'"):
        check_config(values | {"batch_seconds": 300}, TranslationTrainConfig, "test")


def test_all_processes_halve_when_one_has_to(tmp_path):
    others = iter([1.0, 0.0])

    class Two(World):
        """The other process is out of memory once."""

        def total(self, numbers):
            return [number + next(others) for number in numbers]

    class Halved(ToyBatches):
        def resize(self, step):
            self.step, self.batches = step, toy_batches([2])

    batches = Halved(toy_batches([4]))
    probe(ToyModel(), batches, "float32", CPU, Ledger(tmp_path, Two(), 1.0, 1), share=True)
    assert batches.step == (2.0, 2, 1, 1)
