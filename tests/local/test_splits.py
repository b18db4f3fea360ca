"""Families and splits, on made-up prompts; the real ones are in test_asterisk_corpus.py."""

from __future__ import annotations

import random
from collections import Counter

from local.splits import assign_splits, find_families, overlap


def nothing(prompt: str) -> None:
    return None


def test_overlap_is_of_the_longer_text():
    assert overlap(Counter(["a", "b", "c", "d"]), Counter(["a", "b", "c", "d"])) == 1
    assert overlap(Counter(["a", "b", "c", "d"]), Counter(["a", "b"])) == 0.5
    assert overlap(Counter(["a", "a"]), Counter(["a"])) == 0.5
    assert overlap(Counter(), Counter()) == 0


def test_same_text_in_any_language_joins_prompts_also_through_a_third():
    texts = {
        "a": {"en": "minutes", "fr": "minutes"},
        "b": {"en": "some minutes", "fr": "minutes"},
        "c": {"en": "some minutes", "fr": "quelques minutes"},
        "d": {"en": "hours", "it": "minutes"},
    }
    families = find_families(texts, nothing)
    assert families == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_near_duplicates_join_but_short_texts_and_empty_ones_do_not():
    texts = {
        "a": {"en": "press one to hear the message"},
        "b": {"en": "press two to hear the message"},
        "c": {"en": "hear me"},
        "d": {"en": "hear you"},
        "e": {"en": ""},
        "f": {"en": ""},
    }
    assert find_families(texts, nothing) == {"a": "a", "b": "a", "c": "c", "d": "d", "e": "e", "f": "f"}


def test_groups_join():
    assert find_families({"vm-a": {"en": "x"}, "vm-b": {"en": "y"}}, lambda p: p.split("-")[0]) == {
        "vm-a": "vm-a",
        "vm-b": "vm-a",
    }


def make_texts(count: int = 300) -> dict[str, dict[str, str]]:
    draw = random.Random(5)
    texts = {}
    for index in range(count):
        size = draw.choice([1, 1, 6, 12, 50])
        texts[f"p{index:03}"] = {
            language: " ".join(f"{language}{draw.randrange(5000)}" for _ in range(size)) for language in ("en", "fr")
        }
    return texts


def share(texts: dict, splits: dict, name: str) -> float:
    size = {prompt: sum(map(len, by_language.values())) for prompt, by_language in texts.items()}
    return sum(size[prompt] for prompt in texts if splits[prompt] == name) / sum(size.values())


def test_shares_hold_for_every_seed_and_seeds_differ():
    texts = make_texts()
    families = find_families(texts, nothing)
    drawn = [assign_splits(texts, families, seed) for seed in range(5)]
    for splits in drawn:
        assert 0.08 < share(texts, splits, "test") < 0.12
        assert 0.06 < share(texts, splits, "dev") < 0.10
        for size in (1, 12, 50):  # each split has its part of single words, sentences and menus
            assert {splits[p] for p in texts if len(texts[p]["en"].split()) == size} == {"train", "dev", "test"}
    assert len({tuple(sorted(splits.items())) for splits in drawn}) == 5
    assert assign_splits(dict(reversed(texts.items())), families, 0) == drawn[0]


def test_the_largest_family_is_in_train_and_families_are_whole():
    texts = make_texts()
    families = find_families(texts, lambda prompt: "big" if prompt < "p200" else None)
    for seed in range(5):
        splits = assign_splits(texts, families, seed)
        assert all(splits[prompt] == "train" for prompt in texts if prompt < "p200")
        assert all(len({splits[p] for p in texts if families[p] == family}) == 1 for family in families.values())


def test_a_handful_of_prompts_still_has_all_three_splits():
    texts = make_texts(20)
    assert set(assign_splits(texts, find_families(texts, nothing), 0).values()) == {"train", "dev", "test"}
