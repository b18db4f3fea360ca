"""Words of a hypothesis with their times and confidences."""

from __future__ import annotations

import math
from itertools import pairwise

from steps.lang.tables import BOUNDARY, BYTE_BOUNDARY
from steps.lang.tokenizer import Tokenizer
from steps.lang.words import word_borders
from steps.search.hypothesis import Hypothesis

Word = tuple[str, float | None, float | None, float | None]


def timed_words(hypothesis: Hypothesis, tokenizer: Tokenizer, seconds_per_frame: float) -> list[Word]:
    """(word, start, end, confidence) of each word; seconds.

    A word begins with its first token (behind the mark `▁`) and ends a frame after its last was emitted; None where the
    search knows no frames (attention) or a lexicon's tokens do not tell where words begin. The confidence is the word's
    probability in the lattice where there is one, else the product of its tokens' probabilities: that none of them is
    wrong, were they independent.
    """
    spelled = [word for word in _spelled(hypothesis, tokenizer, seconds_per_frame) if word[0]]
    if hypothesis.words is None:
        return spelled
    scores = hypothesis.word_scores or [None] * len(hypothesis.words)
    rounded = [None if score is None else round(score, 4) for score in scores]
    if [word for word, *_ in spelled] == hypothesis.words:
        return [(*word[:3], score) for word, score in zip(spelled, rounded, strict=True)]
    return [(word, None, None, score) for word, score in zip(hypothesis.words, rounded, strict=True)]


def _spelled(hypothesis: Hypothesis, tokenizer: Tokenizer, seconds_per_frame: float) -> list[Word]:
    """The words that the tokens spell."""
    words, tokens = [], hypothesis.tokens
    for first, last in pairwise(word_borders(tokens, tokenizer) if tokens else []):
        confidence = round(min(1.0, math.exp(sum(hypothesis.token_scores[first:last]))), 4)
        text = tokenizer.decode(tokens[first:last])
        if first < last - 1 and tokenizer.token(tokens[first]) in (BOUNDARY, BYTE_BOUNDARY):
            first += 1
        times: list[float | None] = [None, None]
        if any(hypothesis.frames):
            frames = hypothesis.frames[first], hypothesis.frames[last - 1] + 1
            times = [round(frame * seconds_per_frame, 3) for frame in frames]
        words.append((text, *times, confidence))
    return words
