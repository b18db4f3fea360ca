"""Hypotheses with token times as subtitles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import pysubs2
from lhotse.supervision import AlignmentItem

from steps.lang.tokenizer import Tokenizer
from steps.lang.words import word_borders
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

        def text(first: int, last: int, tokens: list[int] = hypothesis.tokens) -> str:
            return tokenizer.decode(tokens[first:last])

        cues = list(_cues(word_borders(hypothesis.tokens, tokenizer), times, text))
        for number, (first, last) in enumerate(cues):
            until = times[cues[number + 1][0]] if number + 1 < len(cues) else end
            stop = min(times[last - 1] + LAST_TOKEN, until)
            if shown := text(first, last):
                file.append(pysubs2.SSAEvent(round(1000 * times[first]), round(1000 * stop), shown))
    return file.to_string(form)


def word_subtitles(words: Sequence[AlignmentItem], between: str, form: str) -> str:
    """Subtitles in `form` of words with their times; `between` stands between two of them."""
    file = pysubs2.SSAFile()

    def text(first: int, last: int) -> str:
        return between.join(word.symbol for word in words[first:last])

    for first, last in _cues(list(range(len(words) + 1)), [word.start for word in words], text):
        span = round(1000 * words[first].start), round(1000 * words[last - 1].end)
        file.append(pysubs2.SSAEvent(*span, text(first, last)))
    return file.to_string(form)


def _cues(borders: Sequence[int], times: Sequence[float], text: Callable[[int, int], str]) -> Iterator[tuple[int, int]]:
    """Ranges of tokens that begin at `times`, cut at the words' `borders` where there is a pause or the next word would
    not fit."""
    first = 0
    for begin, end in pairwise(borders):
        full = times[end - 1] - times[first] > LONGEST or len(text(first, end)) > WIDEST
        if begin > first and (full or times[begin] - times[begin - 1] > PAUSE):
            yield first, begin
            first = begin
    if times:
        yield first, len(times)
