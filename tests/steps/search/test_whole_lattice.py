"""Second passes over lattices and n-best lists, against everything counted out."""

from __future__ import annotations

import pytest
import torch

from steps.lang.lexicon import BACKOFF
from steps.lm.grammar import grammar
from steps.search.nbest import ctc_graph
from steps.search.whole_lattice import Grammar, ctc_whole_lattice
from tests.steps.search.tiny_graphs import (
    acoustic_scores,
    all_paths,
    decoding_graph,
    graphs,
    heard,
    language_model,
    sentence_scores,
    sentence_tokens,
)

pytestmark = pytest.mark.k2

LENS = [3, 5, 1, 2]
WIDE = {"search_beam": 100.0, "output_beam": 100.0}


def larger(order: int) -> Grammar:
    return Grammar(lambda words: (grammar(language_model(order), words)[0].to_k2(acceptor=True), words.index(BACKOFF)))


@pytest.mark.parametrize("orders", [(1, 3), (2, 3), (3, 3), (2, 1)])
@pytest.mark.parametrize("seed", range(2))
def test_a_whole_lattice_has_the_best_path_of_another_grammar(orders, seed):
    """Whatever the first graph says of the sentences, if nothing is pruned; one frame a word leaves room to back off.

    A first graph of unigrams lacks all but the best of words with the same tokens: k2's remove_epsilon keeps one.
    """
    torch.manual_seed(seed)
    log_probs, lens = (2 * torch.randn(4, 5, 3)).log_softmax(-1), torch.tensor(LENS)
    _, g, words = graphs(orders[1])
    language, graph = sentence_scores(g, words, 5), decoding_graph(orders[0])
    for scale in (1.0, 0.6):
        found = ctc_whole_lattice(heard(log_probs, lens), "ctc", graph, larger(orders[1]), scale, **WIDE)
        for row, (best,) in enumerate(found):
            acoustic = acoustic_scores(log_probs[row], LENS[row])
            totals = {
                tuple(words[word] for word in sentence): acoustic[tokens] + scale * score
                for sentence, score in language.items()
                if (tokens := sentence_tokens(sentence, words)) in acoustic
            }
            if orders[0] == 1:
                there = all_paths(graph, log_probs[row], LENS[row])
                totals = {sentence: score for sentence, score in totals.items() if sentence in there}
            assert best.score == pytest.approx(max(totals.values()), abs=1e-3)
            assert totals[tuple(best.words)] == pytest.approx(best.score, abs=1e-3)
            assert len(best.frames) == len(best.tokens) and best.frames == sorted(set(best.frames))


def test_the_same_grammar_changes_nothing():
    torch.manual_seed(5)
    spoken = heard((2 * torch.randn(6, 7, 3)).log_softmax(-1), torch.tensor([7, 6, 7, 5, 0, 2]))
    graph = decoding_graph(3)
    for (one,), (other,) in zip(
        ctc_graph(spoken, "ctc", graph, 0.8), ctc_whole_lattice(spoken, "ctc", graph, larger(3), 0.8), strict=True
    ):
        assert (one.words, one.tokens, one.frames) == (other.words, other.tokens, other.frames)
        assert one.score == pytest.approx(other.score, abs=1e-4)
