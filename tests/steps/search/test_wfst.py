"""Graph search without k2: against all alignments and sentences counted out, and against k2."""

from __future__ import annotations

import pytest
import torch

from steps.lang.arcs import Arcs
from steps.lang.hlg import compose_hlg
from steps.lang.lexicon import lexicon_graph
from steps.lang.openfst import compose_fsts
from steps.lang.tables import word_table
from steps.search.hypothesis import NO_PATH, Hypothesis
from steps.search.lattice import DecodingGraph
from steps.search.nbest import ctc_graph
from steps.search.wfst import WordFst, ctc_wfst
from tests.steps.search.tiny_graphs import (
    TOKENS,
    acoustic_scores,
    graphs,
    heard,
    parts,
    sentence_scores,
    sentence_tokens,
)

WIDE = {"search_beam": 200.0, "max_active": 1 << 20}
LENS = [3, 5, 1, 0]


def word_fst(order: int, modified: bool = False):
    """HLG of OpenFst over an n-gram model of this order, and the arcs of its G."""
    lexicon, g, words, marks = parts(order)
    _, hlg = compose_fsts(lexicon, g, len(TOKENS), marks, modified)
    return WordFst(hlg, words), g


def batch(seed: int):
    torch.manual_seed(seed)
    return (2 * torch.randn(len(LENS), 5, len(TOKENS))).log_softmax(-1), torch.tensor(LENS)


@pytest.mark.parametrize(("order", "seed", "lm_scale"), [(1, 0, 1.0), (2, 1, 0.4), (3, 2, 1.0), (3, 3, 2.5)])
def test_the_best_path_is_the_best_of_all(order, seed, lm_scale):
    log_probs, lens = batch(seed)
    graph, g = word_fst(order)
    language = sentence_scores(g, graph.words, 5)
    found = ctc_wfst(log_probs, lens, graph, lm_scale, **WIDE)
    assert found[3] == [Hypothesis([], [], 0.0, [], [])]
    for row, length in enumerate(LENS[:3]):
        acoustic = acoustic_scores(log_probs[row], length)
        totals = {
            sentence: acoustic[tokens] + lm_scale * score
            for sentence, score in language.items()
            if (tokens := sentence_tokens(sentence, graph.words)) in acoustic
        }
        best, (h,) = max(totals, key=totals.get), found[row]
        assert h.score == pytest.approx(totals[best], abs=1e-2)  # minimising moves weights by a thousandth
        assert h.words == [graph.words[word] for word in best] and tuple(h.tokens) == sentence_tokens(best, graph.words)
        assert h.parts["am"] + lm_scale * h.parts["lm"] == h.score
        values = [float(log_probs[row, frame, token]) for frame, token in zip(h.frames, h.tokens, strict=True)]
        assert h.token_scores == pytest.approx(values)


@pytest.mark.k2
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("modified", [False, True])
def test_k2_finds_the_same(order, modified):
    log_probs, lens = batch(order)
    wide = {"search_beam": 200.0, "output_beam": 200.0, "max_active": 1 << 20}
    lg, _, words = graphs(order)
    k2s = ctc_graph(heard(log_probs, lens), "ctc", DecodingGraph(compose_hlg(lg, len(TOKENS), modified), words), **wide)
    for (ours,), (theirs,) in zip(ctc_wfst(log_probs, lens, word_fst(order, modified)[0], **WIDE), k2s, strict=True):
        assert ours.words == theirs.words and ours.score == pytest.approx(theirs.score, abs=1e-2)
        if not modified:  # which cannot tell where a repeated token begins
            assert (ours.tokens, ours.frames) == (theirs.tokens, theirs.frames)
            assert ours.token_scores == pytest.approx(theirs.token_scores, abs=1e-4)


def test_the_modified_topology_needs_no_blank_between_repeats():
    words, entries = word_table(["aa"]), [("aa", ("x", "x"))]
    log_probs, lens = torch.tensor([[[-9.0, -0.1, -9.0]] * 2]), torch.tensor([2])
    for modified, score in ((False, NO_PATH), (True, -0.2)):
        ((found,),) = ctc_wfst(log_probs, lens, one_word(words, entries, modified))
        assert found.score == pytest.approx(score, abs=1e-2)


def one_word(words: list[str], entries: list, modified: bool = False) -> WordFst:
    """HLG of a single word."""
    word = words.index(entries[0][0])
    g = Arcs.of_rows([(0, 1, word, word, 0.0), (1, 2, -1, -1, 0.0)])
    lexicon = lexicon_graph(entries, [*TOKENS, "#0"], words, loops=True)
    return WordFst(compose_fsts(lexicon, g, len(TOKENS), 1, modified)[1], words)


def test_a_narrow_beam_is_widened_and_no_path_is_empty():
    """One frame cannot hold a word of two tokens."""
    graph = one_word(word_table(["ab"]), [("ab", ("x", "y"))])
    log_probs = torch.tensor([[[-0.1, -6.0, -9.0], [-0.1, -9.0, -6.0]]])
    assert ctc_wfst(log_probs, torch.tensor([1]), graph)[0][0] == Hypothesis([], [], NO_PATH, [], [])
    ((narrow,),) = ctc_wfst(log_probs, torch.tensor([2]), graph, search_beam=4.0, max_active=4)
    assert narrow.words == ["ab"] and narrow.frames == [0, 1] and narrow.score == pytest.approx(-12.0, abs=1e-2)
