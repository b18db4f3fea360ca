"""Lattices of k2: what a graph makes of a CTC model's output, and the best paths through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from steps.objectives.backend import load_k2
from steps.objectives.ctc import dense_fsas

if TYPE_CHECKING:
    import k2


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


def best_paths(lattice: k2.Fsa) -> tuple[list[list[int]], Tensor]:
    """The words of the best path of each lattice and its score `(batch,)`; no words and -inf where there is none."""
    best = load_k2().shortest_path(lattice, use_double_scores=True)
    scores = best.get_tot_scores(use_double_scores=True, log_semiring=False)
    words = best.aux_labels
    if isinstance(words, Tensor):
        shape = best.arcs.shape().remove_axis(1)
        words = load_k2().RaggedTensor(shape, words)
    else:
        words = best.arcs.shape().remove_axis(1).compose(words.shape).remove_axis(1), words.values
        words = load_k2().RaggedTensor(*words)
    return [[word for word in row if word > 0] for row in words.tolist()], scores
