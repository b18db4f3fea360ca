"""Lattices of k2: what a graph makes of a CTC model's output, and the best paths through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steps.objectives.backend import load_k2
from steps.objectives.ctc import dense_fsas
from steps.search.confidence import word_posteriors
from steps.search.hypothesis import NO_PATH, Hypothesis
from steps.search.spoken import Spoken
from utils.errors import UserError

if TYPE_CHECKING:
    import k2

MOST_TOKENS = 5000  # of a standard topology, which has an arc for every two of them
AT_ONCE = 32  # utterances that a CPU searches together: more leave its caches, fewer cost more calls
WIDENINGS = 3  # times that the beams of an utterance without a path are doubled


@contextmanager
def for_k2() -> Iterator[None]:
    """k2 counts the versions of tensors, which those of inference mode have not."""
    with torch.inference_mode(False), torch.no_grad():
        yield


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
    `aux_labels` are words, `frames` where each arc is.
    """
    fsas, active = dense_fsas(log_probs, lens, torch.arange(len(lens))), (min(30, max_active // 2), max_active)
    return load_k2().intersect_dense_pruned(graph, fsas, search_beam, output_beam, *active, frame_idx_name="frames")


class DecodingGraph:
    """An HLG and its words by their ids; an H, whose tokens spell the text themselves, has None.

    The scores that the graph has by itself are those of arcs' `lm_scores`.
    """

    def __init__(self, hlg: k2.Fsa, words: Sequence[str] | None) -> None:
        self.hlg, self.words, self._scale = hlg, words, 1.0
        self.hlg.lm_scores = hlg.scores.clone()

    def scaled(self, scale: float) -> k2.Fsa:
        """The HLG with its scores `scale` times."""
        if scale != self._scale:
            self.hlg.scores, self._scale = self.hlg.lm_scores * scale, scale
        return self.hlg


@lru_cache(maxsize=2)
def topology_graph(tokens: int, modified: bool, device: torch.device) -> DecodingGraph:
    """CTC's topology alone, H, of so many tokens.

    Errors: `UserError` where it would not fit into memory.
    """
    if not modified and tokens > MOST_TOKENS:
        raise UserError(f"--topology standard has {tokens}² arcs for {tokens} tokens: give --topology modified.")
    h = load_k2().ctc_topo(tokens - 1, modified=modified, device=device)
    h.tokens = h.aux_labels.clone()
    return DecodingGraph(h, None)


@dataclass
class Lattice:
    """Lattices of N utterances, `fsa`, with the words of its `aux_labels` (None: none, see `DecodingGraph`).

    Arcs have `am_scores` of the model, `lm_scores` of the graph, `tokens` and `frames`. `lens (N,)` are the frames that
    it was made of; an utterance without any has a lattice of nothing in particular.
    """

    fsa: k2.Fsa
    words: Sequence[str] | None
    lens: list[int]

    @classmethod
    def of(
        cls, graph: DecodingGraph, log_probs: Tensor, lens: Tensor, lattice_scale: float = 1.0, **beams: float
    ) -> Lattice:
        """What the graph, its scores `lattice_scale` times, allows; `beams` are those of `graph_lattice`.

        Where there is no path at all, `widened` has the beams.
        """
        log_probs, wanted = log_probs.float().clone(), lens.cpu().clone()
        if not log_probs.shape[1]:
            log_probs = torch.nn.functional.pad(log_probs, (0, 0, 0, 1))
        lens, hlg = wanted.clamp(min=1), graph.scaled(lattice_scale)  # k2 takes no utterance without frames

        def search(rows: Tensor, beams: dict[str, float]) -> k2.Fsa:
            groups = rows.split(AT_ONCE if rows.device.type == "cpu" else len(rows))
            found = [graph_lattice(hlg, log_probs[own], lens[own.cpu()], **beams) for own in groups]
            return found[0] if len(found) == 1 else load_k2().cat(found)

        fsa = widened(
            search,
            torch.arange(len(lens), device=log_probs.device),
            {"search_beam": 20.0, "max_active": 10000, **beams},
        )
        fsa.am_scores = fsa.scores - lattice_scale * fsa.lm_scores
        return cls(fsa, graph.words, wanted.tolist())

    @cached_property
    def inverted(self) -> k2.Fsa:
        """`fsa` with words as labels, those of the model as `aux_labels`, sorted by label."""
        k2 = load_k2()
        return k2.arc_sort(k2.invert(self.fsa))

    def best(self, lm_scale: float, confidence_scale: float = 0.0) -> list[Hypothesis]:
        """The best path of each utterance, the graph's scores `lm_scale` times.

        With its words' posteriors where `confidence_scale` is above 0: the factor of all scores that they are of, as a
        model is surer of itself than it is right.
        """
        self.fsa.scores = self.fsa.am_scores + lm_scale * self.fsa.lm_scores
        best = load_k2().shortest_path(self.fsa, use_double_scores=True)
        words = words_written(best)
        found = self.hypotheses(best, words, range(len(self.lens)), lm_scale)
        if self.words is not None and confidence_scale:
            self.fsa.scores = confidence_scale * self.fsa.scores
            for hypothesis, scores in zip(found, word_posteriors(self.fsa, best), strict=True):
                hypothesis.word_scores = scores[: len(hypothesis.words)]
        return found

    def hypotheses(
        self, paths: k2.Fsa, words: Sequence[Sequence[int]], rows: Sequence[int], lm_scale: float
    ) -> list[Hypothesis]:
        """One hypothesis of each of `paths` (one path each, or none), which writes `words` in the utterance `rows`."""
        shape = paths.arcs.shape().remove_axis(1)
        emits = paths.tokens > 0
        columns = (shape.row_ids(1), paths.tokens, paths.frames, paths.am_scores)
        owner, tokens, frames, values = (column[emits].cpu().numpy() for column in columns)
        bounds = np.searchsorted(owner, np.arange(len(words) + 1))
        am, lm = (_sums(shape, scores) for scores in (paths.am_scores, paths.lm_scores))
        whole = arc_counts(paths).tolist()
        found = []
        for path, (row, written) in enumerate(zip(rows, words, strict=True)):
            if not self.lens[row] or not whole[path]:
                found.append(self.nothing(row))
                continue
            own = [column[bounds[path] : bounds[path + 1]].tolist() for column in (tokens, frames, values)]
            score, parts = float(am[path] + lm_scale * lm[path]), {"am": float(am[path]), "lm": float(lm[path])}
            said = None if self.words is None else [self.words[word] for word in written]
            found.append(Hypothesis(own[0], own[1], score, own[2], said, parts))
        return found

    def nothing(self, row: int) -> Hypothesis:
        """Of an utterance without a path (its score `NO_PATH`), or without frames (0)."""
        return Hypothesis([], [], NO_PATH if self.lens[row] else 0.0, [], None if self.words is None else [])


def arc_counts(fsas: k2.Fsa) -> Tensor:
    """How many arcs each graph has `(graphs,)`; none: it has no path."""
    return torch.diff(fsas.arcs.shape().remove_axis(1).row_splits(1))


def widened(search: Callable[[Tensor, dict[str, float]], k2.Fsa], rows: Tensor, beams: dict[str, float]) -> k2.Fsa:
    """The lattices that `search` makes of utterances `rows` with `beams`, which are doubled up to `WIDENINGS` times for
    those without a path; `output_beam` only prunes what has one."""
    found = search(rows, beams)
    for _ in range(WIDENINGS):
        without = torch.nonzero(arc_counts(found) == 0).flatten()
        if not len(without):
            break
        beams = {name: value if name == "output_beam" else 2 * value for name, value in beams.items()}
        found = _replaced(found, without, search(rows[without], beams))
    return found


def _replaced(fsas: k2.Fsa, places: Tensor, others: k2.Fsa) -> k2.Fsa:
    """`fsas` with `others` at these places."""
    k2 = load_k2()
    index = torch.arange(fsas.shape[0], dtype=torch.int32, device=fsas.device)
    index[places] = fsas.shape[0] + torch.arange(len(places), dtype=torch.int32, device=fsas.device)
    return k2.index_fsa(k2.cat([fsas, others]), index)


def _sums(shape: k2.RaggedShape, scores: Tensor) -> np.ndarray:
    """The sum of each path's scores, in double precision."""
    return load_k2().RaggedTensor(shape, scores.double().contiguous()).sum().cpu().numpy()


def shared_lattice(spoken: Spoken, key: str, graph: DecodingGraph, lattice_scale: float, **beams: float) -> Lattice:
    """The lattice of a CTC head's output, made once for all searches of a batch."""
    return spoken.once(
        ("lattice", key, graph, lattice_scale, *sorted(beams.items())),
        lambda: Lattice.of(graph, spoken.log_probs(key), spoken.encoded.lens, lattice_scale, **beams),
    )


def best_paths(lattice: k2.Fsa) -> tuple[k2.Fsa, list[list[int]], Tensor]:
    """The best path of each lattice, its words, and its score `(batch,)`; no words and -inf where there is none."""
    best = load_k2().shortest_path(lattice, use_double_scores=True)
    return best, words_written(best), best.get_tot_scores(use_double_scores=True, log_semiring=False)


def words_written(paths: k2.Fsa) -> list[list[int]]:
    """What each path writes."""
    shape, words = paths.arcs.shape().remove_axis(1), paths.aux_labels
    if isinstance(words, Tensor):  # one a label; otherwise any number
        rows = load_k2().RaggedTensor(shape, words)
    else:
        rows = load_k2().RaggedTensor(shape.compose(words.shape).remove_axis(1), words.values)
    return [[word for word in row if word > 0] for row in rows.tolist()]


def words_read(paths: k2.Fsa) -> list[list[int]]:
    """The words of paths that have them as labels."""
    shape = paths.arcs.shape().remove_axis(1)
    return load_k2().RaggedTensor(shape, paths.labels.contiguous()).remove_values_leq(0).tolist()
