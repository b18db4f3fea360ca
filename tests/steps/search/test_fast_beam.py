"""Fast beam search against its plain version: every path of a tiny transducer, with and without a graph of words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from steps.search.fast_beam import transducer_fast_beam, transducer_fast_beam_nbest, with_end
from steps.search.lattice import DecodingGraph
from steps.search.transducer import modified_beam_search
from tests.steps.search.test_transducer_search import all_paths, log_probs_after, random_model, spoken
from tests.steps.search.tiny_graphs import TOKENS, graphs, sentence_scores, sentence_tokens

pytestmark = pytest.mark.k2

WIDE = {"search_beam": 1000.0, "max_states": 10000, "max_contexts": 10000}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"blank_penalty": 0.7, "temperature": 1.6}])
def test_the_best_path_is_the_best_of_all(seed, options):
    decoder, joiner, encoder_out, lens = random_model(seed, context_size=1 + seed % 3)
    found = transducer_fast_beam(spoken(decoder, joiner, encoder_out, lens), "transducer", **WIDE, **options)
    for frames, length, (h,) in zip(encoder_out, lens.tolist(), found, strict=True):
        paths = dict(all_paths(decoder, joiner, frames[:length], **options))
        best = max(paths, key=paths.get)
        assert h.score == pytest.approx(paths[best], abs=1e-4) and h.words is None
        assert list(zip(h.frames, h.tokens, strict=True)) == [(t, token) for t, token in enumerate(best) if token]


@pytest.mark.parametrize("seed", range(3))
def test_nbest_are_sums_over_all_paths_as_in_modified_beam_search(seed):
    decoder, joiner, encoder_out, lens = random_model(seed, context_size=1 + seed)
    options = {**WIDE, "num_paths": 5000, "nbest_scale": 0.1, "nbest": 40}
    found = transducer_fast_beam_nbest(spoken(decoder, joiner, encoder_out, lens), "transducer", **options)
    beam = modified_beam_search(decoder, joiner, encoder_out, lens, beam=40, nbest=40, length_norm=False)
    for hypotheses, others in zip(found, beam, strict=True):
        scores = {tuple(h.tokens): h.score for h in others}
        assert len(hypotheses) == len(scores) and hypotheses[0].tokens == others[0].tokens
        assert {tuple(h.tokens): h.score for h in hypotheses} == pytest.approx(scores, abs=1e-4)


def plain_search(decoder, joiner, frames, beam: float, contexts: int) -> tuple[tuple[int, ...], float]:
    """The same search over a dict: of paths with the same last tokens the best, of these what the limits leave."""
    kept = {(): (0.0, ())}
    for frame in frames:
        new: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
        highest = max(score for score, _ in kept.values())
        for score, path in kept.values():
            tokens = tuple(token for token in path if token)
            for symbol, log_prob in enumerate(log_probs_after(decoder, joiner, frame, tokens)):
                if symbol and score + log_prob < highest - beam:
                    continue
                key = (*tokens, *([symbol] if symbol else []))[-decoder.context_size :]
                new[key] = max(new.get(key, (-math.inf, ())), (score + log_prob, (*path, symbol)))
        ranked = sorted(new.items(), key=lambda item: -item[1][0])[:contexts]
        kept = {key: value for key, value in ranked if value[0] >= ranked[0][1][0] - beam}
    score, path = max(kept.values())
    return path, score


@pytest.mark.parametrize(("beam", "contexts"), [(1000.0, 1), (1000.0, 2), (1000.0, 4), (0.5, 100), (2.0, 3)])
def test_narrow_limits_are_the_search_over_a_dict(beam, contexts):
    decoder, joiner, encoder_out, lens = random_model(contexts, shape=(8, 15), vocab=7, blank_bias=1.0)
    for limits in ({"max_contexts": contexts, "max_states": 1000}, {"max_contexts": 1000, "max_states": contexts}):
        batch = spoken(decoder, joiner, encoder_out, lens)
        found = transducer_fast_beam(batch, "transducer", search_beam=beam, **limits)
        for frames, length, (h,) in zip(encoder_out, lens.tolist(), found, strict=True):
            path, score = plain_search(decoder, joiner, frames[:length], beam, contexts)
            assert list(zip(h.frames, h.tokens, strict=True)) == [(t, token) for t, token in enumerate(path) if token]
            assert h.score == pytest.approx(score, abs=1e-4)


def word_graph(order: int, lm_scale: float):
    """An LG as transducers are searched with, and by tokens the words that they may spell with their scaled scores."""
    lg, g, words = graphs(order)
    readings: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
    for sentence, score in sentence_scores(g, words, 4).items():
        readings.setdefault(sentence_tokens(sentence, words), {})[sentence] = lm_scale * score
    return DecodingGraph(with_end(lg, len(TOKENS)), words), readings


@pytest.mark.parametrize(("seed", "order", "lm_scale"), [(0, 1, 1.0), (1, 2, 0.3), (2, 3, 1.0), (3, 2, 2.0)])
def test_words_are_the_best_of_all_paths_and_sentences(seed, order, lm_scale):
    decoder, joiner, encoder_out, lens = random_model(seed)
    graph, readings = word_graph(order, lm_scale)
    batch, options = spoken(decoder, joiner, encoder_out, lens), {"graph": graph, "lm_scale": lm_scale, **WIDE}
    found = transducer_fast_beam(batch, "transducer", **options)
    more = transducer_fast_beam_nbest(batch, "transducer", num_paths=9000, nbest_scale=0.1, nbest=999, **options)
    for frames, length, (h,), several in zip(encoder_out, lens.tolist(), found, more, strict=True):
        if not length:
            assert (h.words, h.score) == ([], 0.0)
            continue
        totals = {
            (path, sentence): score + language
            for path, score in all_paths(decoder, joiner, frames[:length])
            for sentence, language in readings.get(tuple(token for token in path if token), {}).items()
        }
        path, sentence = max(totals, key=totals.get)
        assert h.words == [graph.words[word] for word in sentence]
        assert h.score == pytest.approx(totals[path, sentence], abs=1e-4)
        assert list(zip(h.frames, h.tokens, strict=True)) == [(t, token) for t, token in enumerate(path) if token]
        sums: dict[tuple[str, ...], float] = {}
        for path, score in all_paths(decoder, joiner, frames[:length]):
            for said, language in readings_of(graph, tuple(token for token in path if token)):
                sums[said] = np.logaddexp(sums.get(said, -np.inf), score + lm_scale * language)
        assert {tuple(other.words): other.score for other in several} == pytest.approx(sums, abs=1e-4)


def readings_of(graph: DecodingGraph, tokens: tuple[int, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Words and score of every way through an LG that reads these tokens (a G may back off although it need not)."""
    lg, end = graph.hlg, len(TOKENS)
    ragged = not isinstance(lg.aux_labels, torch.Tensor)
    written = lg.aux_labels.tolist() if ragged else [[word] for word in lg.aux_labels.tolist()]
    arcs = list(zip(lg.arcs.values().tolist(), written, lg.lm_scores.tolist(), strict=True))
    reached = [(0, (), 0.0)]
    for label in (*tokens, end):
        reached = [
            (arc[1], (*said, *(graph.words[word] for word in words if word > 0)), total + score)
            for state, said, total in reached
            for arc, words, score in arcs
            if arc[0] == state and arc[2] == label
        ]
    for _, said, total in reached:
        yield said, total
