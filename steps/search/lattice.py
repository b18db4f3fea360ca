"""Lattices of k2: what a graph makes of a CTC model's output, and the best paths through it."""

from __future__ import annotations

import itertools
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
    active: tuple[int, int] = (30, 10000),
) -> k2.Fsa:
    """What `graph` (H, HL or HLG, on the same device) allows of `log_probs (batch, frames, tokens)`.

    Of each utterance `lens (batch,)` frames count, one at least. Beams are in nats below the best path, during the
    search and in the lattice; `active`: the fewest and most states a frame. Scores are of the model and the graph
    together; `aux_labels` are words.
    """
    k2 = load_k2()
    fsas, order = dense_fsas(log_probs, lens)
    lattice = k2.intersect_dense_pruned(graph, fsas, search_beam, output_beam, *active)
    return k2.index_fsa(lattice, order.argsort().int().to(lattice.device))


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
    log_probs: Tensor,
    lens: Tensor,
    graph: DecodingGraph,
    lm_scale: float = 1.0,
    search_beam: float = 20.0,
    output_beam: float = 8.0,
    max_active: int = 10000,
) -> list[list[Hypothesis]]:
    """The best path through the HLG, one hypothesis an utterance.

    `log_probs (N, T, V)` in nats, `lens (N,)` frames. `score` is of model and graph together, the latter `lm_scale`
    times; an utterance that the graph has no path for is empty, its score `NO_PATH`.
    """
    if len(some := torch.nonzero(lens > 0).flatten()) < len(lens):  # k2 takes no utterance without frames
        found = iter(ctc_hlg(log_probs[some], lens[some], graph, lm_scale, search_beam, output_beam, max_active))
        return [next(found) if length else [Hypothesis([], [], 0.0, [], [])] for length in lens.tolist()]
    if not len(lens):
        return []
    with torch.inference_mode(False), torch.no_grad():  # k2 counts the versions of tensors, inference has none
        return _ctc_hlg(log_probs.float().clone(), lens.clone(), graph, lm_scale, search_beam, output_beam, max_active)


def _ctc_hlg(
    log_probs: Tensor,
    lens: Tensor,
    graph: DecodingGraph,
    lm_scale: float,
    search_beam: float,
    output_beam: float,
    max_active: int,
) -> list[list[Hypothesis]]:
    lattice = graph_lattice(
        graph.scaled(lm_scale), log_probs, lens, search_beam, output_beam, (min(30, max_active), max_active)
    )
    best = load_k2().shortest_path(lattice, use_double_scores=True)
    scores = best.get_tot_scores(use_double_scores=True, log_semiring=False).clamp(min=NO_PATH).tolist()
    bounds = best.arcs.shape().remove_axis(1).row_splits(1).tolist()
    tokens, written = best.tokens.cpu().numpy(), _words(best)
    found = []
    for row, (begin, end) in enumerate(itertools.pairwise(bounds)):
        emitted_at = np.flatnonzero(tokens[begin:end] > 0)
        ids = tokens[begin:end][emitted_at]
        at = torch.from_numpy(emitted_at).to(log_probs.device)
        values = log_probs[row, at, torch.from_numpy(ids).long().to(log_probs.device)].tolist()
        spoken = [graph.words[word] for word in written[row]]
        found.append([Hypothesis(ids.tolist(), emitted_at.tolist(), scores[row], values, spoken)])
    return found


def best_paths(lattice: k2.Fsa) -> tuple[list[list[int]], Tensor]:
    """The words of the best path of each lattice and its score `(batch,)`; no words and -inf where there is none."""
    best = load_k2().shortest_path(lattice, use_double_scores=True)
    scores = best.get_tot_scores(use_double_scores=True, log_semiring=False)
    return _words(best), scores


def _words(paths: k2.Fsa) -> list[list[int]]:
    """What each path writes."""
    shape, words = paths.arcs.shape().remove_axis(1), paths.aux_labels
    if isinstance(words, Tensor):  # one a label; otherwise any number
        rows = load_k2().RaggedTensor(shape, words)
    else:
        rows = load_k2().RaggedTensor(shape.compose(words.shape).remove_axis(1), words.values)
    return [[word for word in row if word > 0] for row in rows.tolist()]
