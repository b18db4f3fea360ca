"""Whole lattices rescored with a larger n-gram model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from steps.objectives.backend import load_k2
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import DecodingGraph, Lattice, for_k2, shared_lattice, words_read
from steps.search.spoken import Spoken

if TYPE_CHECKING:
    import k2

# occupancies below which arcs go, one after the other while a lattice is too large (icefall's)
PRUNING = [10.0**power for power in range(-10, 0)]


class Grammar:
    """A G to rescore with: `make` builds it, an acceptor, over a table of words, and says which label backs off."""

    def __init__(self, make: Callable[[Sequence[str]], tuple[k2.Fsa, int]]) -> None:
        self._make = make
        self._made: dict[int, tuple[Sequence[str], tuple[k2.Fsa, int]]] = {}

    def over(self, words: Sequence[str]) -> tuple[k2.Fsa, int]:
        """G with epsilons where it backs off and as loops, its labels sorted places in `words`, and how many back-offs
        may follow each other."""
        if id(words) not in self._made:
            k2 = load_k2()
            g, backoff = self._make(words)
            steps = _longest_backoff(g, backoff)
            g.labels = torch.where(g.labels == backoff, 0, g.labels)
            g.lm_scores = g.scores.clone()
            g = k2.arc_sort(k2.add_epsilon_self_loops(k2.create_fsa_vec([g])))
            self._made[id(words)] = words, (g, steps)  # the words stay, so that no others get their id
        return self._made[id(words)][1]


def _longest_backoff(g: k2.Fsa, backoff: int) -> int:
    """The most arcs labelled `backoff` that follow each other."""
    arcs = g.arcs.values()[g.labels == backoff].long()
    below = torch.arange(g.shape[0], device=arcs.device).index_copy(0, arcs[:, 0], arcs[:, 1])
    count, reached = 0, below
    while bool((reached != below[reached]).any()):
        count, reached = count + 1, below[reached]
    return count + bool(len(arcs))


def with_room(lattice: k2.Fsa, steps: int) -> k2.Fsa:
    """`lattice`, words as labels, with `steps` arcs without a word behind every word and before the first ones.

    k2's intersection for devices takes epsilons for symbols: G backs off where the lattice has an arc without a word.
    """
    k2 = load_k2()
    lattice = k2.invert(lattice)
    words = lattice.aux_labels
    first = lattice.arcs.values()[:, 0] == 0
    before = first.long() * (words > 0)
    sizes = 1 + before * steps + (words > 0) * steps
    splits = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int()
    values = torch.zeros(int(splits[-1]), dtype=torch.int32, device=words.device)
    values[splits[:-1].long() + before * steps] = words
    shape = k2.ragged.create_ragged_shape2(splits, None, len(values))
    lattice.aux_labels = k2.RaggedTensor(shape, values)
    return k2.invert(lattice)


def rescored_lattice(lattice: Lattice, grammar: Grammar) -> k2.Fsa:
    """`lattice` with the scores of another G as its `lm_scores`, words as labels.

    Where memory runs out, improbable arcs are left out, more and more.
    """
    k2 = load_k2()
    g, steps = grammar.over(lattice.words)
    fsa = k2.invert(lattice.fsa)
    for threshold in [*PRUNING, None]:
        fsa.scores = fsa.am_scores
        roomy = with_room(fsa, steps)
        del roomy.lm_scores
        owners = torch.zeros(roomy.shape[0], dtype=torch.int32, device=roomy.device)
        try:
            found = k2.intersect_device(g, roomy, b_to_a_map=owners, sorted_match_a=True)
            return k2.top_sort(k2.connect(found))
        except RuntimeError:  # k2 does not say of which kind
            if threshold is None:
                raise
        fsa.scores = fsa.am_scores + fsa.lm_scores
        fsa = k2.prune_on_arc_post(fsa, threshold, use_double_scores=True)


def ctc_whole_lattice(
    spoken: Spoken,
    key: str,
    graph: DecodingGraph,
    rescore_graph: Grammar,
    lm_scale: float = 1.0,
    lattice_scale: float = 1.0,
    **beams: float,
) -> list[list[Hypothesis]]:
    """The best path of the lattice where another G's scores, `lm_scale` times, stand for those of the graph.

    One hypothesis an utterance; `lattice_scale` and `beams` are those of `ctc_graph`.
    """
    k2 = load_k2()

    def make() -> tuple[Lattice, k2.Fsa]:
        lattice = shared_lattice(spoken, key, graph, lattice_scale, **beams)
        return lattice, rescored_lattice(lattice, rescore_graph)

    with for_k2():
        name = ("whole lattice", key, graph, rescore_graph, lattice_scale, *sorted(beams.items()))
        lattice, fsa = spoken.once(name, make)
        fsa.scores = fsa.am_scores + lm_scale * fsa.lm_scores
        best = k2.shortest_path(fsa, use_double_scores=True)
        words = words_read(best)
        return [[one] for one in lattice.hypotheses(best, words, range(len(words)), lm_scale)]
