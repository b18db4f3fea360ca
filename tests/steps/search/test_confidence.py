"""Posteriors of words in lattices, against all alignments of all sentences counted out."""

from __future__ import annotations

import itertools

import pytest
import torch

from steps.lang.arcs import Arcs
from steps.lang.hlg import compose_hlg, compose_lg
from steps.lang.lexicon import BACKOFF, disambiguated, lexicon_graph
from steps.lang.tables import word_table
from steps.search.confidence import word_posteriors
from steps.search.lattice import DecodingGraph, Lattice, best_paths, graph_lattice

pytestmark = pytest.mark.k2

ENTRIES = [("a", ("x",)), ("ab", ("x", "y")), ("b", ("y",)), ("aa", ("x", "x"))]
TOKENS = ["<blk>", "x", "y"]


def graph(words_in_all: int):
    """HLG of all sentences of so many words, none more probable than others, and the table of words."""
    words = word_table(word for word, _ in ENTRIES)
    spelled, highest = disambiguated(ENTRIES)
    table = [*TOKENS, *(f"#{number}" for number in range(highest + 1))]
    rows = [
        (place, place + 1, words.index(word), words.index(word), 0.0)
        for place in range(words_in_all)
        for word, _ in ENTRIES
    ]
    g = Arcs.of_rows([*rows, (words_in_all, words_in_all + 1, -1, -1, 0.0)]).to_k2(acceptor=True)
    lexicon = lexicon_graph(spelled, table, words, loops=True).to_k2()
    return compose_hlg(compose_lg(lexicon, g, len(TOKENS), words.index(BACKOFF)), len(TOKENS)), words


def sums_by_hand(log_probs: torch.Tensor, words_in_all: int) -> dict[tuple[str, ...], float]:
    """The probability of each sentence, not normalised: of each all its alignments."""
    spelled = {word: tuple(TOKENS.index(token) for token in tokens) for word, tokens in ENTRIES}
    totals = dict.fromkeys(itertools.product(spelled, repeat=words_in_all), 0.0)
    for path in itertools.product(range(3), repeat=len(log_probs)):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token)
        for sentence in totals:
            if tuple(token for word in sentence for token in spelled[word]) == tokens:
                totals[sentence] += float(log_probs[range(len(path)), path].sum().exp())
    return totals


@pytest.mark.parametrize("seed", range(4))
def test_the_posterior_of_a_word_alone(seed):
    torch.manual_seed(seed)
    log_probs, lens = torch.randn(2, 5, 3).log_softmax(-1), torch.tensor([5, 4])
    hlg, words = graph(1)
    lattice = graph_lattice(hlg, log_probs, lens, 100.0, 100.0)
    best, said, _ = best_paths(lattice)
    for row, ((found,), (word,)) in enumerate(zip(word_posteriors(lattice, best), said, strict=True)):
        totals = sums_by_hand(log_probs[row, : lens[row]], 1)
        assert found == pytest.approx(totals[(words[word],)] / sum(totals.values()), abs=1e-4)


def test_words_are_counted_where_they_are():
    """Two words far apart: each has the share of the sentences that have it in its place."""
    log_probs = torch.full((1, 8, 3), -20.0)
    log_probs[0, [0, 2, 3, 4, 5, 7], 0] = 0.0
    log_probs[0, 1, 1:] = torch.tensor([0.7, 0.3]).log()
    log_probs[0, 6, 1:] = torch.tensor([0.2, 0.8]).log()
    hlg, words = graph(2)
    lattice = Lattice.of(DecodingGraph(hlg, words), log_probs, torch.tensor([8]), search_beam=50.0, output_beam=50.0)
    (hypothesis,) = lattice.best(1.0, 1.0)
    assert hypothesis.words == ["a", "b"] and hypothesis.word_scores == pytest.approx([0.7, 0.8], abs=1e-3)
