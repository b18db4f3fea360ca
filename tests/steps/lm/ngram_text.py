"""A text of sentences that look a little like language: drawn from a chain whose words have few followers."""

from __future__ import annotations

import random

WORDS = ["the", "a", "cat", "dog", "bird", "sees", "hears", "chases", "old", "small"]
WORDS += ["green", "in", "on", "house", "tree", "and", "then", "quickly", "slowly", "sleeps"]


def sentences(count: int, seed: int = 0) -> list[list[str]]:
    """`count` sentences of 1 to 9 words; the same on every machine."""
    draw = random.Random(seed)
    followers = {word: draw.sample(WORDS, 6) for word in WORDS}
    found = []
    for _ in range(count):
        sentence = [draw.choice(WORDS[:8])]
        while len(sentence) < 9 and draw.random() < 0.8:
            sentence.append(draw.choice(followers[sentence[-1]][: draw.randint(1, 6)]))
        found.append(sentence)
    return found
