"""Finite-state graphs as arrays of arcs, the form in which they are built; k2 and OpenFst read them from here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FINAL = -1  # the label of arcs into the last state, as k2 wants them


@dataclass
class Arcs:
    """A graph with one beginning (state 0) and one end (the last state); arrays have one value an arc.

    `source`, `target`: states; `label`: what is read, -1 on arcs into the end and only there; `aux`: what is written;
    `score`: natural logarithm.
    """

    source: np.ndarray
    target: np.ndarray
    label: np.ndarray
    aux: np.ndarray
    score: np.ndarray

    @classmethod
    def of_rows(cls, rows: list[tuple[int, int, int, int, float]]) -> Arcs:
        """Of `(source, target, label, aux, score)`."""
        whole = np.array([row[:4] for row in rows], dtype=np.int64).reshape(-1, 4)
        return cls(*whole.T, np.array([row[4] for row in rows], dtype=np.float64))

    def sorted(self) -> Arcs:
        """By source, and there by label and target."""
        order = np.lexsort((self.target, self.label, self.source))
        return Arcs(*(values[order] for values in (self.source, self.target, self.label, self.aux, self.score)))

    def to_k2(self, acceptor: bool = False):
        """A `k2.Fsa`, `aux` as its `aux_labels` unless it is an acceptor."""
        import torch

        from steps.objectives.backend import load_k2

        k2, rows = load_k2(), self.sorted()
        scores = torch.from_numpy(rows.score.astype(np.float32)).view(torch.int32)
        whole = np.stack((rows.source, rows.target, rows.label), axis=1).astype(np.int32)
        fsa = k2.Fsa(torch.cat((torch.from_numpy(whole), scores[:, None]), dim=1))
        if not acceptor:
            fsa.aux_labels = torch.from_numpy(rows.aux.astype(np.int32))
        return fsa

    def to_openfst(self) -> str:
        """OpenFst's text: `source target label aux cost` a line, final states alone on theirs; costs are -score."""
        end = int(self.target.max())
        lines = []
        for source, target, label, aux, score in zip(
            self.source, self.target, self.label, self.aux, self.score, strict=True
        ):
            cost = f"{-score:.9g}"
            lines.append(f"{source} {cost}" if target == end else f"{source} {target} {label} {aux} {cost}")
        return "\n".join(lines) + "\n"
