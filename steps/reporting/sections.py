"""A section for each split and target: scores under every text rule, subsets, sizes, differences, failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steps.reporting.comparison import against_baseline, against_best
from steps.reporting.markdown import NONE, number, score_cell, shortened, table
from steps.reporting.runs import MEASURES, NAME_COLUMNS, Run, best, measures_of
from steps.scoring.failures import KINDS

WORST = 5  # utterances shown
CASINGS = {"cased": "cased", "lower": "lower-cased"}


def target_section(target: str, runs: Sequence[Run], baselines: Sequence[Path]) -> list[str]:
    """Everything about the runs of one split and target."""
    first = runs[0].scored
    language, judge = first.decoded.target_language, runs[0].judged_by
    parts = [f"### {f'Translation: X → {language}' if language else 'Recognition'}", _text_rules(runs)]
    parts += _score_tables(runs)
    for name in dict.fromkeys(name for run in runs for name in run.scored.score["subsets"]):
        parts += [f"**Subset {name}**", _subset_table(name, runs)]
    parts += ["**Sizes and errors**", _size_table(runs)]
    if comparison := against_best(judge, runs):
        parts += ["**Differences**", comparison]
    for baseline in (run for run in runs if run.folder in baselines):
        if comparison := against_baseline(judge, baseline, runs):
            parts += [f"**Against {baseline.system}**", comparison]
    return [*parts, "**Failures**", *_failures(runs)]


def casing_of(entry: dict) -> str:
    """The `--casing` that an entry of score.json was made with."""
    return "lower" if entry["text"]["casing"] == "lower" else "cased"


def _text_rules(runs: Sequence[Run]) -> str:
    """What was compared, and what was left out, once for all runs that agree in it."""
    return "\n".join(dict.fromkeys(_text_rule(run) for run in runs))


def _text_rule(run: Run) -> str:
    text, left_out = run.scored.score["text"], run.scored.score["not_scored"]
    applied = [f"casing {text['casing']}", f"punctuation {text['punctuation']}", f"Unicode {text['unicode']}"]
    references = f"casing {text['references']['casing']}, punctuation {text['references']['punctuation']}"
    sentence = f"References and hypotheses compared with {', '.join(applied)}; the references then have {references}."
    if count := left_out["same_language"]:
        sentence += f" {count} utterances already in {run.scored.decoded.target_language} are not scored."
    if count := left_out["without_reference"]:
        sentence += f" {count} utterances without a reference are not scored."
    return sentence


def _score_tables(runs: Sequence[Run]) -> list[str]:
    """A table a measure; those of further casings after them, where they differ."""
    casings = list(runs[0].scored.score["casings"])
    first = casing_of(runs[0].scored.score)
    measures = measures_of(runs[0])
    parts = []
    for measure in measures:
        named = f"{MEASURES[measure]}, {CASINGS[first]}" if casings else MEASURES[measure]
        parts += [f"**{named}**", _score_table(measure, runs, [run.scored.score for run in runs])]
    for casing in casings:
        entries = [run.scored.score["casings"][casing] for run in runs]
        same = []
        for measure in (measure for measure in measures if measure in entries[0]["all"]):
            if all(e["all"][measure] == run.scored.score["all"][measure] for e, run in zip(entries, runs, strict=True)):
                same.append(MEASURES[measure])
            else:
                parts += [f"**{MEASURES[measure]}, {CASINGS[casing]}**", _score_table(measure, runs, entries)]
        if same:
            parts.append(f"{CASINGS[casing].capitalize()}, the same: {', '.join(same)}.")
    return parts


def _score_table(measure: str, runs: Sequence[Run], entries: Sequence[dict]) -> str:
    languages = sorted({language for entry in entries for language in entry["languages"]})
    languages = languages if len(languages) > 1 else []
    rows = []
    for run, entry in zip(runs, entries, strict=True):
        cells = [score_cell(entry["languages"].get(language, {}).get(measure)) for language in languages]
        rows.append([*run.names, score_cell(entry["all"][measure]), *cells])
    return table([*NAME_COLUMNS, "all" if languages else MEASURES[measure], *languages], rows, 3)


def _subset_table(name: str, runs: Sequence[Run]) -> str:
    """The first two measures of all utterances, of those in the subset, and of the others."""
    measures = measures_of(runs[0])[:2]
    rows, sizes = [], set()
    for run in runs:
        score = run.scored.score
        groups = [score["all"], *(score["subsets"].get(name, {}).get(side, {}) for side in ("in", "out"))]
        sizes.add(tuple(number(group.get("utterances")) for group in groups))
        rows.append([*run.names, *(score_cell(group.get(measure)) for measure in measures for group in groups)])
    columns = [f"{MEASURES[measure]} {side}" for measure in measures for side in ("all", "in", "out")]
    counted = (f"{inside} of {total} utterances are in it, {out} are not" for total, inside, out in sorted(sizes))
    return f"{'; '.join(counted)}.\n\n{table([*NAME_COLUMNS, *columns], rows, 3)}"


def _size_table(runs: Sequence[Run]) -> str:
    errors = ["insertions", "deletions", "substitutions"] if "wer" in measures_of(runs[0]) else []
    headers = [*NAME_COLUMNS, "utterances", "words", *(e[:3] for e in errors), "length ratio"]
    rows = []
    for run in runs:
        everything = run.scored.score["all"]
        counts = [everything["utterances"], everything["reference_words"]]
        counts += [everything["wer"].get(error) for error in errors]
        rows.append([*run.names, *map(number, counts), number(everything["length_ratio"], ".3f")])
    return table(headers, rows, 3)


def _failures(runs: Sequence[Run]) -> list[str]:
    """Counts for every run, and the worst utterances of the best one."""
    rows = [[*run.names, *(number(run.scored.failures["counts"][kind]) for kind in KINDS)] for run in runs]
    limits = {number(run.scored.failures["limits"]["characters_per_second"], ".1f") for run in runs}
    headers = [*NAME_COLUMNS, "empty", "repetitions", "hallucinations", "copies of the source"]
    caption = f"Hallucinations are outputs of more than {' or '.join(sorted(limits))} characters per second."
    parts = [table(headers, rows, 3)]
    if limits != {NONE}:
        parts.insert(0, caption)
    if winner := best(runs, runs[0].judged_by):
        parts += [f"Worst outputs of {' '.join(winner.names)} (more in `failures.json`, all in `errors.txt`):"]
        parts.append(_worst(winner))
    return parts


def _worst(run: Run) -> str:
    rows, named = [], "score"
    for entry in run.scored.failures["worst"][:WORST]:
        named, score = next((MEASURES[key], entry[key]) for key in entry if key in MEASURES)
        texts = [" / ".join(entry["references"]), entry["hypothesis"] or NONE]
        rows.append([entry["id"], *map(shortened, texts), f"{score:.2f}"])
    return table(["utterance", "reference", "output", named], rows, 3)
