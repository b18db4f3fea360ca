"""From a decode folder to its score.json, failures.json and errors.txt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from steps.scoring.bootstrap import interval, resampled_sums
from steps.scoring.comet import Comet
from steps.scoring.cost import Lineage, cost, lineage
from steps.scoring.failures import failure_listing, find_failures
from steps.scoring.hypotheses import Decoded, read_decoded
from steps.scoring.listing import error_listing, translation_listing
from steps.scoring.measures import Measure, error_measures, translation_measures, word_alignments
from steps.scoring.references import ReferenceFile
from steps.scoring.text import TextRules
from utils.files import write_json, write_text


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `replicates` bootstrap samples (0: none) drawn with `seed`."""

    replicates: int = 1000
    seed: int = 12345


@dataclass(frozen=True)
class Settings:
    """What all folders are scored with: under several text rules (the first one is what systems are compared by)."""

    rules: Sequence[TextRules] = (TextRules(),)
    resampling: Resampling = Resampling()
    references: Sequence[ReferenceFile] = ()
    comet: Comet | None = None


@dataclass(frozen=True)
class System:
    """A scored decoding run: its score.json and failures.json, its models, replicates (replicates,) by measure."""

    decoded: Decoded
    score: dict
    failures: dict
    lineage: Lineage = field(default_factory=Lineage)
    replicates: dict[str, np.ndarray] = field(default_factory=dict)


def score_group(measures: Sequence[Measure], mask: np.ndarray, resampling: Resampling) -> tuple[dict, dict]:
    """Scores of the utterances where `mask` (utterances,), and each measure's replicates (replicates,) by its name."""
    statistics = np.hstack([measure.statistics[mask] for measure in measures])  # resampled together: paired
    sums = statistics.sum(axis=0)
    drawn = resampled_sums(statistics, resampling.replicates, resampling.seed) if resampling.replicates else None
    scores, replicates, start = {}, {}, 0
    for measure in measures:
        columns = slice(start, start := start + measure.statistics.shape[1])
        value = measure.score(sums[columns])
        scores[measure.name] = entry = {"value": _rounded(value)}
        if drawn is not None and value is not None:
            defined = [score for row in drawn[:, columns] if (score := measure.score(row)) is not None]
            replicates[measure.name] = np.array(defined)
            entry["low"], entry["high"] = map(_rounded, interval(replicates[measure.name]))
        entry.update(zip(measure.counts, map(int, sums[columns]), strict=False))
    return scores, replicates


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _sizes(decoded: Decoded, mask: np.ndarray) -> dict:
    """Counts of words, of the reference that is closest in length where there are several (as BLEU has it)."""
    hypotheses = [len(text.split()) for text, kept in zip(decoded.hypotheses, mask, strict=True) if kept]
    kept = [[len(text.split()) for text in texts] for texts, kept in zip(decoded.references, mask, strict=True) if kept]
    pairs = zip(kept, hypotheses, strict=True)
    references = [min(lengths, key=lambda words: (abs(words - found), words)) for lengths, found in pairs]
    words = sum(references)
    return {
        "utterances": len(references),
        "reference_words": words,
        "hypothesis_words": sum(hypotheses),
        "length_ratio": _rounded(sum(hypotheses) / words) if words else None,
        "empty_hypotheses": hypotheses.count(0),
        "empty_references": references.count(0),
    }


@dataclass(frozen=True)
class _Scored:
    """A run under one text rule."""

    decoded: Decoded
    measures: list[Measure]
    listing: list[str]
    entry: dict  # of score.json
    replicates: dict[str, np.ndarray]


def _score_under(rules: TextRules, raw: Decoded, settings: Settings, comet: Comet | None) -> _Scored:
    decoded, resampling = raw.under(rules), settings.resampling
    if decoded.target_language is None:
        alignments = word_alignments(decoded)
        measures = error_measures(decoded, alignments)
        listing = error_listing(decoded, alignments, measures[0])
    else:
        measures = translation_measures(decoded, rules, resampling.replicates, resampling.seed)
        listing = translation_listing(decoded, measures[1])
        if comet is not None:
            measures.append(comet.measure(raw, resampling.replicates, resampling.seed))
    everything = np.ones(len(decoded.ids), dtype=bool)
    scores, replicates = score_group(measures, everything, resampling)

    def group(mask: np.ndarray) -> dict:
        """An entry for a part of the utterances; of an empty part only its size."""
        return {**_sizes(decoded, mask), **(score_group(measures, mask, resampling)[0] if mask.any() else {})}

    languages = np.array(decoded.languages)
    entry = {
        "text": rules.describe([text for texts in decoded.references for text in texts]),
        "signatures": {measure.name: measure.signature for measure in measures if measure.signature},
        "all": {**_sizes(decoded, everything), **scores},
        "languages": {str(language): group(languages == language) for language in np.unique(languages)},
        "subsets": {name: {"in": group(mask), "out": group(~mask)} for name, mask in decoded.subsets.items()},
    }
    return _Scored(decoded, measures, list(listing), entry, replicates)


def whole_scores(decoded: Decoded, rules: TextRules) -> dict[str, float | None]:
    """The scores of all utterances under `rules` by the measures' names, without intervals."""
    decoded = decoded.under(rules)
    if decoded.target_language is None:
        measures = error_measures(decoded, word_alignments(decoded))
    else:
        measures = translation_measures(decoded, rules, 0, 0)
    scores, _ = score_group(measures, np.ones(len(decoded.ids), dtype=bool), Resampling(replicates=0))
    return {name: entry["value"] for name, entry in scores.items()}


def score_folder(folder: str | Path, settings: Settings) -> System:
    """Score one decode folder and write its score.json, failures.json and errors.txt."""
    raw = read_decoded(folder, settings.references)
    first, *others = (
        _score_under(rules, raw, settings, settings.comet if number == 0 else None)  # it reads the texts as they are
        for number, rules in enumerate(settings.rules)
    )
    family, recognition = lineage(raw), raw.target_language is None
    resampling = settings.resampling
    result = {
        "target": raw.target,
        "text": first.entry["text"],
        "characters": "without spaces",
        "bootstrap": {"replicates": resampling.replicates, "seed": resampling.seed, "level": 0.95},
        "not_scored": {"without_reference": raw.without_reference, "same_language": raw.same_language},
        **first.entry,
        "casings": {rules.casing: scored.entry for rules, scored in zip(settings.rules[1:], others, strict=True)},
        "cost": cost(raw, family),
    }
    judge = first.measures[0 if recognition else 1]
    failures = find_failures(raw.under(TextRules()), judge, lower_is_better=recognition)
    write_json(raw.folder / "score.json", result)
    write_json(raw.folder / "failures.json", failures)
    write_text(raw.folder / "errors.txt", "".join(f"{line}\n" for line in [*first.listing, *failure_listing(failures)]))
    return System(first.decoded, result, failures, family, first.replicates)
