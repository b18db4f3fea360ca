"""Alignment of prepared cuts, in batches; what cannot be aligned is left out, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from steps.alignment.aligner import Aligner
from steps.alignment.formats import Row
from steps.alignment.script import Misfit, Script
from steps.lang.targets import target_language, target_text
from steps.prepare.audio import compute_features
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import read_features
from steps.prepare.sampler import BatchPlan
from steps.prepare.usable import cut_samples
from steps.scoring.hypotheses import read_rows
from utils.errors import UserError

PRIOR_SECONDS = 1000.0  # of speech tell how probable each token is on average

Texts = Callable[[object], str | None]


def texts_of(cuts: Cuts, target: str, hyp: str | None) -> Texts:
    """What each cut is to be aligned with: the text that the head's target names, or the one in a `hyp.jsonl`."""
    if hyp is None:
        return lambda cut: target_text(cut.supervisions[0], target)
    found = {row["id"]: row["hyp"] for row in read_rows(Path(hyp))}
    if not found.keys() & set(cuts.ids):
        raise UserError(f"--hyp {hyp} has none of the utterances of {cuts.source}: decode these cuts.")
    return lambda cut: found.get(cut.id)


def align_cuts(aligner: Aligner, cuts: Cuts, texts: Texts, max_duration: float) -> tuple[list[Row], list[dict]]:
    """Rows in the order of the cuts, and `{"id", "reason", "detail"}` of those that could not be aligned."""
    rows: dict[int, Row] = {}
    skipped: dict[int, Misfit] = {}
    scripts: dict[int, Script | str] = {}
    for place, cut in enumerate(cuts):
        try:
            language = target_language(cut.supervisions[0], aligner.target)
            scripts[place] = aligner.script(texts(cut), language)
        except Misfit as misfit:
            skipped[place] = misfit
    if aligner.prior_scale:
        _measure_prior(aligner, cuts, list(scripts), max_duration)
    for places, log_probs, lens in _encoded(aligner, cuts, list(scripts), max_duration, skipped):
        found = aligner.align(log_probs, lens, [scripts[place] for place in places])
        for place, aligned in zip(places, found, strict=True):
            if isinstance(aligned, Misfit):
                skipped[place] = aligned
            else:
                rows[place] = Row(cuts[place], texts(cuts[place]), aligned, aligner.between)
    told = [
        {"id": cuts.ids[place], "reason": misfit.reason, "detail": misfit.detail}
        | ({"characters": misfit.characters} if misfit.characters else {})
        for place, misfit in sorted(skipped.items())
    ]
    return [row for _, row in sorted(rows.items())], told


def _measure_prior(aligner: Aligner, cuts: Cuts, places: list[int], max_duration: float) -> None:
    """The mean probabilities over the first cuts in the order of the table, about `PRIOR_SECONDS` of them."""
    seconds = np.cumsum(cuts.durations[places])
    some = places[: int(np.searchsorted(seconds, PRIOR_SECONDS)) + 1]
    total, frames = 0.0, 0
    for _, log_probs, lens in _encoded(aligner, cuts, some, max_duration, {}):
        for row, length in zip(log_probs, lens.tolist(), strict=True):
            total, frames = total + row[:length].double().exp().sum(dim=0), frames + length
    if frames:
        aligner.set_prior((total / frames).float())


def _encoded(
    aligner: Aligner, cuts: Cuts, places: list[int], max_duration: float, unread: dict[int, Misfit]
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batches of places in the table, log probabilities `(N, T, V)` and lengths; `unread` gets what has no features."""
    if not places:
        return
    plan = BatchPlan(cuts.durations[places], max_duration, shuffle=False)
    with tqdm(total=round(cuts.durations[places].sum(), 1), unit="s", disable=None) as progress:
        for batch in plan.batches(0):
            read, matrices = [], []
            for place in (places[i] for i in batch):
                try:
                    matrices.append(features_of(cuts, place))
                    read.append(place)
                except UserError as error:
                    unread[place] = Misfit("unreadable", str(error))
            if read:
                yield read, *aligner.log_probs(matrices)
            progress.update(float(cuts.durations[[places[i] for i in batch]].sum()))


def features_of(cuts: Cuts, place: int) -> np.ndarray:
    """Features (frames, dim) of a cut, stored or made of its audio; `UserError` where they cannot be read."""
    cut = cuts[place]
    return read_features(cut) if cuts.stored else compute_features(cut_samples(cut), cuts.config)
