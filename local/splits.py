"""Train, dev and test by prompt family, for corpora in which the same few hundred texts come in several languages.

Prompts that share a group, a text, or most of their words in any language are one family, and a family is in one split:
so nothing that is scored was seen in training, neither as speech nor as a translation.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable

SHARES = {"test": 0.10, "dev": 0.08}  # of the text; the rest is train
NEAR = 0.6  # overlap of words from which two texts are near duplicates
STRATA = (2, 30)  # mean words a prompt: single words | sentences | menus


class _Sets:
    """Union-find over prompts."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, item: str) -> str:
        root = item
        while self.parent.setdefault(root, root) != root:
            root = self.parent[root]
        self.parent[item] = root
        return root

    def union(self, a: str, b: str) -> None:
        low, high = sorted((self.find(a), self.find(b)))
        self.parent[high] = low  # the alphabetically first prompt names the family


def overlap(a: Counter, b: Counter) -> float:
    """Words two texts have in common, as a part of the longer one: 1 for the same words, 0 for no word in common."""
    return sum((a & b).values()) / max(sum(a.values()), sum(b.values()), 1)


def find_families(texts: dict[str, dict[str, str]], group: Callable[[str], str | None]) -> dict[str, str]:
    """The family of each prompt; `texts[prompt][language]` is normalised text, a `group` is within one family."""
    sets = _Sets()
    same: dict[tuple, str] = {}
    bags: dict[str, list[tuple[str, Counter]]] = defaultdict(list)
    for prompt in sorted(texts):
        sets.find(prompt)
        if name := group(prompt):
            sets.union(prompt, same.setdefault(("group", name), prompt))
        for language, text in texts[prompt].items():
            if not text:
                continue
            sets.union(prompt, same.setdefault((language, text), prompt))
            if len(words := text.split()) > STRATA[0]:
                bags[language].append((prompt, Counter(words)))
    for language in sorted(bags):
        for index, (prompt, bag) in enumerate(bags[language]):
            for other, other_bag in bags[language][:index]:
                if sets.find(prompt) != sets.find(other) and overlap(bag, other_bag) >= NEAR:
                    sets.union(prompt, other)
    return {prompt: sets.find(prompt) for prompt in texts}


def assign_splits(texts: dict[str, dict[str, str]], families: dict[str, str], seed: int = 0) -> dict[str, str]:
    """The split of each prompt: by a hash of (seed, family), families fill test, then dev; the rest is train.

    Filled by characters of text (a stand-in for seconds that does not depend on the audio at hand), in strata of single
    words, sentences and menus, so that each split has its part of all three. The largest family is in train.
    """
    members = defaultdict(list)
    for prompt, family in families.items():
        members[family].append(prompt)
    weight = {family: sum(len(t) for p in prompts for t in texts[p].values()) for family, prompts in members.items()}
    largest = max(weight, key=lambda family: (weight[family], family))
    strata = defaultdict(list)
    for family, prompts in members.items():
        counts = [len(text.split()) for prompt in prompts for text in texts[prompt].values() if text]
        mean = sum(counts) / max(len(counts), 1)
        if counts and family != largest:
            strata[sum(mean > border for border in STRATA)].append(family)
    prompt_weight: Counter = Counter()
    for by_language in texts.values():
        counts = [len(text.split()) for text in by_language.values() if text]
        mean = sum(counts) / max(len(counts), 1)
        prompt_weight[sum(mean > border for border in STRATA)] += sum(map(len, by_language.values()))
    split = dict.fromkeys(members, "train")
    for stratum, candidates in strata.items():
        order = sorted(candidates, key=lambda family: hashlib.sha256(f"{seed}/{family}".encode()).hexdigest())
        for name, share in SHARES.items():
            room = share * prompt_weight[stratum]
            for family in order:
                if split[family] == "train" and weight[family] <= 2 * room:  # rather half a family too much than none
                    split[family] = name
                    room -= weight[family]
    return {prompt: split[family] for prompt, family in families.items()}
