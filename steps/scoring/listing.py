"""errors.txt: aligned utterances with the worst first and counts by word, as Kaldi and icefall users know them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from steps.scoring.hypotheses import Decoded
from steps.scoring.measures import EPSILON, Measure

Alignment = Sequence[tuple[str, str]]


def marked(alignment: Alignment) -> str:
    """`a (b c->d) (e->*)`: what is right as it is, a run of errors as (reference->hypothesis), * for nothing."""
    parts: list[str] = []
    reference: list[str] = []
    hypothesis: list[str] = []

    def close() -> None:
        if reference or hypothesis:
            parts.append(f"({' '.join(reference) or '*'}->{' '.join(hypothesis) or '*'})")
            reference.clear(), hypothesis.clear()

    for expected, found in alignment:
        if expected == found:
            close()
            parts.append(expected)
        else:
            reference.extend([expected] if expected != EPSILON else [])
            hypothesis.extend([found] if found != EPSILON else [])
    close()
    return " ".join(parts)


def error_listing(decoded: Decoded, alignments: Sequence[Alignment], wer: Measure) -> Iterator[str]:
    """Lines of errors.txt for recognition."""
    insertions, deletions, substitutions, words = (int(count) for count in wer.statistics.sum(axis=0)[:4])
    errors = insertions + deletions + substitutions
    rate = f"{100 * errors / words:.2f}" if words else "–"
    yield f"%WER {rate} [ {errors} / {words}, {insertions} ins, {deletions} del, {substitutions} sub ]"
    correct = words - deletions - substitutions
    yield (
        f"Errors: {insertions} insertions, {deletions} deletions, {substitutions} substitutions, "
        f"over {words} reference words ({correct} correct)"
    )
    sections = "PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, INSERTIONS:, PER-WORD STATS:"
    yield f"Search below for sections starting with {sections}"
    yield from ("", "PER-UTT DETAILS: corr or (ref->hyp), worst first")
    wrong = wer.statistics[:, :3].sum(axis=1)
    worst = sorted(range(len(alignments)), key=lambda i: (-wrong[i] / max(wer.statistics[i, 3], 1), decoded.ids[i]))
    for index in worst:
        yield f"{decoded.ids[index]}:\t{marked(alignments[index])}"
    yield from _counts(alignments)


def _counts(alignments: Sequence[Alignment]) -> Iterator[str]:
    pairs = Counter(pair for alignment in alignments for pair in alignment)
    substituted = {p: n for p, n in pairs.items() if p[0] != p[1] and EPSILON not in p}
    deleted = {expected: n for (expected, found), n in pairs.items() if found == EPSILON}
    inserted = {found: n for (expected, found), n in pairs.items() if expected == EPSILON}
    yield from ("", "SUBSTITUTIONS: count ref -> hyp")
    yield from (f"{n}\t{expected} -> {found}" for (expected, found), n in _most(substituted))
    yield from ("", "DELETIONS: count ref")
    yield from (f"{n}\t{word}" for word, n in _most(deleted))
    yield from ("", "INSERTIONS: count hyp")
    yield from (f"{n}\t{word}" for word, n in _most(inserted))
    words: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])  # correct, errors, in reference, in hypothesis
    for (expected, found), count in pairs.items():
        for word, column in ((expected, 2), (found, 3)):
            if word != EPSILON:
                words[word][0 if expected == found else 1] += count if expected != found or column == 2 else 0
                words[word][column] += count
    yield from ("", "PER-WORD STATS: word corr tot_errs count_in_ref count_in_hyp")
    for word, counts in sorted(words.items(), key=lambda item: (-item[1][1], item[0])):
        yield f"{word}\t" + " ".join(map(str, counts))


def _most(counts: dict) -> list[tuple]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def translation_listing(decoded: Decoded, chrf: Measure) -> Iterator[str]:
    """Lines of errors.txt for translation: reference above hypothesis, the lowest sentence chrF first."""
    yield f"%chrF {chrf.score(chrf.statistics.sum(axis=0)):.2f} over {len(decoded.ids)} utterances, worst first"
    scores = [chrf.score(row) for row in chrf.statistics]
    for index in sorted(range(len(scores)), key=lambda i: (scores[i], decoded.ids[i])):
        yield f"\n{decoded.ids[index]} [{decoded.languages[index]}] chrF {scores[index]:.2f}"
        yield from (f"ref: {reference}" for reference in decoded.references[index])
        yield f"hyp: {decoded.hypotheses[index]}"
