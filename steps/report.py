"""RESULTS.md: score, cost and provenance of decoding runs as Markdown, from their records alone (no clock, no git).

The same records give the same file, byte by byte; what a record lacks is printed as "–".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from steps.scoring.bootstrap import interval, paired_p_value
from steps.scoring.hypotheses import Decoded
from utils.files import write_text

NONE = "–"
SPLITS = ("dev", "test")  # first, in this order; others follow alphabetically
MEASURES = {"wer": "WER", "cer": "CER", "bleu": "BLEU", "chrf": "chrF2", "ter": "TER"}
HIGHER_IS_BETTER = {"bleu", "chrf"}
NAME_COLUMNS = ["model", "head", "method"]


@dataclass(frozen=True)
class System:
    """A scored decoding run: its score.json, the model's train.json, replicates (replicates,) by measure."""

    decoded: Decoded
    score: dict
    training: dict = field(default_factory=dict)
    replicates: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Model, head and method (with its beam), as the tables show them."""
        method = self.decoded.name("method").replace("_", " ")
        options = self.decoded.about.get("options")
        beam = options.get("beam") if isinstance(options, dict) else None
        named = beam is not None and "greedy" not in method
        return [self.decoded.name("model"), self.decoded.name("head"), f"{method} ({beam})" if named else method]


def write_report(path: str | Path, systems: Sequence[System], title: str = "Results") -> None:
    """Write the report of `systems`, in an order that does not depend on theirs."""
    ordered = sorted(systems, key=_place)
    parts = [f"# {title}", _introduction(ordered)]
    for split, of_split in groupby(ordered, key=lambda system: system.decoded.name("split")):
        parts.append(f"## {split}")
        for target, group in groupby(of_split, key=lambda system: system.decoded.target):
            parts += _target_section(target, list(group))
    parts += ["## Cost", *_training_tables(ordered), *_decoding_table(ordered)]
    parts += ["## How these numbers were made", *_provenance(ordered)]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def _place(system: System) -> tuple:
    split, target = system.decoded.name("split"), system.decoded.target
    rank = SPLITS.index(split) if split in SPLITS else len(SPLITS)
    names = [_natural(name) for name in system.names]
    greedy_first = "greedy" not in system.names[2]
    folder = str(system.decoded.folder)
    return rank, split, target != "text", target, names[0], names[1], greedy_first, names[2], folder


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which beam 10 comes after beam 4."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first `left` columns are words and whose other columns are numbers."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    align = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(cells, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def number(value: Any, form: str = ",.0f") -> str:
    """`value` in `form`, or "–" where it is missing or no number."""
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else NONE


def _introduction(systems: Sequence[System]) -> str:
    bootstraps = {(s.score["bootstrap"]["replicates"], s.score["bootstrap"]["seed"]) for s in systems}
    (replicates, seed), *_ = sorted(bootstraps)
    spread = (
        f" ± is half of the 95 % interval of {replicates} bootstrap resamples over utterances (seed {seed})."
        if replicates
        else ""
    )
    return (
        "All scores in percent; WER, CER and TER: lower is better, BLEU and chrF2: higher is better. "
        f"CER counts characters without spaces.{spread} Written by `steps.score`; edits are lost with the next scoring."
    )


def _target_section(target: str, systems: list[System]) -> list[str]:
    measures = [name for name in MEASURES if name in systems[0].score["all"]]
    language = systems[0].decoded.target_language
    what = f"Translation: X → {language}" if language else "Recognition"
    parts = [f"### {what}", _text_rules(systems)]
    for measure in measures:
        parts += [f"**{MEASURES[measure]}**", _score_table(measure, systems)]
    parts += ["**Sizes and errors**", _size_table(measures, systems)]
    if comparison := _comparison(measures[0], systems):
        parts += ["**Differences**", comparison]
    return parts


def _text_rules(systems: Sequence[System]) -> str:
    """What was compared, and what was left out, once for all systems that agree in it."""
    return "\n".join(dict.fromkeys(_text_rule(system) for system in systems))


def _text_rule(system: System) -> str:
    text, left_out = system.score["text"], system.score["not_scored"]
    applied = [f"casing {text['casing']}", f"punctuation {text['punctuation']}", f"Unicode {text['unicode']}"]
    references = f"casing {text['references']['casing']}, punctuation {text['references']['punctuation']}"
    sentence = f"References and hypotheses compared with {', '.join(applied)}; the references then have {references}."
    if count := left_out["same_language"]:
        sentence += f" {count} utterances already in {system.decoded.target_language} are not scored."
    if count := left_out["without_reference"]:
        sentence += f" {count} utterances without a reference are not scored."
    return sentence


def score_cell(entry: dict | None) -> str:
    """`45.23 ± 1.20` of an entry of score.json."""
    if not entry or entry.get("value") is None:
        return NONE
    shown = f"{entry['value']:.2f}"
    return f"{shown} ± {(entry['high'] - entry['low']) / 2:.2f}" if "low" in entry else shown


def _score_table(measure: str, systems: Sequence[System]) -> str:
    languages = sorted({language for system in systems for language in system.score["languages"]})
    languages = languages if len(languages) > 1 else []
    rows = []
    for system in systems:
        by_language = [system.score["languages"].get(language, {}).get(measure) for language in languages]
        cells = [score_cell(entry) for entry in by_language]
        rows.append([*system.names, score_cell(system.score["all"][measure]), *cells])
    return table([*NAME_COLUMNS, "all" if languages else MEASURES[measure], *languages], rows, 3)


def _size_table(measures: Sequence[str], systems: Sequence[System]) -> str:
    errors = ["insertions", "deletions", "substitutions"] if "wer" in measures else []
    headers = [*NAME_COLUMNS, "utterances", "words", *(e[:3] for e in errors), "length ratio", "empty outputs"]
    rows = []
    for system in systems:
        everything = system.score["all"]
        counts = [everything["utterances"], everything["reference_words"]]
        counts += [everything["wer"].get(error) for error in errors]
        ratio = number(everything["length_ratio"], ".3f")
        rows.append([*system.names, *map(number, counts), ratio, number(everything["empty_hypotheses"])])
    return table(headers, rows, 3)


def _comparison(measure: str, systems: Sequence[System]) -> str:
    """Every system against the best on the same utterances, by paired bootstrap."""
    known = [s for s in systems if measure in s.replicates and s.score["all"][measure]["value"] is not None]
    sign = -1 if measure in HIGHER_IS_BETTER else 1
    if len(known) < 2:
        return ""
    best = min(known, key=lambda system: sign * system.score["all"][measure]["value"])
    rows = []
    for system in known:
        ours, other = best.replicates[measure], system.replicates[measure]
        if system is best or system.decoded.ids != best.decoded.ids or len(ours) != len(other):
            continue
        difference = system.score["all"][measure]["value"] - best.score["all"][measure]["value"]
        low, high = interval(other - ours)
        p = paired_p_value(ours, other, difference)
        rows.append([*system.names, f"{difference:+.2f}", f"{low:+.2f} … {high:+.2f}", f"{p:.3f}"])
    if not rows:
        return ""
    name = MEASURES[measure]
    caption = f"{name} less that of the best, {' '.join(best.names)}, on the same utterances (paired bootstrap):"
    return f"{caption}\n\n{table([*NAME_COLUMNS, f'Δ {name}', '95 % interval', 'p'], rows, 3)}"


def _models(systems: Sequence[System]) -> list[tuple[str, System]]:
    """One system per model folder, by model name."""
    models: dict[Path, System] = {}
    for system in systems:
        models.setdefault(system.decoded.folder.resolve().parent.parent, system)
    found = [(system.names[0], system) for system in models.values()]
    return sorted(found, key=lambda pair: (_natural(pair[0]), str(pair[1].decoded.folder)))


def _training_tables(systems: Sequence[System]) -> list[str]:
    costs, losses, conditions = [], [], []
    for model, record in ((model, system.training) for model, system in _models(systems)):
        millions = [number(_scaled(record.get(key), 1e-6), ",.2f") for key in ("parameters", "parameters_trained")]
        hours = [number(record.get(key), ",.2f") for key in ("data_hours", "speech_hours_seen")]
        rest = [number(record.get(key)) for key in ("epochs", "steps", "seconds", "peak_memory_mb")]
        costs.append([model, *millions, *hours, *rest])
        counts = [number(record.get(key)) for key in ("processes", "dropped_utterances", "skipped_steps")]
        conditions.append([model, str(record.get("precision") or NONE), *counts])
        losses += [[model, *row] for row in _losses(record)]
    units = ["parameters (M)", "trained (M)", "data (h)", "seen (h)", "epochs", "steps", "time (s)", "memory (MB)"]
    return [
        "**Training**",
        table(["model", *units], costs, 1),
        table(["model", "precision", "processes", "utterances dropped", "steps skipped"], conditions, 2),
        "**Losses** (nats per encoder frame)",
        table(["model", "loss", "computed by", "training", "validation"], losses, 3),
    ]


def _losses(record: dict) -> list[list[str]]:
    """Name, backend, last training and validation value of each loss; a row of dashes if there is none."""
    backends, final, valid = (
        value if isinstance(value := record.get(key), dict) else {} for key in ("backends", "final", "valid")
    )
    return [
        [name, str(backends.get(name) or NONE), number(final.get(name), ".4f"), number(valid.get(name), ".4f")]
        for name in dict.fromkeys([*final, *valid, *backends])
    ] or [[NONE] * 4]


def _scaled(value: Any, factor: float) -> Any:
    return value * factor if isinstance(value, int | float) else value


def _decoding_table(systems: Sequence[System]) -> list[str]:
    rows = []
    for system in systems:
        about = system.decoded.about
        numbers = [number(about.get("audio_seconds"), ",.1f"), number(about.get("seconds"), ",.1f")]
        numbers.append(number(about.get("rtf"), ".4f"))
        checkpoint = Path(str(about["checkpoint"])).name if about.get("checkpoint") else NONE
        rows.append([system.decoded.name("split"), *system.names, checkpoint, *numbers])
    headers = ["split", *NAME_COLUMNS, "checkpoint", "audio (s)", "time (s)", "real-time factor"]
    return ["**Decoding**", table(headers, rows, 5)]


def _pairs(mapping: Any) -> str:
    if not isinstance(mapping, dict) or not mapping:
        return str(mapping) if mapping else NONE
    return ", ".join(f"{key} {NONE if value is None else value}" for key, value in mapping.items())


def _provenance(systems: Sequence[System]) -> list[str]:
    """Commands, trainings first, grouped by what they ran on."""
    trainings = [system.training for _, system in _models(systems) if system.training]
    groups: dict[str, list[dict]] = {}
    for record in [*trainings, *(system.decoded.about for system in systems)]:
        groups.setdefault(_machine(record), []).append(record)
    parts = []
    for machine, records in groups.items():
        dates = sorted(str(record["date"]) for record in records if record.get("date"))
        when = " … ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else NONE
        commands = dict.fromkeys(str(record.get("command") or f"# {NONE}") for record in records)  # one may decode much
        parts += [f"{machine}\n- Date: {when}", "\n".join(["```bash", *commands, "```"])]
    signatures = {
        f"- {MEASURES[name]}: `{signature}`": None
        for system in systems
        for name, signature in system.score["signatures"].items()
    }
    return [*parts, *(["Signatures of sacrebleu:", "\n".join(signatures)] if signatures else [])]


def _machine(record: dict) -> str:
    commit = f"`{record['commit']}`" if record.get("commit") else NONE
    hardware, versions = _pairs(record.get("hardware")), _pairs(record.get("versions"))
    return f"- Commit: {commit}\n- Hardware: {hardware}\n- Versions: {versions}"
