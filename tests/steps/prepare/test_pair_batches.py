"""Batches of pairs: what is in them, that they come again, and how often each pair does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from steps.lang.pair_tokens import LangPair
from steps.lang.tokenizer import Tokenizer
from steps.prepare.pair_batches import pair_loader, pair_table
from steps.prepare.pairs import Pair, ParallelSection
from steps.prepare.text_batches import TextPlan, TextTable
from tests.steps.parallel import EN, FR, write_langs
from utils.errors import UserError

PAIRS = [Pair(f"u{i}", *texts, "en") for i, texts in enumerate(zip(EN, FR, strict=True))]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> LangPair:
    langs = write_langs(tmp_path_factory.mktemp("langs"))
    return LangPair(Tokenizer.load(langs["source"]), Tokenizer.load(langs["target"]), "fr")


def section(**values) -> ParallelSection:
    return ParallelSection.model_validate({"train": "unused", "max_tokens": 100, "num_buckets": 3, **values})


def loader(
    table: TextTable, tokens: LangPair, config: ParallelSection, epoch=0, start_batch=0, rank=0, size=1, train=True
):
    return pair_loader(TextPlan(table, config, rank, size, shuffle=train), tokens, epoch, start_batch)


def same(one, other) -> bool:
    return one.ids == other.ids and torch.equal(one.features, other.features)


def test_a_batch_holds_both_sides(tokens):
    table = pair_table(PAIRS, tokens, 250)
    for batch in loader(table, tokens, section()):
        targets = batch.targets["text"]
        assert max(batch.features.numel(), targets.tokens.numel()) <= 100 and targets.present.all()
        assert targets.prompts.tolist() == [tokens.prompt()] * len(batch)
        for row, name in enumerate(batch.ids):
            source = batch.features[row, : batch.feature_lens[row]].tolist()
            pair = PAIRS[int(name[1:])]
            assert source == tokens.source(pair.source) and source[-1] == 1
            assert tokens.decode(targets.tokens[row, : targets.lens[row]].tolist()) == pair.target
            assert float(batch.durations[row]) == len(source) + int(targets.lens[row])


NOISE = {"probability": 1.0, "characters": 0.3}


@pytest.mark.parametrize("options", [{}, {"noise": NOISE}, {"sampling": 0.2}, {"noise": NOISE, "sampling": 0.2}])
def test_batches_are_a_function_of_seed_epoch_and_number(tokens, options):
    table, config = pair_table(PAIRS, tokens, 250), section(**options)
    whole = list(loader(table, tokens, config, epoch=3))
    later = list(loader(table, tokens, config, epoch=3, start_batch=2))
    assert len(whole) == len(later) + 2 and all(map(same, whole[2:], later))
    assert not all(map(same, whole, loader(table, tokens, config, epoch=4)))
    shares = [list(loader(table, tokens, config, epoch=3, rank=rank, size=2)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])
    assert sorted(name for share in shares for batch in share for name in batch.ids) == sorted(p.name for p in PAIRS)
    clean = loader(table, tokens, section(), epoch=3)
    changed = [not same(batch, other) for batch, other in zip(whole, clean, strict=True)]
    assert all(changed) if options else not any(changed)


def test_sampled_pieces_say_the_same(tokens):
    table = pair_table(PAIRS, tokens, 250)
    for batch in loader(table, tokens, section(sampling=0.1)):
        targets = batch.targets["text"]
        for row, name in enumerate(batch.ids):
            pair = PAIRS[int(name[1:])]
            assert tokens.decode(targets.tokens[row, : targets.lens[row]].tolist()) == pair.target
            source = batch.features[row, : batch.feature_lens[row]].tolist()
            assert tokens.tokenizers["source"].decode(source[:-1]) == pair.source and source[-1] == 1


def test_validation_is_whole_and_unchanged(tokens):
    table = pair_table(PAIRS, tokens, 250)
    found = list(loader(table, tokens, section(noise={"probability": 1.0}, sampling=0.1), train=False))
    assert sorted(name for batch in found for name in batch.ids) == sorted(pair.name for pair in PAIRS)
    lengths = [batch.features.shape[1] for batch in found]
    assert lengths == sorted(lengths, reverse=True)
    for batch in found:
        for name, row, length in zip(batch.ids, batch.features, batch.feature_lens, strict=True):
            assert row[:length].tolist() == tokens.source(PAIRS[int(name[1:])].source)


def test_a_pair_comes_as_often_as_its_weight_says(tokens):
    table = pair_table(PAIRS, tokens, 250, [2.0] * 8 + [0.5] * 12)
    plan = TextPlan(table, section())
    epochs = [Counter(index for batch in plan.batches(epoch) for index in batch) for epoch in range(20)]
    assert all(count[index] == 2 for count in epochs for index in range(8))
    assert all(sum(count[index] for index in range(8, 20)) == 6 for count in epochs)
    assert all(4 <= sum(count[index] for count in epochs) <= 16 for index in range(8, 20))


def test_the_worst_batch_is_not_exceeded(tokens):
    table = pair_table(PAIRS, tokens, 250)
    plan, lengths = TextPlan(table, section()), table.lengths(np.arange(len(table)))
    worst = len(plan.worst_batch()) * max(lengths[plan.worst_batch()])
    sizes = [len(batch) * max(lengths[batch]) for epoch in range(5) for batch in plan.batches(epoch)]
    assert max(sizes) <= 1.03 * worst <= 103


def test_pairs_that_are_too_long_are_left_out(tokens):
    table = pair_table(PAIRS, tokens, 9)
    assert {row["reason"] for row in table.dropped} == {"too long"} and len(table) + len(table.dropped) == 20
    assert table.lengths(np.arange(len(table))).max() <= 9 and "at most 9" in table.dropped[0]["detail"]
    with pytest.raises(UserError, match="an epoch has no text"):
        TextPlan(pair_table(PAIRS[:1], tokens, 250, [0.1]), section()).batches(0)
