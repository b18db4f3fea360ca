"""Graphs in OpenFst's form, built by kaldifst: what decoders outside k2 read, and what searches without k2 use."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from steps.lang.arcs import FINAL, Arcs
from utils.errors import UserError
from utils.files import atomic_path, require

if TYPE_CHECKING:
    import kaldifst

GRAPHS = ("L", "L_disambig", "G", "LG", "HLG")


def load_kaldifst() -> ModuleType:
    """The module `kaldifst`; `UserError` where it is not installed."""
    if importlib.util.find_spec("kaldifst") is None:
        raise UserError("kaldifst is needed and not installed: pip install kaldifst kaldi-decoder.")
    import kaldifst

    return kaldifst


def ctc_topology(tokens: int, disambiguation: int, modified: bool = False) -> Arcs:
    """H, which reads `label + 1` a frame (OpenFst's 0 is nothing; the blank is 1) and writes tokens.

    As k2's `ctc_topo`, and it writes each of `disambiguation` symbols, which follow the tokens, without reading.
    """
    labels = np.arange(1, tokens)
    blank, zero = np.zeros(tokens, dtype=np.int64), np.zeros(tokens - 1, dtype=np.int64)
    everywhere = np.arange(tokens)
    if modified:
        parts = [  # a token alone, the first frame of a longer one, one between, and the last one
            (zero, zero, labels, labels),
            (zero, labels, labels, labels),
            (labels, labels, labels, zero),
            (labels, zero, labels, zero),
            (zero[:1], zero[:1], zero[:1], zero[:1]),
        ]
        loops, ends = zero[:1], zero[:1]
    else:
        source, target = (grid.ravel() for grid in np.meshgrid(everywhere, labels, indexing="ij"))
        parts = [(source, target, target, np.where(source == target, 0, target)), (everywhere, blank, blank, blank)]
        loops, ends = everywhere, everywhere
    reading = [np.concatenate(column) for column in zip(*parts, strict=True)]
    where, symbols = (grid.ravel() for grid in np.meshgrid(loops, tokens + np.arange(disambiguation), indexing="ij"))
    final = np.full(len(ends), FINAL)
    source = np.concatenate((reading[0], where, ends))
    target = np.concatenate((reading[1], where, np.full(len(ends), tokens)))
    label = np.concatenate((reading[2] + 1, np.zeros_like(where), final))
    aux = np.concatenate((reading[3], symbols, final))
    return Arcs(source, target, label, aux, np.zeros(len(source))).sorted()


def compiled(arcs: Arcs) -> kaldifst.StdVectorFst:
    """The graph, its arcs sorted by what they read."""
    fst = load_kaldifst().compile(arcs.to_openfst())
    load_kaldifst().arcsort(fst, "ilabel")
    return fst


def compose_fsts(
    lexicon: Arcs, grammar: Arcs, tokens: int, disambiguation: int, modified: bool = False
) -> tuple[kaldifst.StdVectorFst, kaldifst.StdVectorFst]:
    """LG, deterministic and minimal, and HLG, as Kaldi's mkgraph.sh makes them.

    `lexicon` has `#0` loops; its labels from `tokens` on are the `disambiguation` symbols, which LG still has.
    """
    fst = load_kaldifst()
    left = compiled(lexicon)
    fst.arcsort(left, "olabel")
    lg = fst.compose(left, compiled(grammar))
    if fst.determinize_star(lg):
        raise UserError("L and G cannot be made deterministic: has the lexicon all disambiguation symbols?")
    fst.minimize_encoded(lg)
    fst.arcsort(lg, "ilabel")
    h = compiled(ctc_topology(tokens, disambiguation, modified))
    fst.arcsort(h, "olabel")
    hlg = fst.compose(h, lg)
    fst.connect(hlg)
    fst.arcsort(hlg, "ilabel")
    return lg, hlg


def write_fst(fst: kaldifst.StdVectorFst, path: Path) -> None:
    """OpenFst's binary form."""
    with atomic_path(path) as temporary:
        if not fst.write(str(temporary)):
            raise UserError(f"{path} could not be written.")


def read_fst(folder: str | Path, name: str = "HLG") -> kaldifst.StdVectorFst:
    """A graph that `steps.lang.graph` wrote; `UserError` where there is none or it is none of OpenFst's."""
    file = require(Path(folder) / f"{name}.fst", "stage 4 (language models, steps.lang.graph --openfst)")
    found = load_kaldifst().StdVectorFst.read(str(file))
    if found is None or not found.num_states:
        raise UserError(f"{file} is no graph of OpenFst: make it again (stage 4).")
    return found
