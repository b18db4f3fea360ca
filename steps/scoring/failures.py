"""Outputs that no score shows well: nothing at all, loops, more than was said, the source instead of a translation.

Each utterance is judged on its texts as they are; loops and copies without case and punctuation.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from steps.scoring.hypotheses import Decoded
from steps.scoring.measures import Measure
from steps.scoring.text import TextRules

KINDS = ("empty", "repetition", "hallucination", "copy")
LOOPS = 3  # the same words so often, one after the other
COMPRESSION = 2.4  # Whisper's limit (Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022)
COPIED = 0.5  # of the words (Ott et al., Analyzing Uncertainty in Neural Machine Translation, ICML 2018)
LEAST_DURATIONS = 20  # references with a duration; fewer say nothing about how fast people speak
WORST = 10  # utterances named
UNSPACED = {"bo", "ja", "km", "lo", "my", "th", "yue", "zh"}  # no spaces between words: characters are compared

_plain = TextRules(lowercase=True, remove_punctuation=True)


def _words(text: str, language: str) -> list[str]:
    plain = _plain(text)
    return list(plain.replace(" ", "")) if re.split("[-_]", language)[0] in UNSPACED else plain.split()


def longest_loop(words: Sequence[str]) -> tuple[int, list[str]]:
    """How often a run of words follows itself without a break, at the most, and that run (the shortest such).

    (1, []) where nothing is said twice in a row; ("no no no way") gives (3, ["no"]).
    """
    times, unit = 1, []
    for period in range(1, len(words) // 2 + 1):
        matching = 0
        for place in range(period, len(words)):
            matching = matching + 1 if words[place] == words[place - period] else 0
            if matching // period + 1 > times:
                times, unit = matching // period + 1, list(words[place - period + 1 : place + 1])
    return times, unit


def compression_ratio(text: str) -> float:
    """Bytes of `text` over those of its zlib compression, as Whisper measures it; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def copied(words: Sequence[str], source: Sequence[str], reference: Sequence[str]) -> float:
    """The share of `words`, without numbers, that are in `source` and not in `reference` (each as often as there)."""
    counts = Counter(word for word in words if not word.isnumeric())
    return ((counts & Counter(source)) - Counter(reference)).total() / counts.total() if counts else 0.0


def fastest_speech(decoded: Decoded) -> float | None:
    """Characters per second that the references leave plausible: their upper quartile and three times their
    interquartile range (Tukey's outer fence, Exploratory Data Analysis, 1977), None of too few with a duration."""
    known = zip(decoded.references, decoded.durations, strict=True)
    rates = [max(map(len, texts)) / seconds for texts, seconds in known if seconds and any(texts)]
    if len(rates) < LEAST_DURATIONS:
        return None
    lower, upper = np.quantile(rates, [0.25, 0.75])
    return float(upper + 3 * (upper - lower))


def find_failures(decoded: Decoded, judge: Measure, lower_is_better: bool) -> dict:
    """`failures.json`: limits, counts (None where nothing could be judged), the utterances, and the worst by `judge`.

    Args:
      decoded: the run, its texts as they are.
      judge: a measure whose score of an utterance's statistics says how good it is.
    """
    limit = fastest_speech(decoded)
    found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for index, name in enumerate(decoded.ids):
        for kind, why in _judged(decoded, index, limit):
            found[kind].append({"id": name, **why, **_texts(decoded, index)})
    judged = dict.fromkeys(KINDS, True)
    judged["hallucination"] = limit is not None or bool(found["hallucination"])
    judged["copy"] = decoded.target_language is not None and any(decoded.sources)
    return {
        "utterances": len(decoded.ids),
        "limits": {
            "loops": LOOPS,
            "compression_ratio": COMPRESSION,
            "characters_per_second": None if limit is None else round(limit, 2),
            "copied_words": COPIED,
        },
        "counts": {kind: len(found[kind]) if judged[kind] else None for kind in KINDS},
        **found,
        "worst": list(_worst(decoded, judge, lower_is_better)),
    }


def _texts(decoded: Decoded, index: int) -> dict:
    return {"references": list(decoded.references[index]), "hypothesis": decoded.hypotheses[index]}


def _judged(decoded: Decoded, index: int, limit: float | None) -> Iterator[tuple[str, dict]]:
    """Kinds of failure of one utterance, with what was found."""
    hypothesis, references = decoded.hypotheses[index], decoded.references[index]
    source, seconds = decoded.sources[index], decoded.durations[index]
    if not hypothesis.strip():
        yield "empty", {}
        return
    language = decoded.target_language or decoded.languages[index]
    if loop := _loop(hypothesis, references, language):
        yield "repetition", loop
    rate = len(hypothesis) / seconds if seconds else None
    if not any(text.strip() for text in references):
        yield "hallucination", {"characters_where_nothing_is_said": len(hypothesis)}
    elif limit is not None and rate is not None and rate > limit and len(hypothesis) > max(map(len, references)):
        yield "hallucination", {"characters_per_second": round(rate, 2)}
    if decoded.target_language is not None and source:
        said, output = _words(source, decoded.languages[index]), _words(hypothesis, language)
        if (share := min(copied(output, said, _words(text, language)) for text in references)) >= COPIED:
            yield "copy", {"copied": round(share, 4), "source": source}


def _loop(hypothesis: str, references: Sequence[str], language: str) -> dict:
    """What is repeated more than in every reference: a run of words, or text that packs as only repeated text does."""
    times, unit = longest_loop(_words(hypothesis, language))
    if times >= LOOPS and times > max(longest_loop(_words(text, language))[0] for text in references):
        return {"repeated": " ".join(unit), "times": times}
    ratio = compression_ratio(hypothesis)
    if ratio > COMPRESSION and ratio > max(map(compression_ratio, references)):
        return {"compression_ratio": round(ratio, 2)}
    return {}


def _worst(decoded: Decoded, judge: Measure, lower_is_better: bool) -> Iterator[dict]:
    """The lowest in quality, of equals the longest."""
    scores = [judge.score(row) for row in judge.statistics]
    sign = -1 if lower_is_better else 1
    known = [index for index, score in enumerate(scores) if score is not None]
    size = [max(map(len, references)) for references in decoded.references]
    for index in sorted(known, key=lambda i: (sign * scores[i], -size[i], decoded.ids[i]))[:WORST]:
        yield {"id": decoded.ids[index], judge.name: round(scores[index], 2), **_texts(decoded, index)}


def failure_listing(failures: dict) -> Iterator[str]:
    """The section of errors.txt."""
    counts = ", ".join(f"{'–' if n is None else n} {kind}" for kind, n in failures["counts"].items())
    yield from ("", f"FAILURES: {counts}")
    for kind in KINDS:
        for entry in failures[kind]:
            why = ", ".join(f"{key} {entry[key]}" for key in entry if key not in ("id", "references", "hypothesis"))
            yield f"\n{kind} {entry['id']}{f' ({why})' if why else ''}"
            yield from (f"ref: {reference}" for reference in entry["references"])
            yield f"hyp: {entry['hypothesis']}"
