"""RESULTS.md: score, cost and provenance of decoding runs as Markdown, from their records alone (no clock, no git).

The same records give the same file, byte by byte; what a record lacks is printed as "–".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from steps.reporting.comparison import same_utterances
from steps.reporting.cost import cost_section, trainings
from steps.reporting.markdown import NONE, pairs
from steps.reporting.runs import MEASURES, Run, named_runs
from steps.reporting.sections import target_section
from steps.reporting.summary import check_selection, summary
from steps.scoring.evaluate import System
from steps.scoring.failures import COMPRESSION, COPIED, LOOPS
from utils.errors import UserError
from utils.files import write_text


@dataclass(frozen=True)
class Layout:
    """What a report shows beside the scores: `baselines` are decode folders that all others are compared with."""

    title: str = "Results"
    baselines: Sequence[Path] = ()
    select: str | None = None  # the split on which the runs of the summary are chosen


def write_report(path: str | Path, systems: Sequence[System], layout: Layout) -> None:
    """Write the report of `systems`, in an order that does not depend on theirs.

    Errors: `UserError` for a baseline that no other run can be compared with, and for an unknown split to select on.
    """
    runs = named_runs(systems)
    check_selection(runs, layout.select)
    _check_baselines(runs, layout.baselines)
    parts = [f"# {layout.title}", _introduction(runs), "## Summary"]
    for split in dict.fromkeys(run.split for run in runs):
        parts += summary(split, runs, layout.select)
    for split, of_split in groupby(runs, key=lambda run: run.split):
        parts.append(f"## {split}")
        for target, group in groupby(of_split, key=lambda run: run.target):
            parts += target_section(target, list(group), layout.baselines)
    parts += cost_section(runs)
    parts += ["## How these numbers were made", *_provenance(runs)]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def _check_baselines(runs: Sequence[Run], baselines: Sequence[Path]) -> None:
    for baseline in (run for run in runs if run.folder in baselines):
        peers = [run for run in runs if (run.split, run.target) == (baseline.split, baseline.target)]
        if not any(run is not baseline and same_utterances(run, baseline) for run in peers):
            raise UserError(
                f"--baseline {baseline.scored.decoded.folder}: no other run has its split ({baseline.split}), target "
                f"({baseline.target}) and utterances, so decode the same cuts with both."
            )


def _introduction(runs: Sequence[Run]) -> str:
    bootstraps = {(b["replicates"], b["seed"]) for b in (run.scored.score["bootstrap"] for run in runs)}
    (replicates, seed), *_ = sorted(bootstraps)
    spread = (
        f" ± is half of the 95 % interval of {replicates} bootstrap resamples over utterances (seed {seed}); p is of "
        "the difference to the best on the same utterances."
        if replicates
        else ""
    )
    comet = any("comet" in run.scored.score["all"] for run in runs)
    higher = "BLEU, chrF2 and COMET (times 100)" if comet else "BLEU and chrF2"
    return (
        f"All scores in percent; WER, CER and TER: lower is better, {higher}: higher is better. "
        f"CER counts characters without spaces.{spread} Written by `steps.score`; edits are lost with the next scoring."
    )


def _provenance(runs: Sequence[Run]) -> list[str]:
    """Commands, trainings first, grouped by what they ran on; then what exactly was measured."""
    groups: dict[str, list[dict]] = {}
    trained = [record for _, record in trainings(runs).values() if record]
    decoded = []
    for run in runs:
        before = [stage for stage in run.scored.decoded.stages if stage.get("command")]  # not itself, the last of them
        decoded += [*before, run.scored.decoded.about]
    for record in [*trained, *decoded]:
        groups.setdefault(_machine(record), []).append(record)
    parts = []
    for machine, records in groups.items():
        dates = sorted(str(record["date"]) for record in records if record.get("date"))
        when = " … ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else NONE
        commands = dict.fromkeys(str(record.get("command") or f"# {NONE}") for record in records)  # one may decode much
        parts += [f"{machine}\n- Date: {when}", "\n".join(["```bash", *commands, "```"])]
    return [*parts, *_signatures(runs), _failure_rules()]


def _signatures(runs: Sequence[Run]) -> list[str]:
    scores = [entry for run in runs for entry in (run.scored.score, *run.scored.score["casings"].values())]
    signatures = {
        f"- {MEASURES[name]}: `{signature}`": None
        for entry in scores
        for name, signature in entry["signatures"].items()
    }
    by_measure = sorted(signatures, key=lambda line: list(MEASURES.values()).index(line[2:].split(":")[0]))
    makers = "sacrebleu and COMET" if any("comet" in entry["signatures"] for entry in scores) else "sacrebleu"
    return [f"Signatures of {makers}:", "\n".join(by_measure)] if signatures else []


def _failure_rules() -> str:
    return (
        f"Failures: a repetition says the same words {LOOPS} times or more in a row, and more often than the reference "
        f"does, or compresses to less than 1/{COMPRESSION} of its size (zlib, Whisper's limit); a hallucination has "
        "more characters per second than the upper quartile of the split's references and three times their "
        "interquartile range (Tukey's outer fence), and more than its own reference, or has any where the reference is "
        f"empty; a copy has {COPIED:.0%} of its words or more from the source's transcript (as in Ott et al., 2018), "
        "without those that its reference has too. Case and punctuation do not count in repetitions and copies."
    )


def _machine(record: dict) -> str:
    commit = f"`{record['commit']}`" if record.get("commit") else NONE
    hardware, versions = pairs(record.get("hardware")), pairs(record.get("versions"))
    return f"- Commit: {commit}\n- Hardware: {hardware}\n- Versions: {versions}"
