"""Scores as functions of summed per-utterance statistics: WER and CER (kaldialign), BLEU, chrF and TER (sacrebleu)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import kaldialign
import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from steps.scoring.hypotheses import Decoded
from steps.scoring.text import TextRules
from utils.errors import UserError

_POOL_FROM = 2000  # utterances; below, starting processes costs more than it saves
EPSILON = ""  # no word is empty, so it cannot collide with one as "*" could


@dataclass(frozen=True)
class Measure:
    """`score(sums)` of the column sums of `statistics` (utterances, k): percent, None where it is undefined."""

    name: str
    statistics: np.ndarray
    score: Callable[[Sequence[float]], float | None]
    counts: tuple[str, ...] = ()  # names of the columns that are worth reporting
    signature: str | None = None


def word_alignments(decoded: Decoded) -> list[list[tuple[str, str]]]:
    """(reference word, hypothesis word) pairs of each utterance, `EPSILON` for the missing side."""
    pairs = zip(decoded.single_references, decoded.hypotheses, strict=True)
    return [kaldialign.align(reference.split(), hypothesis.split(), EPSILON) for reference, hypothesis in pairs]


def _error_rate(sums: Sequence[float]) -> float | None:
    insertions, deletions, substitutions, reference = sums[:4]
    return 100 * (insertions + deletions + substitutions) / reference if reference else None


def error_measures(decoded: Decoded, alignments: Sequence[Sequence[tuple[str, str]]]) -> list[Measure]:
    """WER, and CER over characters without the spaces (as icefall has it)."""
    words = []
    for aligned, hypothesis in zip(alignments, decoded.hypotheses, strict=True):
        insertions = sum(reference == EPSILON for reference, _ in aligned)
        deletions = sum(found == EPSILON for _, found in aligned)
        wrong = sum(reference != found for reference, found in aligned)
        substitutions = wrong - insertions - deletions
        words.append((insertions, deletions, substitutions, len(aligned) - insertions, len(hypothesis.split())))
    characters = []
    for reference, hypothesis in zip(decoded.single_references, decoded.hypotheses, strict=True):
        found = hypothesis.replace(" ", "")
        edits = kaldialign.edit_distance(reference.replace(" ", ""), found)
        characters.append((edits["ins"], edits["del"], edits["sub"], edits["ref_len"], len(found)))
    counts = ("insertions", "deletions", "substitutions", "reference", "hypothesis")
    return [
        Measure("wer", np.array(words, dtype=np.float64), _error_rate, counts),
        Measure("cer", np.array(characters, dtype=np.float64), _error_rate, counts),
    ]


def _metrics(rules: TextRules, language: str) -> list[Metric]:
    try:
        bleu = BLEU(lowercase=rules.lowercase, trg_lang=language)
    except RuntimeError as error:
        raise UserError(f"sacrebleu cannot tokenize '{language}': {' '.join(str(error).split())}.") from None
    return [bleu, CHRF(lowercase=rules.lowercase), TER()]  # TER is caseless by default


def _statistics(job: tuple[list[str], list[tuple[str, ...]], TextRules, str]) -> list[list[list[float]]]:
    hypotheses, references, rules, language = job
    streams = list(zip_longest(*references))  # first, second ... reference of all; None where one has fewer
    # Metric's own steps: corpus_score would throw away what the bootstrap and the listing need.
    return [metric._extract_corpus_statistics(hypotheses, streams) for metric in _metrics(rules, language)]


def translation_measures(decoded: Decoded, rules: TextRules, replicates: int, seed: int) -> list[Measure]:
    """BLEU, chrF2 and TER over all references, with their signatures.

    sacrebleu's Python is slow, so large sets go over all cores.
    """
    language = decoded.target_language or ""
    size = len(decoded.ids)
    workers = min(os.cpu_count() or 1, 8) if size >= _POOL_FROM else 1
    step = -(-size // (4 * workers)) if workers > 1 else size
    jobs = [
        (decoded.hypotheses[start : start + step], decoded.references[start : start + step], rules, language)
        for start in range(0, size, step)
    ]
    if workers == 1:
        parts = [_statistics(job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_statistics, jobs))
    measures, counts = [], list(set(map(len, decoded.references)))
    for index, metric in enumerate(_metrics(rules, language)):
        statistics = np.array([row for part in parts for row in part[index]], dtype=np.float64)
        metric.num_refs = counts[0] if len(counts) == 1 else -1  # -1: it varies
        if replicates:
            metric.n_bootstrap, metric.seed = replicates, str(seed)
        measures.append(_measure(metric, statistics))
    return measures


def _measure(metric: Metric, statistics: np.ndarray) -> Measure:
    def score(sums: Sequence[float]) -> float:
        return metric._compute_score_from_stats(list(map(float, sums))).score

    return Measure(type(metric).__name__.lower(), statistics, score, signature=metric.get_signature().format())
