"""CTC graph search without k2: kaldi-decoder's FasterDecoder over an HLG of OpenFst, on the CPU.

The second implementation of `steps.search.nbest.ctc_graph`'s best path: the same words and scores where neither prunes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from steps.search.hypothesis import NO_PATH, Hypothesis, emitted
from steps.search.lattice import WIDENINGS
from utils.errors import UserError

if TYPE_CHECKING:
    import kaldifst


@dataclass
class WordFst:
    """An HLG that reads `label + 1` a frame, and its words by their ids."""

    fst: kaldifst.StdVectorFst
    words: Sequence[str]


def ctc_wfst(
    log_probs: Tensor,
    lens: Tensor,
    graph: WordFst,
    lm_scale: float = 1.0,
    search_beam: float = 20.0,
    max_active: int = 10000,
) -> list[list[Hypothesis]]:
    """The best path through the graph, one hypothesis an utterance; a graph's modified topology tells no repeats apart.

    `log_probs (N, T, V)`, `lens (N,)`. `score` is the model's and `lm_scale` times the graph's; an utterance that the
    graph has no path for is empty, its score `NO_PATH`. `search_beam`: nats below the best; `max_active`: states kept
    a frame.
    Errors: `UserError` without kaldi-decoder, and for a scale of 0, for which the graph has to be made.
    """
    if importlib.util.find_spec("kaldi_decoder") is None:
        raise UserError("kaldi-decoder is needed and not installed: pip install kaldifst kaldi-decoder.")
    if lm_scale <= 0:
        raise UserError("wfst: --lm-scale must be above 0.")
    values = log_probs.float().cpu().numpy()
    return [
        [_search(values[row, :length], graph, lm_scale, search_beam, max_active) if length else _nothing(0.0)]
        for row, length in enumerate(lens.tolist())
    ]


def _nothing(score: float) -> Hypothesis:
    return Hypothesis([], [], score, [], [])


def _search(log_probs: np.ndarray, graph: WordFst, lm_scale: float, beam: float, max_active: int) -> Hypothesis:
    """Of one utterance, `log_probs (T, V)`; the decoder has no scale for the graph's scores, so the model's get one."""
    import kaldi_decoder
    import kaldifst

    heard = kaldi_decoder.DecodableCtc(np.ascontiguousarray(log_probs / lm_scale))
    for widening in range(WIDENINGS + 1):
        most = max_active * 2**widening
        limits = {"beam": beam * 2**widening / lm_scale, "max_active": most, "min_active": min(20, most // 2)}
        decoder = kaldi_decoder.FasterDecoder(graph.fst, kaldi_decoder.FasterDecoderOptions(**limits))
        decoder.decode(heard)
        if decoder.reached_final():
            break
    else:
        return _nothing(NO_PATH)
    _, path = decoder.get_best_path()
    _, labels, words, cost = kaldifst.get_linear_symbol_sequence(path)
    said = np.array(labels) - 1
    begins = (said > 0) & (said != np.concatenate(([0], said[:-1])))
    am = float(log_probs[np.arange(len(said)), said].astype(np.float64).sum())
    lm = -cost.value1
    hypothesis = emitted(np.where(begins, said, -1), log_probs[np.arange(len(said)), said], am + lm_scale * lm)
    hypothesis.words, hypothesis.parts = [graph.words[word] for word in words], {"am": am, "lm": lm}
    return hypothesis
