"""Batches for training and evaluation: content, exact resumption, ranks, caches, and broken feature files."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from steps.prepare.cuts import Cuts
from steps.prepare.dataset import (
    PADDING,
    Batch,
    DataConfig,
    HeadTarget,
    make_loader,
    pad_features,
    pad_targets,
    padded_length,
    speed_limits,
)
from steps.prepare.feasible import feasible
from utils.errors import UserError


class Letters:
    """A stand-in tokenizer: letters from 3 on, with the language's first letter in front."""

    def encode(self, text: str, language: str | None = None) -> list[int]:
        return [ord(language[0]), *(ord(letter) for letter in text)]


HEADS = {"asr": HeadTarget("text", Letters(), ctc=True), "st": HeadTarget("translation.fr", Letters())}
SMALL = DataConfig(max_duration=12.0, num_buckets=3)


@pytest.fixture
def cuts(prepared) -> Cuts:
    return Cuts.load(prepared / "train" / "cuts.jsonl.gz")


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.ids == other.ids
    assert torch.equal(one.features, other.features) and torch.equal(one.feature_lens, other.feature_lens)
    for name in one.targets:
        assert torch.equal(one.targets[name].tokens, other.targets[name].tokens)


def test_table_of_cuts_is_lhotses(prepared, cuts):
    expected = list(CutSet.from_file(prepared / "train" / "cuts.jsonl.gz"))
    assert len(cuts) == len(expected) and list(cuts) == expected
    assert cuts.ids == [cut.id for cut in expected] and cuts[-1] == expected[-1]
    assert cuts.durations.tolist() == [cut.duration for cut in expected]
    assert cuts.num_frames.tolist() == [cut.num_frames for cut in expected]
    some = cuts.subset([5, 3])
    assert [cut.id for cut in some] == [expected[5].id, expected[3].id] and some.config.feature_dim == 80
    assert Cuts(cut.to_dict() for cut in expected)[4] == expected[4]


def test_evaluation_batches_hold_every_cut_unchanged(cuts):
    seen = {}
    for batch in make_loader(cuts, HEADS, SMALL, train=False):
        assert batch.features.dtype == torch.float32 and batch.features.shape[::2] == (len(batch), 80)
        assert batch.frames == batch.features.shape[0] * batch.features.shape[1]
        for row, id in enumerate(batch.ids):
            length = int(batch.feature_lens[row])
            seen[id] = batch.features[row, :length]
            assert (batch.features[row, length:] == PADDING).all()
            cut = cuts[cuts.ids.index(id)]
            target = batch.targets["asr"]
            tokens = target.tokens[row, : target.lens[row]].tolist()
            assert tokens == [ord("e"), *map(ord, cut.supervisions[0].text)]
            assert not target.tokens[row, target.lens[row] :].any()
            assert batch.targets["st"].tokens[row, 0] == ord("f")
            assert float(batch.durations[row]) == pytest.approx(cut.duration)
    assert sorted(seen) == sorted(cuts.ids)
    np.testing.assert_array_equal(seen["train-003_sp0.9"], cuts[cuts.ids.index("train-003_sp0.9")].load_features())


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_middle_gives_the_same_batches(cuts, workers):
    config = SMALL.model_copy(update={"workers": workers})
    whole = list(make_loader(cuts, HEADS, SMALL, epoch=3))
    rest = list(make_loader(cuts, HEADS, config, epoch=3, start_batch=4))
    assert len(whole) > 6 and len(rest) == len(whole) - 4 == len(make_loader(cuts, HEADS, config, True, 3, 4))
    for one, other in zip(whole[4:], rest, strict=True):
        assert_equal(one, other)
    assert any(a.ids != b.ids for a, b in zip(whole, make_loader(cuts, HEADS, SMALL, epoch=4), strict=False))


def test_training_augments_and_evaluation_does_not(cuts):
    plain = {
        id: row for b in make_loader(cuts, {}, SMALL, train=False) for id, row in zip(b.ids, b.features, strict=True)
    }
    changed = 0
    for batch in make_loader(cuts, {}, SMALL):
        for id, row, length in zip(batch.ids, batch.features, batch.feature_lens, strict=True):
            changed += not torch.equal(row[:length], plain[id][:length])
    assert 50 < changed <= 72
    off = SMALL.model_copy(update={"spec_augment": None})
    for batch in make_loader(cuts, {}, off):
        for id, row, length in zip(batch.ids, batch.features, batch.feature_lens, strict=True):
            assert torch.equal(row[:length], plain[id][:length])


def test_masks_begin_with_the_epoch_that_is_configured(cuts):
    def changed(first_epoch, epoch):
        masks = SMALL.spec_augment.model_copy(update={"first_epoch": first_epoch, "probability": 1.0})
        on = make_loader(cuts, {}, SMALL.model_copy(update={"spec_augment": masks}), epoch=epoch)
        off = make_loader(cuts, {}, SMALL.model_copy(update={"spec_augment": None}), epoch=epoch)
        return any(not torch.equal(a.features, b.features) for a, b in zip(on, off, strict=True))

    assert [changed(3, epoch) for epoch in range(4)] == [False, False, True, True]  # `epoch` counts from 0
    assert changed(1, 0)


def test_two_views_of_every_utterance_in_training_alone(cuts):
    twice = {**HEADS, "asr": replace(HEADS["asr"], views=2)}
    for two, one in zip(make_loader(cuts, twice, SMALL), make_loader(cuts, HEADS, SMALL), strict=True):
        count = len(one)
        assert two.ids == one.ids and torch.equal(two.durations, one.durations)
        assert torch.equal(two.feature_lens, one.feature_lens.repeat(2)) and two.frames == 2 * one.frames
        assert not torch.equal(*two.features.chunk(2))
        for name, target in two.to("cpu").targets.items():
            assert target.views == 2 and one.targets[name].views == 1
            for part in ("tokens", "lens", "present", "prompts"):
                views = getattr(target, part)
                assert torch.equal(views[:count], getattr(one.targets[name], part)) and len(views) == 2 * count
                assert torch.equal(views[:count], views[count:])
    for batch in make_loader(cuts, twice, SMALL, train=False):
        assert len(batch.features) == len(batch) and batch.targets["asr"].views == 1


def test_reading_leaves_torchs_generator_alone(cuts):
    state = torch.get_rng_state()
    for workers in (0, 1):
        list(make_loader(cuts, HEADS, SMALL.model_copy(update={"workers": workers})))
    assert torch.equal(state, torch.get_rng_state())


def test_worst_batch_is_as_large_as_any(cuts):
    loader = make_loader(cuts, HEADS, SMALL)
    assert loader.worst_batch().frames >= 0.97 * max(
        b.frames for e in range(3) for b in make_loader(cuts, {}, SMALL, epoch=e)
    )


@pytest.mark.parametrize("factors", [(0.5, 1.1), (1.1, 2.0)])
def test_worst_batch_is_as_large_as_any_change_of_speed_makes_one(cuts, factors):
    speed = {"factors": factors, "probability": 0.5}
    config = SMALL.model_validate({**SMALL.model_dump(), "on_the_fly": True, "augment": {"speed": speed}})
    seen = [b.frames for e in range(6) for b in make_loader(cuts, {}, config, epoch=e)]
    plain = make_loader(cuts, {}, SMALL).worst_batch().frames
    worst = make_loader(cuts, {}, config).worst_batch().frames
    assert worst >= 0.97 * max(seen) and worst == pytest.approx(plain / min(1.0, *factors), rel=0.01)
    evaluated = make_loader(cuts, {}, config, train=False)
    assert evaluated.worst_batch().frames == pytest.approx(plain, rel=0.01)


def test_speed_limits():
    def limits(**speed) -> tuple[float, float]:
        return speed_limits(DataConfig.model_validate({"augment": {"speed": speed}}))

    assert limits(factors=[0.9, 1.2, 1.1]) == (0.9, 1.2) and limits(factors=[0.9, 1.1], probability=0) == (1.0, 1.0)
    assert limits(factors=[1.3]) == (1.0, 1.3) and limits(factors=[0.8]) == (0.8, 1.0)
    assert speed_limits(DataConfig()) == speed_limits(DataConfig(augment={"volume": {}})) == (1.0, 1.0)


def test_mixed_feature_sizes_are_refused(cuts):
    rows = [cuts.row(0), cuts.row(1)]
    rows[1]["features"]["num_features"] = 40
    with pytest.raises(UserError, match=r"\[40, 80\] values a frame"):
        Cuts(rows)
    assert cuts.feature_dim == 80


def test_ranks_share_an_epoch(cuts):
    parts = [list(make_loader(cuts, HEADS, SMALL, epoch=1, rank=r, world_size=3)) for r in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(id for part in parts for batch in part for id in batch.ids) == sorted(cuts.ids)


def test_cache_is_half_precision_and_filled_once(cuts, monkeypatch):
    off = DataConfig(max_duration=12.0, spec_augment=None)
    cached = off.model_copy(update={"cache": True})
    plain = list(make_loader(cuts, HEADS, off, epoch=1))
    first = list(make_loader(cuts, HEADS, cached, epoch=1))
    monkeypatch.setattr("steps.prepare.dataset.read_features", lambda *a: pytest.fail("read again"))
    second = list(make_loader(cuts, HEADS, cached, epoch=1))
    for a, b, c in zip(plain, first, second, strict=True):
        assert torch.allclose(a.features, b.features, atol=2**-6) and a.features.dtype == b.features.dtype
        assert_equal(b, c)


def test_on_the_fly_equals_stored(cuts):
    stored = list(make_loader(cuts, {}, SMALL, train=False))
    computed = list(make_loader(cuts, {}, SMALL.model_copy(update={"on_the_fly": True}), train=False))
    for one, other in zip(stored, computed, strict=True):
        assert one.ids == other.ids
        assert (one.features - other.features).abs().max() <= 2**-6 + 1e-3


def test_augmenting_audio_is_resumable_and_needs_audio(cuts):
    augment = {"volume": {"probability": 1.0}, "speed": {"factors": [0.9, 1.1]}}
    with pytest.raises(UserError, match=r"data\.on_the_fly: true"):
        make_loader(cuts, HEADS, DataConfig(augment=augment))
    config = DataConfig(max_duration=12.0, augment=augment, on_the_fly=True)
    whole = list(make_loader(cuts, HEADS, config, epoch=2))
    (last,) = make_loader(cuts, HEADS, config, epoch=2, start_batch=len(whole) - 1)
    assert_equal(whole[-1], last)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["missing", "short", "scrambled"])
def test_broken_feature_file_is_one_sentence(prepared, tmp_path, damage, workers):
    shutil.copytree(prepared / "train" / "feats", tmp_path / "feats")
    archive = tmp_path / "feats" / "00001.lca"
    if damage == "missing":
        archive.unlink()
    else:
        data = archive.read_bytes()
        archive.write_bytes(data[: len(data) // 3] if damage == "short" else bytes(len(data)))
    rows = [cut.to_dict() for cut in CutSet.from_file(prepared / "train" / "cuts.jsonl.gz")]
    for row in rows:
        row["features"]["storage_path"] = row["features"]["storage_path"].replace(
            str(prepared / "train"), str(tmp_path)
        )
    with pytest.raises(UserError, match=r"00001.lca: the features of .* run stage 2") as caught:
        list(make_loader(Cuts(rows), HEADS, DataConfig(workers=workers)))
    assert "\n" not in str(caught.value)


def test_missing_audio_on_the_fly_is_one_sentence(cuts, tmp_path):
    row = cuts.row(0)
    row["recording"]["sources"][0]["source"] = str(tmp_path / "gone.wav")
    table = Cuts([row], cuts.config)
    with pytest.raises(UserError, match=r"gone.wav: no such file"):
        list(make_loader(table, {}, DataConfig(on_the_fly=True)))
    soundfile.write(tmp_path / "gone.wav", np.ones(100), 16000)
    with pytest.raises(UserError, match=r"gone.wav: 100 samples, the cut says"):
        list(make_loader(table, {}, DataConfig(on_the_fly=True)))


def test_mistakes_with_cuts_files(prepared, tmp_path):
    with pytest.raises(UserError, match=r"does not exist: run stage 2"):
        Cuts.load(tmp_path / "cuts.jsonl.gz")
    (tmp_path / "cuts.jsonl").write_text('{"id": "a", "duration": 1}\n')
    with pytest.raises(UserError, match=r"entry 1: not a cut"):
        Cuts.load(tmp_path / "cuts.jsonl")
    (tmp_path / "cuts.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no cuts"):
        Cuts.load(tmp_path / "cuts.jsonl")
    rows = [cut.to_dict() for cut in CutSet.from_file(prepared / "dev" / "cuts.jsonl.gz")]
    with pytest.raises(UserError, match=r"no features\.yaml"):
        Cuts(rows).config  # noqa: B018


def test_missing_targets_are_marked(cuts):
    rows = [cuts.row(i) for i in range(3)]
    rows[1]["supervisions"][0]["custom"]["translation"] = {}
    rows[2]["supervisions"][0]["text"] = ""
    (batch,) = make_loader(Cuts(rows, cuts.config), HEADS, SMALL, train=False)
    order = [rows[i]["id"] for i in range(3)]
    present = {name: dict(zip(batch.ids, t.present.tolist(), strict=True)) for name, t in batch.targets.items()}
    assert [present["st"][id] for id in order] == [True, False, True]
    assert [present["asr"][id] for id in order] == [True, True, False]
    assert all((t.lens > 0).tolist() == t.present.tolist() for t in batch.targets.values())


def test_padding_helpers():
    targets = pad_targets([[5, 6], None, []])
    assert targets.tokens.tolist() == [[5, 6], [0, 0], [0, 0]] and targets.lens.tolist() == [2, 0, 0]
    assert targets.present.tolist() == [True, False, True]
    assert pad_targets([None, None]).tokens.shape == (2, 1)
    padded, lens = pad_features([np.ones((2, 3), np.float16), np.zeros((1, 3), np.float32)])
    assert padded.dtype == torch.float32 and lens.tolist() == [2, 1] and padded[1, 1, 0] == pytest.approx(PADDING)
    wider, lens = pad_features([np.ones((9, 3), np.float32)], fraction=0.9)
    assert wider.shape == (1, 16, 3) and lens.tolist() == [9] and wider[0, 9:].eq(padded[1, 1, 0]).all()


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.08, 0.5])
def test_few_lengths_and_little_padding(fraction):
    lengths = [padded_length(frames, fraction) for frames in range(1, 4097)]
    assert all(frames <= padded < frames * (1 + fraction) + 1 for frames, padded in enumerate(lengths, 1))
    between = {length for length in lengths if 1024 < length <= 2048}  # one octave holds at most 2 / fraction of them
    assert len(between) <= (2 / fraction if fraction else 1024)
    assert lengths == sorted(lengths)


def test_batches_are_padded_to_few_lengths(cuts):
    lengths = set()
    for batch in make_loader(cuts, HEADS, SMALL.model_copy(update={"pad_fraction": 0.25})):
        assert batch.features.shape[1] == padded_length(int(batch.feature_lens.max()), 0.25)
        lengths.add(batch.features.shape[1])
    assert all(length % 16 == 0 for length in lengths)


def test_moving_a_batch(cuts):
    batch = next(iter(make_loader(cuts, HEADS, SMALL)))
    moved = batch.to("meta")
    assert moved.features.device.type == moved.targets["st"].tokens.device.type == "meta" and moved.ids == batch.ids
    assert moved.targets["st"].present.device.type == batch.targets["st"].present.device.type == "cpu"


def test_feasible_names_what_cannot_be_aligned(cuts):
    rows = [cuts.row(i) for i in range(4)]
    frames = cuts.num_frames[:4] // 4
    texts = ["a" * 30, "", "ab" * 200, "ok"]
    for row, text in zip(rows, texts, strict=True):
        row["supervisions"][0]["text"] = text
        row["supervisions"][0]["custom"]["translation"] = {}
    assert 31 <= frames[0] < 31 + 29 or frames[0] < 31
    keep, drop, lacking = feasible(Cuts(rows, cuts.config), HEADS, lambda lens: lens // 4)
    assert lacking == {"asr": 0, "st": 1}  # of what is kept
    assert keep == [3] and [row["id"] for row in drop] == [row["id"] for row in rows[:3]]
    assert [row["reason"] for row in drop] == ["more tokens than frames", "no target", "more tokens than frames"]
    assert "29 repeats of head 'asr'" in drop[0]["detail"]
    without = {"asr": HeadTarget("text", Letters())}
    generous = feasible(Cuts(rows[:1], cuts.config), without, lambda lens: torch.full_like(lens, 31))
    assert generous == ([0], [], {"asr": 0})
    strict = feasible(Cuts(rows[:1], cuts.config), HEADS, lambda lens: torch.full_like(lens, 31 + 28))
    assert strict[0] == [] and feasible(Cuts(rows[:1], cuts.config), HEADS, lambda n: n * 0 + 60)[0] == [0]
