"""HLG's best path and its score, against all alignments of a tiny vocabulary counted out."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from steps.lang.arcs import Arcs
from steps.lang.graph import any_sentence, load_graph
from steps.lang.graph import main as make_graph
from steps.lang.hlg import compose_hlg, compose_lg
from steps.lang.lexicon import BACKOFF, disambiguated, lexicon_graph
from steps.lang.prepare import prepare
from steps.lang.tables import read_table, word_table
from steps.lang.tokenizer import Tokenizer
from steps.lm.backoff import BOS, EOS
from steps.lm.ngram import main as ngram
from steps.search import lattice
from steps.search.ctc import ctc_greedy
from steps.search.hypothesis import NO_PATH
from steps.search.lattice import DecodingGraph, best_paths, graph_lattice, topology_graph
from steps.search.nbest import ctc_graph, ctc_nbest, ctc_topology
from steps.search.plan import plan_searches
from tests.steps.lm.ngram_text import sentences
from tests.steps.search.tiny_graphs import (
    ENTRIES,
    TOKENS,
    acoustic_scores,
    decoding_graph,
    graphs,
    heard,
    sentence_scores,
    sentence_tokens,
)
from utils.errors import UserError

pytestmark = pytest.mark.k2


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_path_is_the_best_of_all(order, seed):
    torch.manual_seed(seed)
    lens = torch.tensor([3, 5, 1])
    log_probs = (2 * torch.randn(3, 5, 3)).log_softmax(-1)
    lg, g, words = graphs(order)
    hlg = compose_hlg(lg, len(TOKENS))
    _, found, scores = best_paths(graph_lattice(hlg, log_probs, lens, 100.0, 100.0))
    language = sentence_scores(g, words, 5)
    for row, length in enumerate(lens.tolist()):
        acoustic = acoustic_scores(log_probs[row], length)
        totals = {
            sentence: acoustic[tokens] + score
            for sentence, score in language.items()
            if (tokens := sentence_tokens(sentence, words)) in acoustic
        }
        best = max(totals, key=totals.__getitem__)
        assert scores[row].item() == pytest.approx(totals[best], abs=1e-3)
        assert tuple(found[row]) == best


@pytest.mark.parametrize("seed", range(3))
def test_without_a_language_model_the_best_spelling_wins(seed):
    torch.manual_seed(seed)
    words = word_table(word for word, _ in ENTRIES)
    spelled, highest = disambiguated(ENTRIES)
    table = [*TOKENS, *(f"#{number}" for number in range(highest + 1))]
    lexicon, g = lexicon_graph(spelled, table, words, loops=True).to_k2(), any_sentence(words).to_k2(acceptor=True)
    hl = compose_hlg(compose_lg(lexicon, g, len(TOKENS), words.index(BACKOFF)), len(TOKENS))
    log_probs, length = (2 * torch.randn(1, 5, 3)).log_softmax(-1), 5
    ((best,),) = ctc_graph(heard(log_probs, torch.tensor([length])), "ctc", DecodingGraph(hl, words))
    acoustic = acoustic_scores(log_probs[0], length)  # every sequence of tokens is one of words
    assert best.score == pytest.approx(max(acoustic.values()), abs=1e-4) and best.parts["lm"] == 0.0
    assert acoustic[sentence_tokens([words.index(word) for word in best.words], words)] == pytest.approx(best.score)


def test_nothing_that_is_no_word_is_written():
    _, _, words = graphs(2)
    lg, _, _ = graphs(2)
    written = set(lg.aux_labels.values.tolist())
    assert not written & {words.index(symbol) for symbol in (BACKOFF, BOS, EOS)} and lg.labels.max() < len(TOKENS)


def test_the_topology_alone_gives_the_most_probable_labels():
    log_probs, lens = (2 * torch.randn(4, 9, 5)).log_softmax(-1), torch.tensor([3, 9, 0, 7])
    found = ctc_topology(heard(log_probs, lens), "ctc", "standard")
    for (one,), (other,) in zip(found, ctc_greedy(log_probs, lens), strict=True):
        assert (one.tokens, one.frames, one.words) == (other.tokens, other.frames, None)
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.token_scores == pytest.approx(other.token_scores)


def test_a_cpu_searches_some_at_a_time(monkeypatch):
    graph = decoding_graph(2)
    log_probs, lens = (2 * torch.randn(7, 9, 3)).log_softmax(-1), torch.tensor([3, 9, 0, 7, 1, 8, 5])
    together = ctc_graph(heard(log_probs, lens), "ctc", graph, confidence_scale=1.0)
    monkeypatch.setattr(lattice, "AT_ONCE", 2)
    assert ctc_graph(heard(log_probs, lens), "ctc", graph, confidence_scale=1.0) == together


def test_the_modified_topology_needs_no_blank_between_equal_tokens():
    log_probs = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]]).log()[None]
    ((one,),) = ctc_topology(heard(log_probs, torch.tensor([3])), "ctc", "modified")
    assert one.tokens in ([1, 2], [1, 1, 2]) and one.score == pytest.approx(math.log(0.8 * 0.8 * 0.7))


def test_a_topology_that_would_not_fit_is_refused():
    with pytest.raises(UserError, match=r"--topology standard has 51865² arcs .*: give --topology modified"):
        topology_graph(51865, False, torch.device("cpu"))


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
    spoken, graph = heard(log_probs, torch.tensor([3, 6])), DecodingGraph(compose_hlg(lg, 3), words)
    for search in (partial(ctc_graph, nbest=3), ctc_graph, ctc_nbest):
        (nothing,), (whole,) = search(spoken, "ctc", graph)
        assert (nothing.tokens, nothing.words, nothing.score) == ([], [], NO_PATH) and whole.words == ["long"]


def test_beams_are_widened_where_they_leave_no_path(monkeypatch):
    """With one state a frame the path to the end is lost."""
    torch.manual_seed(0)
    log_probs, lens = (2 * torch.randn(4, 6, 3)).log_softmax(-1), torch.tensor([6, 5, 6, 4])
    graph, tight = decoding_graph(2), {"search_beam": 0.5, "max_active": 1}
    _, _, scores = best_paths(graph_lattice(graph.hlg, log_probs, lens, **tight))
    found = [row[0] for row in ctc_graph(heard(log_probs, lens), "ctc", graph, **tight)]
    lost = scores.isinf().tolist()
    assert any(lost) and not all(lost) and all(hypothesis.score > NO_PATH for hypothesis in found)
    kept = [(row.score, score) for row, score, gone in zip(found, scores.tolist(), lost, strict=True) if not gone]
    assert [one for one, _ in kept] == pytest.approx([other for _, other in kept])


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
        (first,), (second,) = ctc_graph(heard(log_probs * 1, lens * 1), "ctc", graph)
    assert first.words == text.split() and first.tokens == ids
    assert first.frames == [3 * place for place in range(len(ids))]
    values = [float(log_probs[0, 3 * place, token]) for place, token in enumerate(ids)]
    assert first.token_scores == pytest.approx(values, abs=1e-5)
    _, words, scores = best_paths(graph_lattice(load_graph(folder / "graph"), log_probs, lens))
    assert [[table[word] for word in row] for row in words] == [first.words, second.words]
    assert [first.score, second.score] == pytest.approx(scores.tolist(), abs=1e-3)
    for search in (ctc_graph, partial(ctc_graph, nbest=2), ctc_nbest):
        (nothing,), (again, *_) = search(heard(log_probs, torch.tensor([0, 4])), "ctc", graph)
        assert (nothing.tokens, nothing.score, nothing.words) == ([], 0.0, []) and again.words == second.words
        assert all(row[0].words == [] for row in search(heard(log_probs[:, :0], torch.tensor([0, 0])), "ctc", graph))
    silent = ctc_graph(heard(log_probs, lens), "ctc", graph, lm_scale=0.0)[0][0]
    assert silent.score > first.score and silent.score == pytest.approx(silent.parts["am"])


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        (["ctc:hlg"], {}, "--search ctc:hlg wants --graph: give it, or another search"),
        (
            ["ctc:greedy"],
            {"lm_scale": 2.0},
            "--lm-scale does nothing for ctc:greedy: it is an option of ctc:hlg",
        ),
    ],
)
def test_a_search_without_its_graph(names, options, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_searches(names, {"ctc": "ctc"}, options, "exp/m")


def test_all_methods_are_those_that_have_what_they_need():
    every = [search.label for search in plan_searches([], {"ctc": "ctc"}, {"graph": "g"}, "exp/m")]
    without = [search.label for search in plan_searches([], {"ctc": "ctc"}, {}, "exp/m")]
    assert every == ["greedy", "hlg", "nbest", "prefix_beam"] and without == ["greedy", "prefix_beam"]
