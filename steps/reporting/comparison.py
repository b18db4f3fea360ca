"""Differences between runs on the same utterances, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steps.reporting.markdown import NONE, table
from steps.reporting.runs import MEASURES, NAME_COLUMNS, Run, best
from steps.scoring.bootstrap import interval, paired_p_value


@dataclass(frozen=True)
class Difference:
    """A score less another's, its 95 % interval, and the two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def difference(measure: str, run: Run, other: Run) -> Difference | None:
    """`run` less `other`; None where they were not scored on the same utterances, or without intervals."""
    ours, theirs = (r.scored.replicates.get(measure) for r in (run, other))
    if ours is None or theirs is None or len(ours) != len(theirs) or not same_utterances(run, other):
        return None
    value = run.value(measure) - other.value(measure)
    return Difference(value, *interval(ours - theirs), paired_p_value(theirs, ours, value))


def same_utterances(run: Run, other: Run) -> bool:
    return run.scored.decoded.ids == other.scored.decoded.ids


def against_best(measure: str, runs: Sequence[Run]) -> str:
    """Every run against the best; an empty text where there is nothing to compare."""
    winner = best(runs, measure)
    return _against(winner, f"the best, {' '.join(winner.names)},", measure, runs) if winner else ""


def against_baseline(measure: str, baseline: Run, runs: Sequence[Run]) -> str:
    """Every run against a named one."""
    return _against(baseline, f"the baseline, {' '.join(baseline.names)},", measure, runs)


def _against(other: Run, called: str, measure: str, runs: Sequence[Run]) -> str:
    if measure not in other.scored.replicates:
        return ""
    rows, apart = [], []
    for run in runs:
        if run.folder == other.folder:
            continue
        if found := difference(measure, run, other):
            shown = [f"{found.value:+.2f}", f"{found.low:+.2f} … {found.high:+.2f}", f"{found.p:.3f}"]
        else:
            shown = [NONE] * 3
            apart += [] if same_utterances(run, other) else [" ".join(run.names)]
        rows.append([*run.names, *shown])
    if not rows:
        return ""
    name = MEASURES[measure]
    caption = f"{name} less that of {called} on the same utterances (paired bootstrap):"
    note = f"\n\nNot compared, because scored on other utterances: {'; '.join(apart)}." if apart else ""
    return f"{caption}\n\n{table([*NAME_COLUMNS, f'Δ {name}', '95 % interval', 'p'], rows, 3)}{note}"
