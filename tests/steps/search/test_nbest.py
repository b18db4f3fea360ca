"""N-best lists and their scores, against every path of tiny graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steps.search.nbest import ctc_graph, ctc_nbest
from steps.search.risk import word_accuracy
from tests.steps.search.tiny_graphs import all_paths, decoding_graph, heard

pytestmark = pytest.mark.k2

WIDE = {"search_beam": 100.0, "output_beam": 100.0, "num_paths": 3000, "nbest_scale": 0.2, "nbest": 10}
LENS = [3, 5, 4]


@pytest.fixture(scope="module", params=[(1, 0), (2, 1), (3, 2)], ids=lambda value: f"order{value[0]}")
def case(request):
    """A graph, a batch, and all paths of each utterance."""
    order, seed = request.param
    torch.manual_seed(seed)
    log_probs, graph = (2 * torch.randn(3, 5, 3)).log_softmax(-1), decoding_graph(order)
    paths = [all_paths(graph, log_probs[row], length) for row, length in enumerate(LENS)]
    return graph, heard(log_probs, torch.tensor(LENS)), paths


@pytest.mark.parametrize("lm_scale", [0.0, 0.7, 1.0])
def test_nbest_are_the_best_of_all(case, lm_scale):
    """Of a lattice that was made with the scale that they are ranked with."""
    graph, spoken, paths = case
    found = ctc_graph(spoken, "ctc", graph, lm_scale, lattice_scale=lm_scale, **WIDE)
    for hypotheses, ways in zip(found, paths, strict=True):
        best = {said: max(am + lm_scale * lm for am, lm in scores) for said, scores in ways.items()}
        wanted = sorted(best.values(), reverse=True)[: WIDE["nbest"]]
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(wanted, abs=1e-4)
        for hypothesis in hypotheses:
            assert hypothesis.score == pytest.approx(best[tuple(hypothesis.words)], abs=1e-4)
            parts = hypothesis.parts["am"], hypothesis.parts["lm"]
            assert parts[0] + lm_scale * parts[1] == pytest.approx(hypothesis.score, abs=1e-4)
            assert any(parts == pytest.approx(scores, abs=1e-4) for scores in ways[tuple(hypothesis.words)])
            assert len(hypothesis.tokens) == len(hypothesis.frames) >= len(hypothesis.words)


@pytest.mark.parametrize("lm_scale", [0.0, 0.5, 1.0])
def test_nbest_scores_are_sums_over_all_alignments(case, lm_scale):
    graph, spoken, paths = case
    for hypotheses, ways in zip(ctc_nbest(spoken, "ctc", graph, lm_scale, **WIDE), paths, strict=True):
        totals = {said: np.logaddexp.reduce([am + lm_scale * lm for am, lm in s]) for said, s in ways.items()}
        wanted = sorted(totals.values(), reverse=True)[: WIDE["nbest"]]
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(wanted, abs=1e-4)
        assert [totals[tuple(hypothesis.words)] for hypothesis in hypotheses] == pytest.approx(wanted, abs=1e-4)


def test_the_lattice_is_made_once(case, monkeypatch):
    graph, spoken, _ = case
    beams = {"search_beam": 30.0}
    first = ctc_graph(spoken, "ctc", graph, 0.5, nbest=4, **beams)
    monkeypatch.setattr("steps.search.lattice.graph_lattice", None)
    assert [row[0].score for row in ctc_graph(spoken, "ctc", graph, 0.5, **beams)] == [row[0].score for row in first]
    again = ctc_nbest(spoken, "ctc", graph, 2.0, **beams)
    assert ctc_graph(spoken, "ctc", graph, 0.5, nbest=4, **beams) == first  # scales of others leave nothing behind
    assert ctc_nbest(spoken, "ctc", graph, 2.0, **beams) == again


def test_the_least_risk_is_that_of_all_pairs(case):
    graph, spoken, _ = case
    options = {**WIDE, "nbest": 1000}
    every = ctc_nbest(spoken, "ctc", graph, **options)
    chosen = ctc_nbest(spoken, "ctc", graph, mbr_scale=0.8, **options)
    for hypotheses, ranked in zip(every, chosen, strict=True):
        scores = np.array([hypothesis.score for hypothesis in hypotheses])
        shares = np.exp(0.8 * scores - np.logaddexp.reduce(0.8 * scores))
        texts = [" ".join(hypothesis.words) for hypothesis in hypotheses]
        gains = {text: sum(w * word_accuracy(text, o) for w, o in zip(shares, texts, strict=True)) for text in texts}
        assert len(ranked) == len(hypotheses)
        assert [gains[" ".join(h.words)] for h in ranked] == pytest.approx(sorted(gains.values(), reverse=True))
