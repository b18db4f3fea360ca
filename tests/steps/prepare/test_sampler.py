"""BatchPlan: nothing lost, nothing random but the seed, equal ranks, and no more padding than Lhotse's sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.dataset import DynamicBucketingSampler

from steps.prepare.sampler import BatchPlan
from utils.errors import UserError

DURATIONS = np.random.default_rng(0).lognormal(0.8, 0.8, 3000).clip(0.4, 25.0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_utterance_once_and_as_many_batches_on_every_rank(world_size, shuffle):
    plans = [BatchPlan(DURATIONS, 100, rank=r, world_size=world_size, shuffle=shuffle) for r in range(world_size)]
    for epoch in (0, 1, 5):
        parts = [plan.batches(epoch) for plan in plans]
        assert len({len(part) for part in parts}) == 1
        assert sorted(i for part in parts for batch in part for i in batch) == list(range(len(DURATIONS)))
        assert all(plans[0].padded(batch) <= 100 and batch for part in parts for batch in part)


def test_same_seed_same_batches_other_epoch_other_batches():
    one, other = BatchPlan(DURATIONS, 100, seed=3), BatchPlan(DURATIONS, 100, seed=3)
    assert one.batches(2) == other.batches(2)
    assert one.batches(2) != one.batches(3) != BatchPlan(DURATIONS, 100, seed=4).batches(3)
    first = [np.mean(DURATIONS[batch]) for batch in one.batches(0)]
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.3  # batches come in no order of length


def test_evaluation_is_sorted_and_the_same_in_every_epoch():
    plan = BatchPlan(DURATIONS, 100, shuffle=False)
    order = [i for batch in plan.batches(0) for i in batch]
    assert (np.diff(DURATIONS[order]) <= 0).all() and plan.batches(0) == plan.batches(7)


def test_ranks_get_batches_of_like_length_in_each_step():
    plans = [BatchPlan(DURATIONS, 100, rank=r, world_size=4) for r in range(4)]
    longest = np.array([[DURATIONS[batch].max() for batch in plan.batches(0)] for plan in plans])
    spread = (longest.max(0) - longest.min(0)).mean()
    assert spread < 0.25 * longest.std()


def test_padding_is_no_worse_than_lhotses(monkeypatch):
    # Lhotse calls torch's Sampler() without its data source, which torch 1.13 still wanted
    monkeypatch.setattr(torch.utils.data.Sampler, "__init__", lambda self, data_source=None: None)
    cuts = CutSet.from_cuts(
        MonoCut(str(i), 0, round(d, 4), 0, recording=Recording(str(i), [], 16000, round(d * 16000), round(d, 4)))
        for i, d in enumerate(DURATIONS)
    )
    sampler = DynamicBucketingSampler(cuts, max_duration=100, num_buckets=30, shuffle=True, seed=0)
    theirs = [[cut.duration for cut in batch] for batch in sampler]
    ours = [DURATIONS[batch].tolist() for batch in BatchPlan(DURATIONS, 100, num_buckets=30).batches(0)]

    def waste(batches):
        return sum(len(b) * max(b) for b in batches) / sum(map(sum, batches)) - 1

    print(f"padding: ours {waste(ours):.4f}, Lhotse's {waste(theirs):.4f}; batches {len(ours)}, {len(theirs)}")
    assert waste(ours) <= waste(theirs) and len(ours) <= len(theirs)


def test_limits():
    plan = BatchPlan(DURATIONS, 100, max_utterances=5)
    assert max(map(len, plan.batches(0))) == 5
    long = BatchPlan([50.0, 1.0, 1.0, 120.0], 100)
    assert [3] in long.batches(0)
    assert BatchPlan([2.0], 1.0).batches(0) == [[0]]
    with pytest.raises(UserError, match="cannot be shared by 4 ranks"):
        BatchPlan([1.0, 2.0], 10, world_size=4)


@pytest.mark.parametrize("limit", [None, 6])
def test_worst_batch_bounds_every_epoch(limit):
    plan = BatchPlan(DURATIONS, 60, max_utterances=limit)
    worst = plan.worst_batch()
    assert len(set(worst)) == len(worst) and plan.padded(worst) <= 60
    assert plan.padded(worst) >= 0.98 * max(plan.padded(batch) for e in range(10) for batch in plan.batches(e))


def test_worst_batch_is_the_oversized_utterance():
    plan = BatchPlan([1.0, 1.5, 90.0, 20.0, 20.0], 60)
    assert plan.worst_batch() == [2] and plan.padded([2]) == 90.0


def test_a_million_utterances_are_planned_quickly():
    import time

    durations = np.random.default_rng(1).uniform(1, 20, 1_000_000)
    plan = BatchPlan(durations, 600)
    started = time.perf_counter()
    batches = plan.batches(4)
    assert sum(map(len, batches)) == 1_000_000
    assert time.perf_counter() - started < 10


def test_single_utterances_are_shared_by_ranks_that_they_do_not_divide_by():
    training = [BatchPlan([3.0, 1.0, 2.0, 5.0, 4.0], 1.5, rank=r, world_size=3).batches(0) for r in range(3)]
    assert [len(batches) for batches in training] == [2, 2, 2]
    assert sorted(i for batches in training for [i] in batches) == [0, 1, 1, 2, 3, 4]  # the shortest once more
    plans = [BatchPlan([3.0, 1.0, 2.0, 5.0, 4.0], 1.5, rank=r, world_size=3, shuffle=False) for r in range(3)]
    assert sorted(i for plan in plans for [i] in plan.batches(0)) == [0, 1, 2, 3, 4]
