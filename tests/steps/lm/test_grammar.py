"""G: the graph of an n-gram model says what the model says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from steps.lang.tables import word_table
from steps.lm.backoff import BackoffModel, encode
from steps.lm.combination import prune
from steps.lm.grammar import BACKOFF, grammar
from steps.lm.kneser_ney import estimate, vocabulary
from tests.steps.lm.ngram_text import WORDS, sentences
from utils.errors import UserError

TEXT, OTHER = sentences(250), [*sentences(60, seed=1), ["the"], []]
TABLE = word_table(WORDS)


def make(order: int) -> BackoffModel:
    return estimate(TEXT, order, vocabulary(TEXT)).model


def walk(arcs, labels: list[int], backoff: int) -> float:
    """The score of the only path that takes a word where there is one, and backs off where there is none."""
    leaving: dict[int, dict[int, tuple[int, float]]] = {}
    for source, target, label, score in zip(arcs.source, arcs.target, arcs.label, arcs.score, strict=True):
        assert int(label) not in leaving.setdefault(int(source), {})  # deterministic
        leaving[int(source)][int(label)] = int(target), float(score)
    state, total = 0, 0.0
    for label in [*labels, -1]:
        while label not in leaving[state]:
            state, score = leaving[state][backoff]
            total += score
        state, score = leaving[state][label]
        total += score
    assert state == arcs.target.max()
    return total


def check_scores(arcs, model):
    """Sentences score in the arcs as in the model."""
    ids, places = encode(OTHER, model.ids)
    scores = np.add.reduceat(model.score(ids, places).log_prob, np.flatnonzero(places == 0))
    for sentence, expected in zip(OTHER, scores, strict=True):
        found = walk(arcs, [TABLE.index(word) for word in sentence], TABLE.index(BACKOFF))
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("threshold", [0, 1e-3])
def test_a_sentence_scores_as_in_the_model(order, threshold):
    model = prune(make(order), threshold) if threshold else make(order)
    arcs, missing = grammar(model, TABLE)
    assert missing == ["<unk>"]
    check_scores(arcs, model)


def test_weights_of_contexts_that_nothing_follows_are_kept():
    """Other tools write a back-off weight where no longer n-gram is: the arcs there have it."""
    model = make(3)
    model = model.keep([np.ones(n, dtype=bool) if k != 2 else np.arange(n) % 3 > 0 for k, n in enumerate(model.counts)])
    model.orders[1].backoff -= 0.25
    check_scores(grammar(model, TABLE)[0], model)


@pytest.mark.k2
def test_k2_finds_the_best_path():
    """Against all paths of a two-word sentence, counted out; `#0` reads nothing."""
    import k2

    arcs, _ = grammar(make(3), TABLE)
    graph, backoff = arcs.to_k2(acceptor=True), TABLE.index(BACKOFF)
    graph.labels = torch.where(graph.labels == backoff, 0, graph.labels)
    words = [TABLE.index(word) for word in ("cat", "sees")]
    lattice = k2.intersect(k2.arc_sort(graph), k2.arc_sort(k2.linear_fsa(words)), treat_epsilons_specially=True)
    best = k2.create_fsa_vec([k2.connect(lattice)]).get_tot_scores(use_double_scores=True, log_semiring=False)

    def paths(state: int, rest: tuple[int, ...]) -> list[float]:
        if state == arcs.target.max():
            return [0.0] if not rest else []
        rows = np.flatnonzero(arcs.source == state)
        found = []
        for row in rows:
            label = int(arcs.label[row])
            if label == backoff:
                onward = paths(int(arcs.target[row]), rest)
            elif rest and label == rest[0]:
                onward = paths(int(arcs.target[row]), rest[1:])
            else:
                continue
            found += [float(arcs.score[row]) + score for score in onward]
        return found

    every = paths(0, (*words, -1))
    assert len(every) > 3 and best.item() == pytest.approx(max(every), abs=1e-4)


def test_openfst_text():
    arcs, _ = grammar(make(2), TABLE)
    lines = arcs.to_openfst().splitlines()
    assert len(lines) == len(arcs.label) and all(len(line.split()) in (2, 5) for line in lines)
    finals = [line for line in lines if len(line.split()) == 2]
    assert len(finals) == (arcs.label == -1).sum()
    total = sum(math.exp(-float(line.split()[-1])) for line in itertools.islice(finals, 1))
    assert 0 < total < 1


def test_words_that_the_table_lacks_are_named_and_left_out():
    arcs, missing = grammar(make(2), word_table(WORDS[:10]))
    assert set(missing) == {"<unk>", *WORDS[10:]} and arcs.label.max() < len(word_table(WORDS[:10]))
    with pytest.raises(UserError, match=r"has none of the words of words.txt \(but <unk> a and \.\.\.\)"):
        grammar(make(2), word_table(["walrus"]))
    with pytest.raises(UserError, match=r"words\.txt has no #0: make it again with stage 3"):
        grammar(make(2), WORDS)
