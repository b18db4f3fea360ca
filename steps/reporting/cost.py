"""What systems cost: one row a system, then how the models were trained and how long decoding took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steps.reporting.markdown import NONE, number, scaled, table
from steps.reporting.runs import NAME_COLUMNS, Run, home, method_names, natural


def cost_section(runs: Sequence[Run]) -> list[str]:
    """The ledger, and its details."""
    return ["## Cost", *_ledger(runs), *_training_tables(runs), "**Decoding**", _decoding_table(runs)]


def _ledger(runs: Sequence[Run]) -> list[str]:
    rows, notes = [], []
    for system, own in _by_system(runs).items():
        spent = own[0].scored.score["cost"]
        millions = [number(scaled(spent[key], 1e-6), ",.2f") for key in ("parameters", "parameters_trained")]
        hours = [number(spent[key], ",.2f") for key in ("training_hours", "training_hours_with_init")]
        speeds = sorted({run.scored.score["cost"]["rtf"] for run in own} - {None})
        rtf = " … ".join(dict.fromkeys(number(speed, ".4f") for speed in (speeds[:1] + speeds[-1:]))) or NONE
        machine = " + ".join(spent["hardware"]) or NONE
        decoding = max({run.scored.score["cost"]["decoding_memory_mb"] for run in own} - {None}, default=None)
        memory = [number(spent["training_memory_mb"]), number(decoding)]
        rows.append([system, machine, *millions, *hours, *memory, rtf])
        if spent["not_counted"]:
            notes.append(f"Not counted in the training of {system}: {', '.join(spent['not_counted'])}.")
    headers = ["system", "trained on", "parameters (M)", "trained (M)", "training (h)", "with init (h)"]
    headers += ["training memory (MB)", "decoding memory (MB)"]
    caption = (
        "Hours are wall-clock; `with init` adds the trainings that a model was initialised from; memory is the "
        "peak of a process; the real-time factor is decoding time over speech, of the fastest and the slowest search."
    )
    return [caption, table([*headers, "real-time factor"], rows, 2), "\n".join(notes)]


def _by_system(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (natural(run.system), str(run.folder))):
        groups.setdefault(run.system, []).append(run)
    return groups


def trainings(runs: Sequence[Run]) -> dict[Path, tuple[str, dict]]:
    """Name and `train.json` (empty if there is none) of every model that ran, then of those that they began with."""
    found: dict[Path, tuple[str, dict]] = {}
    for system, own in _by_system(runs).items():
        for run in own:
            if run.scored.decoded.stages:
                found.update({f: (f.name, r) for f, r in run.scored.lineage.models.items() if f not in found})
            else:
                folder = home(run.scored)
                found[folder] = (system, run.scored.lineage.models.get(folder, {}))
    for run in runs:
        found.update({f: (f.name, r) for f, r in run.scored.lineage.ancestors.items() if f not in found})
    return found


def _training_tables(runs: Sequence[Run]) -> list[str]:
    rows, losses = [], []
    for model, record in trainings(runs).values():
        hours = [number(record.get(key), ",.2f") for key in ("data_hours", "speech_hours_seen")]
        counts = [number(record.get(key)) for key in ("epochs", "steps", "seconds", "processes")]
        left_out = [number(record.get(key)) for key in ("dropped_utterances", "skipped_steps")]
        rows.append([model, str(record.get("precision") or NONE), *hours, *counts, *left_out])
        losses += [[model, *row] for row in _losses(record)]
    units = ["data (h)", "seen (h)", "epochs", "steps", "time (s)", "processes", "utterances dropped", "steps skipped"]
    return [
        "**Training**",
        table(["model", "precision", *units], rows, 2),
        "**Losses** (nats per encoder frame, of text translation per token)",
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


def _decoding_table(runs: Sequence[Run]) -> str:
    """A row a run, and below a cascade's one for each of its stages."""
    rows = []
    for run in runs:
        decoded = run.scored.decoded
        rows.append([run.split, *run.names, *_decoding(decoded.about)])
        for stage in decoded.stages:
            model = Path(str(stage.get("model") or NONE)).name
            names = method_names(lambda part, stage=stage: str(stage.get(part) or NONE), stage)
            rows.append([run.split, f"{run.system}: {model}", *names, *_decoding(stage)])
    headers = ["split", *NAME_COLUMNS, "checkpoint", "audio (s)", "time (s)", "real-time factor"]
    return table([*headers, "memory (MB)"], rows, 5)


def _decoding(about: dict) -> list[str]:
    checkpoint = Path(str(about["checkpoint"])).name if about.get("checkpoint") else NONE
    numbers = [number(about.get(key), ",.1f") for key in ("audio_seconds", "seconds")]
    return [checkpoint, *numbers, number(about.get("rtf"), ".4f"), number(about.get("peak_memory_mb"))]
