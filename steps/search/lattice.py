"""Lattices of k2: what a graph makes of a CTC model's output, and the best paths through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steps.objectives.backend import load_k2
from steps.objectives.ctc import dense_fsas
from steps.search.hypothesis import Hypothesis

if TYPE_CHECKING:
    import k2

NO_PATH = -1e10  # JSON has no -inf


def graph_lattice(
    graph: k2.Fsa,
    log_probs: Tensor,
    lens: Tensor,
    search_beam: float = 20.0,
    output_beam: float = 8.0,
    max_active: int = 10000,
) -> k2.Fsa:
    """What `graph` (H, HL or HLG, on the same device) allows of `log_probs (batch, frames, tokens)`.

    Of each utterance `lens (batch,)` frames count, one at least. Beams are in nats below the best path, during the
    search and in the lattice; `max_active`: states kept a frame. Scores are of the model and the graph together;
    `aux_labels` are words.
    """
    fsas, active = dense_fsas(log_probs, lens, torch.arange(len(lens))), (min(30, max_active), max_active)
    return load_k2().intersect_dense_pruned(graph, fsas, search_beam, output_beam, *active)


class DecodingGraph:
    """An HLG and its words by their ids."""

    def __init__(self, hlg: k2.Fsa, words: Sequence[str]) -> None:
        self.hlg, self.words = hlg, words
        self._plain, self._scale = hlg.scores.clone(), 1.0

    def scaled(self, scale: float) -> k2.Fsa:
        """The HLG with its scores `scale` times."""
        if scale != self._scale:
            self.hlg.scores, self._scale = self._plain * scale, scale
        return self.hlg


def ctc_hlg(
    log_probs: Tensor, lens: Tensor, graph: DecodingGraph, lm_scale: float = 1.0, **beams: float
) -> list[list[Hypothesis]]:
    """The best path through the HLG, one hypothesis an utterance; `beams` are those of `graph_lattice`.

    `log_probs (N, T, V)` in nats, `lens (N,)` frames. `score` is of model and graph together, the latter `lm_scale`
    times; an utterance that the graph has no path for is empty, its score `NO_PATH`.
    """
    if len(some := torch.nonzero(lens > 0).flatten()) < len(lens):  # k2 takes no utterance without frames
        found = iter(ctc_hlg(log_probs[some], lens[some], graph, lm_scale, **beams))
        return [next(found) if length else [Hypothesis([], [], 0.0, [], [])] for length in lens.tolist()]
    if not len(lens):
        return []
    with torch.inference_mode(False), torch.no_grad():  # k2 counts the versions of tensors, inference has none
        log_probs = log_probs.float().clone()
        lattice = graph_lattice(graph.scaled(lm_scale), log_probs, lens.clone(), **beams)
        best, words, scores = best_paths(lattice)
    bounds = best.arcs.shape().remove_axis(1).row_splits(1).tolist()
    tokens = best.tokens.cpu().numpy()
    arcs = np.flatnonzero(tokens > 0)
    rows = np.searchsorted(bounds, arcs, side="right") - 1
    frames, ids = arcs - np.take(bounds, rows), tokens[arcs].astype(np.int64)
    places = (torch.from_numpy(where).to(log_probs.device) for where in (rows, frames, ids))
    values = log_probs[tuple(places)].cpu().numpy()
    hypotheses = []
    for row, (written, score) in enumerate(zip(words, scores.clamp(min=NO_PATH).tolist(), strict=True)):
        own = [column[rows == row].tolist() for column in (ids, frames, values)]
        hypotheses.append([Hypothesis(own[0], own[1], score, own[2], [graph.words[word] for word in written])])
    return hypotheses


def best_paths(lattice: k2.Fsa) -> tuple[k2.Fsa, list[list[int]], Tensor]:
    """The best path of each lattice, its words, and its score `(batch,)`; no words and -inf where there is none."""
    best = load_k2().shortest_path(lattice, use_double_scores=True)
    return best, _words(best), best.get_tot_scores(use_double_scores=True, log_semiring=False)


def _words(paths: k2.Fsa) -> list[list[int]]:
    """What each path writes."""
    shape, words = paths.arcs.shape().remove_axis(1), paths.aux_labels
    if isinstance(words, Tensor):  # one a label; otherwise any number
        rows = load_k2().RaggedTensor(shape, words)
    else:
        rows = load_k2().RaggedTensor(shape.compose(words.shape).remove_axis(1), words.values)
    return [[word for word in row if word > 0] for row in rows.tolist()]
