"""The table at the top: the best run of each system, one row a system."""

from __future__ import annotations

from collections.abc import Sequence

from steps.reporting.comparison import difference
from steps.reporting.markdown import NONE, number, score_cell, table
from steps.reporting.runs import MEASURES, Run, best, home, measures_of
from steps.reporting.sections import casing_of
from steps.scoring.cost import model_folder
from utils.errors import UserError, nearest


def check_selection(runs: Sequence[Run], select: str | None) -> None:
    """`UserError` where `--select` names a split of which nothing was scored."""
    splits = list(dict.fromkeys(run.split for run in runs))
    if select is not None and select not in splits:
        raise UserError(
            f"--select {select}: no run of that split is scored, only of {', '.join(splits)}{nearest(select, splits)}."
        )


def summary(split: str, runs: Sequence[Run], select: str | None) -> list[str]:
    """Tables of one split, one for each translation target, or one of recognition where nothing is translated.

    Args:
      runs: of all splits; which of a system's runs stands for it is decided on the split `select`, or on this one.
    """
    here = [run for run in runs if run.split == split]
    translated = [run for run in here if run.target != "text"]
    translators = {run.system for run in translated}
    alone = _chosen([run for run in here if run.system not in translators], runs, select)
    if not translated:
        return [f"**{split}**", _table(alone, runs, select)]
    tables = []
    for target in dict.fromkeys(run.target for run in translated):
        chosen = _chosen([run for run in translated if run.target == target], runs, select)
        tables.append(_table([*chosen, *([] if tables else alone)], runs, select))  # who only recognises, once
    return [f"**{split}**", *tables]


def _chosen(candidates: Sequence[Run], runs: Sequence[Run], select: str | None) -> list[Run]:
    """The best run of each system, the best system first."""
    if not candidates:
        return []
    measure = candidates[0].judged_by
    found = []
    for system in dict.fromkeys(run.system for run in candidates):
        own = [run for run in candidates if run.system == system]
        twins = {tuple(run.names): run for run in own}
        deciding = [r for r in runs if r.split == select and r.target == own[0].target and tuple(r.names) in twins]
        winner = best(deciding or own, measure) or own[0]
        found.append(twins[tuple(winner.names)])
    ranked = []
    while found:
        ranked.append(best(found, measure) or found[0])
        found.remove(ranked[-1])
    return ranked


def _table(chosen: Sequence[Run], runs: Sequence[Run], select: str | None) -> str:
    """A row for each of `chosen`, whose first is the best; systems that only recognise may follow translating ones."""
    judge, score = chosen[0].judged_by, chosen[0].scored.score
    casings = [casing_of(score), *score["casings"]]
    translated = chosen[0].target != "text"
    rest = [measure for measure in measures_of(chosen[0]) if measure != judge]
    shown = [f"{MEASURES[judge]} {casing}" for casing in casings] if len(casings) > 1 else [MEASURES[judge]]
    headers = ["system", "run", *shown, *(MEASURES[measure] for measure in rest)]
    headers += [*(["WER", "CER"] if translated else []), "p", "real-time factor", "training (h)"]
    rows = []
    for run in chosen:
        entries = [run.scored.score, *(run.scored.score["casings"][casing] for casing in casings[1:])]
        cells = [score_cell(entry["all"].get(judge)) for entry in entries]
        cells += [number(run.value(measure), ".2f") for measure in rest]
        if translated:
            heard = recognition_of(run, runs, select)
            cells += [number(heard.value(measure), ".2f") if heard else NONE for measure in ("wer", "cer")]
        spent = run.scored.score["cost"]
        cost = [number(spent["rtf"], ".4f"), number(spent["training_hours_with_init"], ",.2f")]
        rows.append([run.system, " ".join(run.names[1:]), *cells, _p(run, chosen[0], judge), *cost])
    where = f"on {select} (here, where that was not decoded)" if select else "here"
    caption = f"Of each system the run whose {MEASURES[judge]} ({casings[0]}) is best {where}:"
    return f"{caption}\n\n{table(headers, rows, 2)}"


def _p(run: Run, winner: Run, measure: str) -> str:
    if run is winner:
        return "best"
    found = difference(measure, run, winner) if run.target == winner.target else None
    return number(found.p if found else None, ".3f")


def recognition_of(run: Run, runs: Sequence[Run], select: str | None) -> Run | None:
    """The scored recognition in `run`: its system's best, for a cascade that of the model and search it begins with."""
    heard = [other for other in runs if other.split == run.split and other.target == "text"]
    if run.scored.decoded.stages:
        begins = run.scored.decoded.stages[0]
        model = model_folder(str(begins.get("model")), run.folder)
        heard = [other for other in heard if home(other.scored) == model]
        for part in ("head", "method"):
            heard = [other for other in heard if begins.get(part) in (None, other.scored.decoded.name(part))]
    else:
        heard = [other for other in heard if other.system == run.system]
    return next(iter(_chosen(heard, runs, select)), None)
