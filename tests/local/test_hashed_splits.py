"""Splits by a hash: nobody in two of them, nothing moves when there is more, never empty."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from local.hashed_splits import choose_way, group_of, make_splits
from local.manifests import Utterance, make_recording, make_utterance
from utils.errors import UserError

SHARES = {"test": 0.1, "dev": 0.1}


def utterances(speakers: int, each: int = 5, first: int = 0) -> list[Utterance]:
    made = []
    for speaker in range(first, first + speakers):
        for number in range(each):
            key = f"{speaker}-{number}"
            recording = make_recording(key, f"{key}.wav", 16000, 16000)
            made.append(make_utterance(key, recording, f"text {number} of {speaker}", "en", str(speaker), {}))
    return made


def places(splits: dict[str, Sequence[Utterance]]) -> dict[str, str]:
    return {item.supervision.id: split for split, items in splits.items() for item in items}


@pytest.mark.parametrize("way", ["speaker", "text"])
def test_more_data_moves_nothing(way):
    before = places(make_splits(utterances(100), SHARES, way))
    after = places(make_splits(utterances(120, 6), SHARES, way))
    assert len(before) == 500 and before.items() <= after.items()


@pytest.mark.parametrize("seed", range(5))
def test_no_speaker_is_in_two_splits_and_shares_are_kept(seed):
    splits = make_splits(utterances(1000), SHARES, "speaker", seed)
    speakers = {split: {item.supervision.speaker for item in items} for split, items in splits.items()}
    assert sum(map(len, speakers.values())) == 1000 == len(set.union(*speakers.values()))
    # binomial: five standard deviations of 9.5 speakers
    assert all(abs(len(speakers[split]) - 100) < 48 for split in SHARES)


def test_seeds_differ():
    assert places(make_splits(utterances(50), SHARES, "speaker", 0)) != places(
        make_splits(utterances(50), SHARES, "speaker", 1)
    )


@pytest.mark.parametrize("speakers", range(3, 12))
def test_few_speakers_make_all_splits(speakers):
    largest = utterances(1, 50, first=99)
    splits = make_splits(utterances(speakers - 1) + largest, {"test": 0.01, "dev": 0.01}, "speaker")
    assert all(splits.values()) and largest[0] in splits["train"]


def test_a_larger_dev_moves_no_test():
    first, second = (make_splits(utterances(200), {"test": 0.1, "dev": dev}, "speaker") for dev in (0.1, 0.2))
    assert first["test"] == second["test"]


def test_ways():
    assert choose_way(utterances(3), 3) == "speaker"
    assert choose_way(utterances(2), 3) == "text"  # too few speakers, and each file is a recording of its own
    assert choose_way(utterances(30, each=1), 3) == "text"  # nobody speaks twice: who knows whether they are speakers
    unknown = [_by(item, speaker=None, recording=f"talk{i // 5}") for i, item in enumerate(utterances(4))]
    assert choose_way(unknown, 3) == "recording"
    some = [_by(item, speaker=None) if i % 2 else item for i, item in enumerate(utterances(4))]
    assert group_of(some[1], "speaker") == some[1].recording.id


def _by(item: Utterance, speaker: str | None, recording: str | None = None) -> Utterance:
    again = make_recording(recording or item.recording.id, "a.wav", 16000, 16000)
    return make_utterance(item.supervision.id, again, item.supervision.text, "en", speaker, {})


def test_equal_texts_stay_together():
    twice = utterances(40, each=1) + [
        make_utterance(f"again{i}", item.recording, f"{item.supervision.text.upper()}!", "en", "x", {})
        for i, item in enumerate(utterances(40, each=1))
    ]
    found = places(make_splits(twice, {"test": 0.3, "dev": 0.3}, "text"))
    assert all(found[f"{i}-0"] == found[f"again{i}"] for i in range(40)) and len(set(found.values())) == 3


def test_too_few_groups():
    with pytest.raises(UserError, match="2 speakers cannot make train, test, dev: split by another of"):
        make_splits(utterances(2), SHARES, "speaker")
