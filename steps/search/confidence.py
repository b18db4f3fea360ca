"""How sure a lattice is of the words on its best path: posteriors of arcs, summed over the same word in its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import k2


def word_posteriors(lattice: k2.Fsa, best: k2.Fsa) -> list[list[float]]:
    """For each word that the best path of each lattice writes, how probable it is there, from 0 to 1.

    It is the sum over the lattice's arcs that write this word nearer to it in time than to the words before and behind
    it on the best path, each arc with its posterior (forward and backward scores; Wessel et al. 2001, section III).
    Both need `frames`, the frame of each arc.
    """
    if not lattice.num_arcs:
        return [[] for _ in range(lattice.shape[0])]
    post = lattice.get_arc_post(use_double_scores=True, log_semiring=True).exp()
    rows, times, words, arcs = _written(lattice)
    weights = post[torch.from_numpy(arcs).to(post.device)].cpu().numpy()
    span = 2 + int(lattice.frames.max())
    kinds = 1 + (int(words.max()) if len(words) else 0)
    keys = (rows * kinds + words) * span + times
    order = keys.argsort(kind="stable")
    keys, sums = keys[order], np.concatenate(([0.0], weights[order].cumsum()))
    found: list[list[float]] = [[] for _ in range(lattice.shape[0])]
    best_rows, best_frames, best_words, _ = _written(best)
    for row in np.unique(best_rows):
        times, own = best_frames[best_rows == row], best_words[best_rows == row]
        middles = (times[:-1] + times[1:] + 1) // 2
        first = np.minimum(np.concatenate(([0], middles)), times)
        last = np.maximum(np.concatenate((middles, [span - 1])), times + 1)
        base = (row * kinds + own) * span
        total = sums[np.searchsorted(keys, base + last)] - sums[np.searchsorted(keys, base + first)]
        found[row] = total.clip(0.0, 1.0).tolist()
    return found


def _written(fsas: k2.Fsa) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Utterance, frame, word and arc of each word that arcs write, in the order of the arcs."""
    labels = fsas.aux_labels
    if isinstance(labels, torch.Tensor):
        arcs, values = torch.arange(len(labels), device=labels.device), labels
    else:
        arcs, values = labels.shape.row_ids(1).long(), labels.values
    arcs, values = arcs[values > 0], values[values > 0]
    rows = fsas.arcs.shape().remove_axis(1).row_ids(1).long()[arcs]
    return tuple(x.long().cpu().numpy() for x in (rows, fsas.frames[arcs], values, arcs))
