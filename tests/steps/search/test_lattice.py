"""HLG's best path and its score, against all alignments of a tiny vocabulary counted out."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch

from steps.lang.arcs import Arcs
from steps.lang.graph import load_graph
from steps.lang.graph import main as make_graph
from steps.lang.hlg import compose_hlg, compose_lg
from steps.lang.lexicon import BACKOFF, disambiguated, lexicon_graph
from steps.lang.prepare import prepare
from steps.lang.tables import read_table, word_table
from steps.lang.tokenizer import Tokenizer
from steps.lm.backoff import BOS, EOS
from steps.lm.grammar import grammar
from steps.lm.kneser_ney import estimate, vocabulary
from steps.lm.ngram import main as ngram
from steps.objectives.backend import load_k2
from steps.search.ctc import ctc_greedy
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import NO_PATH, DecodingGraph, best_paths, ctc_hlg, graph_lattice
from steps.search.plan import plan_searches
from tests.steps.lm.ngram_text import sentences
from utils.errors import UserError

pytestmark = pytest.mark.k2

ENTRIES = [("a", ("x",)), ("ab", ("x", "y")), ("b", ("y",)), ("bee", ("y",)), ("aa", ("x", "x"))]
TEXT = [["a", "b"], ["ab"], ["ab", "a"], ["bee", "a"], ["b", "b"], ["aa", "b"], ["a"], ["a", "bee", "ab"]]
TOKENS = ["<blk>", "x", "y"]


def graphs(order: int):
    """HLG, and the arcs of its G, over an n-gram model of this order."""
    model = estimate(TEXT, order, vocabulary(TEXT)).model
    words = word_table(vocabulary(TEXT))
    spelled, highest = disambiguated(ENTRIES)
    table = [*TOKENS, *(f"#{i}" for i in range(highest + 1))]
    g, _ = grammar(model, words)
    lg = compose_lg(
        lexicon_graph(spelled, table, words, loops=True).to_k2(),
        g.to_k2(acceptor=True),
        len(TOKENS),
        words.index(BACKOFF),
    )
    return lg, g, words


def sentence_scores(g, words: list[str], longest: int) -> dict[tuple[int, ...], float]:
    """The best path of G for every sentence of up to `longest` words."""
    spoken = [words.index(word) for word, _ in ENTRIES]
    backoff, end = words.index(BACKOFF), int(g.target.max())

    leaving: dict[int, list[tuple[int, int, float]]] = {}
    for source, *arc in zip(g.source.tolist(), g.label.tolist(), g.target.tolist(), g.score.tolist(), strict=True):
        leaving.setdefault(source, []).append(tuple(arc))

    @cache
    def best(state: int, rest: tuple[int, ...]) -> float:
        found = [-np.inf]
        for label, target, score in leaving.get(state, []):
            if label == backoff:
                found.append(score + best(target, rest))
            elif label == -1 and not rest and target == end:
                found.append(score)
            elif rest and label == rest[0]:
                found.append(score + best(target, rest[1:]))
        return max(found)

    sentences = itertools.chain(*(itertools.product(spoken, repeat=n) for n in range(longest + 1)))
    return {sentence: best(0, sentence) for sentence in sentences}


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_path_is_the_best_of_all(order, seed):
    torch.manual_seed(seed)
    lens = torch.tensor([3, 5, 1])
    log_probs = (2 * torch.randn(3, 5, 3)).log_softmax(-1)
    lg, g, words = graphs(order)
    hlg = compose_hlg(lg, len(TOKENS))
    _, found, scores = best_paths(graph_lattice(hlg, log_probs, lens, 100.0, 100.0))
    spelled = {words.index(word): tuple(TOKENS.index(t) for t in tokens) for word, tokens in ENTRIES}
    language = sentence_scores(g, words, 5)
    for row, length in enumerate(lens.tolist()):
        acoustic: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(3), repeat=length):
            tokens = tuple(token for token, _ in itertools.groupby(path) if token)
            score = sum(float(log_probs[row, t, token]) for t, token in enumerate(path))
            acoustic[tokens] = max(acoustic.get(tokens, -np.inf), score)
        totals = {
            sentence: acoustic[tokens] + score
            for sentence, score in language.items()
            if (tokens := tuple(t for word in sentence for t in spelled[word])) in acoustic
        }
        best = max(totals, key=totals.__getitem__)
        assert scores[row].item() == pytest.approx(totals[best], abs=1e-3)
        assert tuple(found[row]) == best


def test_nothing_that_is_no_word_is_written():
    _, _, words = graphs(2)
    lg, _, _ = graphs(2)
    written = set(lg.aux_labels.values.tolist())
    assert not written & {words.index(symbol) for symbol in (BACKOFF, BOS, EOS)} and lg.labels.max() < len(TOKENS)


def test_the_topology_alone_gives_the_most_probable_labels():
    log_probs, lens = (2 * torch.randn(4, 9, 5)).log_softmax(-1), torch.tensor([3, 9, 1, 7])
    _, found, scores = best_paths(graph_lattice(load_k2().ctc_topo(4), log_probs, lens, 100.0, 100.0))
    for row, length in enumerate(lens.tolist()):
        best, labels = log_probs[row, :length].max(-1)
        assert found[row] == [token for token, _ in itertools.groupby(labels.tolist()) if token]
        assert scores[row].item() == pytest.approx(float(best.sum()), abs=1e-4)


def test_an_utterance_that_the_graph_has_no_path_for_is_empty():
    """Three frames for a word of five tokens."""
    words, entries = word_table(["long"]), [("long", ("x", "y", "x", "y", "x"))]
    word = words.index("long")
    g = Arcs.of_rows([(0, 1, word, word, 0.0), (1, 2, -1, -1, 0.0)])
    lg = compose_lg(
        lexicon_graph(entries, [*TOKENS, BACKOFF], words, loops=True).to_k2(),
        g.to_k2(acceptor=True),
        3,
        words.index(BACKOFF),
    )
    log_probs = torch.full((2, 6, 3), -5.0)
    for frame, token in enumerate([1, 2, 1, 2, 1, 0]):
        log_probs[:, frame, token] = 0.0
    _, found, scores = best_paths(graph_lattice(compose_hlg(lg, 3), log_probs, torch.tensor([3, 6]), 100.0, 100.0))
    assert found == [[], [word]] and scores.tolist() == [-np.inf, 0.0]
    (nothing,), (whole,) = ctc_hlg(log_probs, torch.tensor([3, 6]), DecodingGraph(compose_hlg(lg, 3), words))
    assert (nothing.tokens, nothing.words, nothing.score) == ([], [], NO_PATH) and whole.words == ["long"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What steps.lang.graph writes of a text in letters."""
    folder = tmp_path_factory.mktemp("hlg")
    texts = [" ".join(line) for line in sentences(60)]
    about = {"targets": ["text"], "tags": False, "same_language": False}
    prepare({"en": texts}, folder / "lang", "char", about, 0, "")
    (folder / "text").write_text("\n".join(texts))
    lm = ["--out", str(folder / "lm")]
    assert ngram(["train", "--backend", "numpy", "--order", "2", "--text", str(folder / "text"), *lm]) == 0
    lang = ["--lang", str(folder / "lang"), "--lm", str(folder / "lm")]
    assert make_graph([*lang, "--out", str(folder / "graph")]) == 0
    return folder


def test_hypotheses_have_words_tokens_and_frames(folder):
    """Noise around a sentence's letters: the graph finds it where the best labels do not."""
    tokenizer, text = Tokenizer.load(folder / "lang"), "the cat sees"
    ids = tokenizer.encode(text)
    torch.manual_seed(1)
    logits = 2.5 * torch.randn(2, 3 * len(ids), len(tokenizer.tokens))
    for place, token in enumerate(ids):
        logits[0, 3 * place, token] += 7.0
        logits[0, 3 * place + 1 : 3 * place + 3, 0] += 9.0
    log_probs, lens = logits.log_softmax(-1), torch.tensor([logits.shape[1], 4])
    (plain,), _ = ctc_greedy(log_probs, lens)
    assert tokenizer.decode(plain.tokens) != text
    table = read_table(folder / "graph/words.txt")
    graph = DecodingGraph(load_graph(folder / "graph"), table)
    with torch.inference_mode():  # as programs search
        (first,), (second,) = ctc_hlg(log_probs * 1, lens * 1, graph)
    assert first.words == text.split() and first.tokens == ids
    assert first.frames == [3 * place for place in range(len(ids))]
    assert first.token_scores == pytest.approx([float(log_probs[0, 3 * i, token]) for i, token in enumerate(ids)])
    _, words, scores = best_paths(graph_lattice(load_graph(folder / "graph"), log_probs, lens))
    assert [[table[word] for word in row] for row in words] == [first.words, second.words]
    assert [first.score, second.score] == pytest.approx(scores.tolist(), abs=1e-3)
    assert ctc_hlg(log_probs, torch.tensor([0, 4]), graph) == [[Hypothesis([], [], 0.0, [], [])], [second]]
    assert ctc_hlg(log_probs[:, :0], torch.tensor([0, 0]), graph) == 2 * [[Hypothesis([], [], 0.0, [], [])]]
    silent = ctc_hlg(log_probs, lens, graph, lm_scale=1e-6)[0][0]
    assert silent.score > first.score


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        (["ctc:hlg"], {}, "--search ctc:hlg wants --graph: give it, or another search"),
        (["ctc:greedy"], {"lm_scale": 2.0}, "--lm-scale does nothing for ctc:greedy: it is an option of ctc:hlg"),
    ],
)
def test_a_search_without_its_graph(names, options, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_searches(names, {"ctc": "ctc"}, options, "exp/m")


def test_all_methods_are_those_that_have_what_they_need():
    every = [search.label for search in plan_searches([], {"ctc": "ctc"}, {"graph": "g"}, "exp/m")]
    without = [search.label for search in plan_searches([], {"ctc": "ctc"}, {}, "exp/m")]
    assert every == ["greedy", "hlg", "prefix_beam"] and without == ["greedy", "prefix_beam"]
