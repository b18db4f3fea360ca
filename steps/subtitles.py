"""Hypotheses with token times as subtitles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pysubs2

from steps.lang.tables import BOUNDARY, BYTE_BOUNDARY
from steps.lang.tokenizer import Tokenizer
from steps.search.hypothesis import Hypothesis

PAUSE = 0.8  # seconds without a token that end a cue
LONGEST = 5.0  # seconds of a cue
WIDEST = 84  # characters of a cue: two lines
LAST_TOKEN = 0.5  # seconds that a cue stays after its last token began


def subtitles(
    pieces: Iterable[tuple[float, float, Hypothesis]], tokenizer: Tokenizer, seconds_per_frame: float, form: str
) -> str:
    """Subtitles in `form` ("srt" or "vtt") of pieces (start in seconds, end in seconds, hypothesis)."""
    file = pysubs2.SSAFile()
    for start, end, hypothesis in pieces:
        times = [start + frame * seconds_per_frame for frame in hypothesis.frames]
        if not any(hypothesis.frames):  # attention knows no times: spread evenly
            times = [start + (end - start) * place / len(times) for place in range(len(times))]
        cues = list(_cues(hypothesis.tokens, times, tokenizer))
        for number, (first, last) in enumerate(cues):
            until = times[cues[number + 1][0]] if number + 1 < len(cues) else end
            stop = min(times[last - 1] + LAST_TOKEN, until)
            text = tokenizer.decode(hypothesis.tokens[first:last])
            if text:
                file.append(pysubs2.SSAEvent(round(1000 * times[first]), round(1000 * stop), text))
    return file.to_string(form)


def _cues(tokens: list[int], times: list[float], tokenizer: Tokenizer) -> Iterator[tuple[int, int]]:
    """Ranges of tokens, cut between words at a pause or where the next word would not fit."""
    first = 0
    for begin, end in pairwise(_word_borders(tokens, tokenizer)):
        full = times[end - 1] - times[first] > LONGEST or len(tokenizer.decode(tokens[first:end])) > WIDEST
        if begin > first and (full or times[begin] - times[begin - 1] > PAUSE):
            yield first, begin
            first = begin
    if tokens:
        yield first, len(tokens)


def _word_borders(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """Where words begin, and the end; each token is a word where words are not marked (Chinese)."""
    starts = [i for i, token in enumerate(tokens) if tokenizer.token(token).startswith((BOUNDARY, BYTE_BOUNDARY))]
    starts = starts or list(range(len(tokens)))
    return [0, *(i for i in starts if i > 0), len(tokens)]
