"""N-best lists of lattices: word sequences, each once, with their best alignment and with all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steps.objectives.backend import load_k2
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import DecodingGraph, Lattice, arc_counts, for_k2, shared_lattice, topology_graph, words_read
from steps.search.risk import by_risk
from steps.search.spoken import Spoken

if TYPE_CHECKING:
    import k2


@dataclass
class Candidates:
    """Hypotheses of N utterances in any order with their texts, and what is said where there is none.

    `alignments`: a lattice of each hypothesis with all its alignments, where they came from lattices.
    """

    lists: list[list[Hypothesis]]
    texts: list[list[str]]
    nothing: list[Hypothesis]
    alignments: k2.Fsa | None = None

    def part(self, name: str) -> Tensor:
        """This part of all hypotheses' scores, `(hypotheses of all,)` nats."""
        every = [hypothesis.parts[name] for hypotheses in self.lists for hypothesis in hypotheses]
        return torch.tensor(every, dtype=torch.float64)

    def rows(self) -> list[int]:
        """The utterance of each hypothesis."""
        return [row for row, hypotheses in enumerate(self.lists) for _ in hypotheses]

    def tokens(self) -> list[list[int]]:
        """The tokens of each hypothesis."""
        return [hypothesis.tokens for hypotheses in self.lists for hypothesis in hypotheses]

    def ranked(
        self, scores: Tensor, nbest: int = 1, mbr_scale: float = 0.0, more: Mapping[str, Tensor] | None = None
    ) -> list[list[Hypothesis]]:
        """The `nbest` of each utterance with these scores `(hypotheses of all,)`, best first.

        With `mbr_scale` above 0 the best has the least expected word errors, the scores' shares sharpened by it. `more`
        are parts that the scores have besides.
        """
        totals, found, start = scores.tolist(), [], 0
        added = {name: values.tolist() for name, values in (more or {}).items()}
        for hypotheses, texts, nothing in zip(self.lists, self.texts, self.nothing, strict=True):
            own = totals[start : start + len(hypotheses)]
            order = by_risk(texts, own, mbr_scale) if mbr_scale > 0 else sorted(range(len(own)), key=lambda i: -own[i])
            best = []
            for place in order[:nbest]:
                parts = {**hypotheses[place].parts, **{name: values[start + place] for name, values in added.items()}}
                best.append(replace(hypotheses[place], score=own[place], parts=parts))
            found.append(best or [nothing])
            start += len(hypotheses)
        return found


def lattice_nbest(
    lattice: Lattice, text: Callable[[Hypothesis], str], lattice_scale: float, num_paths: int, nbest_scale: float
) -> Candidates:
    """The word sequences of `num_paths` paths through each lattice, and of the best one.

    Paths are drawn as probable as their scores `nbest_scale` times say (less: more sequences); k2 draws the same ones
    each time. Each sequence has its best alignment where the graph's scores count `lattice_scale` times.
    """
    k2, fsa = load_k2(), lattice.inverted
    fsa.scores = nbest_scale * (fsa.am_scores + lattice_scale * fsa.lm_scores)
    paths = k2.random_paths(fsa, use_double_scores=True, num_paths=num_paths)
    drawn = k2.ragged.index(fsa.labels.contiguous(), paths).remove_values_leq(0).tolist()
    fsa.scores = fsa.am_scores + lattice_scale * fsa.lm_scores
    best = k2.shortest_path(fsa, use_double_scores=True)
    first = words_read(best)
    there = (arcs and frames for arcs, frames in zip(arc_counts(fsa).tolist(), lattice.lens, strict=True))
    unique = [
        list(dict.fromkeys(map(tuple, [one, *others]))) if any_ else []
        for any_, one, others in zip(there, first, drawn, strict=True)
    ]
    rows = [row for row, sequences in enumerate(unique) for _ in sequences]
    words = [list(sequence) for sequences in unique for sequence in sequences]
    nothing = [lattice.nothing(row) for row in range(len(unique))]
    if not words:
        return Candidates([[] for _ in unique], [[] for _ in unique], nothing)
    alignments = aligned(fsa, words, rows)
    found = lattice.hypotheses(k2.shortest_path(alignments, use_double_scores=True), words, rows, lattice_scale)
    lists: list[list[Hypothesis]] = [[] for _ in unique]
    for row, hypothesis in zip(rows, found, strict=True):
        lists[row].append(hypothesis)
    return Candidates(lists, [list(map(text, hypotheses)) for hypotheses in lists], nothing, alignments)


def aligned(lattices: k2.Fsa, words: Sequence[Sequence[int]], rows: Sequence[int]) -> k2.Fsa:
    """What the lattice of each of `rows`, its labels words and sorted by them, has of each of the sequences `words`."""
    k2 = load_k2()
    owners = torch.tensor(rows, dtype=torch.int32, device=lattices.device)
    sequences = k2.linear_fsa_with_self_loops(k2.linear_fsa(list(map(list, words)), lattices.device))
    found = k2.intersect_device(lattices, sequences, b_to_a_map=owners, sorted_match_a=True)
    return k2.top_sort(k2.connect(found))


def shared_nbest(
    spoken: Spoken,
    key: str,
    graph: DecodingGraph,
    lattice_scale: float = 1.0,
    num_paths: int = 100,
    nbest_scale: float = 0.5,
    **beams: float,
) -> Candidates:
    """The n-best lists of a CTC head's lattices, made once for all searches of a batch."""

    def make() -> Candidates:
        lattice = shared_lattice(spoken, key, graph, lattice_scale, **beams)
        return lattice_nbest(lattice, partial(spoken.text, key), lattice_scale, num_paths, nbest_scale)

    name = ("nbest", key, graph, lattice_scale, num_paths, nbest_scale, *sorted(beams.items()))
    return spoken.once(name, make)


def ctc_graph(
    spoken: Spoken,
    key: str,
    graph: DecodingGraph,
    lm_scale: float = 1.0,
    lattice_scale: float = 1.0,
    nbest: int = 1,
    num_paths: int = 100,
    nbest_scale: float = 0.5,
    confidence_scale: float = 0.0,
    **beams: float,
) -> list[list[Hypothesis]]:
    """The best path through the graph, and where `nbest` is above 1 other word sequences of the lattice.

    The lattice is made with the graph's scores `lattice_scale` times; hypotheses are ranked with them `lm_scale`
    times; the best path's words have confidences with a `confidence_scale` (`Lattice.best`). An utterance that the
    graph has no path for is empty, its score `NO_PATH`. `beams` are those of `graph_lattice`.
    """
    with for_k2():
        best = shared_lattice(spoken, key, graph, lattice_scale, **beams).best(lm_scale, confidence_scale)
        if nbest == 1:
            return [[hypothesis] for hypothesis in best]
        candidates = shared_nbest(spoken, key, graph, lattice_scale, num_paths, nbest_scale, **beams)
        others = candidates.ranked(candidates.part("am") + lm_scale * candidates.part("lm"), nbest)
    return [
        [first, *(one for one in more if spoken.text(key, one) != spoken.text(key, first))][:nbest]
        for first, more in zip(best, others, strict=True)
    ]


def ctc_topology(spoken: Spoken, key: str, topology: str, **options: float) -> list[list[Hypothesis]]:
    """`ctc_graph` over CTC's topology alone, `standard` or `modified` (a repeated token needs no blank between)."""
    log_probs = spoken.log_probs(key)
    with for_k2():
        graph = topology_graph(log_probs.shape[2], topology == "modified", log_probs.device)
    return ctc_graph(spoken, key, graph, **options)


def ctc_nbest(
    spoken: Spoken,
    key: str,
    graph: DecodingGraph,
    lm_scale: float = 1.0,
    nbest: int = 1,
    mbr_scale: float = 0.0,
    **lists: float,
) -> list[list[Hypothesis]]:
    """Word sequences of the lattice by their probability over all their alignments, not that of the best one alone.

    `parts` are those of the best alignment; `lists` are the options of `shared_nbest`, the rest is `ctc_graph`'s and
    `Candidates.ranked`'s.
    """
    with for_k2():
        found = shared_nbest(spoken, key, graph, **lists)
        return found.ranked(total_scores(found, lm_scale), nbest, mbr_scale)


def total_scores(candidates: Candidates, lm_scale: float) -> Tensor:
    """The log probability of each hypothesis `(hypotheses of all,)` over all its alignments in the lattice."""
    fsa = candidates.alignments
    if fsa is None:
        return torch.zeros(0, dtype=torch.float64)
    fsa.scores = fsa.am_scores + lm_scale * fsa.lm_scores
    return fsa.get_tot_scores(use_double_scores=True, log_semiring=True).cpu()
