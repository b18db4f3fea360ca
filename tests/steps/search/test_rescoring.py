"""N-best lists rescored by texts, attention and CTC: sums that anyone can check, and nothing without a scale."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from steps.lm.backoff import encode
from steps.lm.text_scorer import NgramTextScorer
from steps.nets.attention_head import AttentionConfig, AttentionHead
from steps.nets.speech import Encoded
from steps.search.attention import attention_beam_search
from steps.search.ctc import ctc_prefix_beam
from steps.search.nbest import ctc_graph
from steps.search.rescoring import UNKNOWN, ctc_rescore, rescoring
from steps.search.spoken import Spoken
from tests.steps.search.tiny_graphs import decoding_graph, heard, language_model

LENS = [6, 5, 0, 4]


class Lengths:
    """A model of texts that likes long ones, but one of two words it does not know; it counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, texts, languages):
        self.asked += 1
        assert set(languages) <= {"en", "fr"}
        lengths = np.array([float(len(text)) for text in texts])
        unknown = np.array([text == "xy" for text in texts])
        return SimpleNamespace(known=lengths, rest=np.where(unknown, -np.inf, 0.0), unknown=1 * unknown)


def batch(seed: int = 0, lens=LENS):
    torch.manual_seed(seed)
    return heard((2 * torch.randn(4, 6, 3)).log_softmax(-1), torch.tensor(lens), ["en", "fr", "en", "fr"])


def prefix_beam(spoken, key, **options):
    return ctc_prefix_beam(spoken.log_probs(key), spoken.encoded.lens, **options)


def test_scores_of_texts_are_added_and_asked_for_once():
    spoken, scorer, search = batch(), Lengths(), rescoring(prefix_beam)
    first = prefix_beam(spoken, "ctc", beam=6, nbest=6)
    for scale in (0.0, 0.5, 2.0):
        found = search(spoken, "ctc", 6, nbest=6, rescore_lm=scorer, rescore_scale=scale)
        for hypotheses, ranked in zip(first, found, strict=True):
            texts = [spoken.text("ctc", one) for one in hypotheses]
            gains = [-UNKNOWN + 2 if text == "xy" else len(text) for text in texts]
            totals = {text: one.score + scale * gain for text, one, gain in zip(texts, hypotheses, gains, strict=True)}
            assert [one.score for one in ranked] == pytest.approx(sorted(totals.values(), reverse=True))
            assert [totals[spoken.text("ctc", one)] for one in ranked] == pytest.approx([one.score for one in ranked])
            assert all(set(one.parts) == ({"first", "rescore"} if scale else {"first"}) for one in ranked)
    assert scorer.asked == 1


def test_attention_scores_are_those_of_its_beam_search():
    torch.manual_seed(1)
    sizes = {"dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 16, "dropout": 0.0}
    config = AttentionConfig(name="attention", target="text", lang="x", decoder=sizes)
    head = AttentionHead(config, 8, 5).eval()
    spoken = Spoken({"attention": head}, Encoded(torch.randn(4, 6, 8), torch.tensor([6, 5, 1, 4])))
    spoken.prompts = {"attention": torch.ones(4, 1, dtype=torch.int64)}
    spoken.decoders = {"attention": str}

    def beam(spoken, key, **options):
        return attention_beam_search(*spoken.at(key), spoken.prompts[key], max_tokens=5, length_penalty=0.0, **options)

    with torch.inference_mode():
        found = rescoring(beam)(spoken, "attention", 4, attention_head="attention", attention_scale=2.0, nbest=4)
    scores = [one.parts for hypotheses in found for one in hypotheses]
    assert len(scores) > 8
    assert [parts["attention"] for parts in scores] == pytest.approx([parts["first"] for parts in scores], abs=1e-4)
    assert found[0][0].score == pytest.approx(3 * found[0][0].parts["first"], abs=1e-3)


def test_ctc_scores_are_those_of_its_prefix_beam_and_what_does_not_fit_is_dear():
    spoken = batch(2)
    found = rescoring(prefix_beam)(spoken, "ctc", 200, ctc_head="ctc", ctc_scale=1.0, nbest=200)
    parts = [one.parts for hypotheses in found for one in hypotheses]
    assert [part["ctc"] for part in parts] == pytest.approx([part["first"] for part in parts], abs=1e-3)

    def impossible(spoken, key, **_):
        return [[type(one)(7 * [1], [0] * 7, 0.0, [0.0] * 7) for one in row] for row in prefix_beam(spoken, key)]

    for (one,) in rescoring(impossible)(spoken, "ctc", 1, ctc_head="ctc", ctc_scale=1.0):
        assert one.parts["ctc"] == -7 * UNKNOWN


def test_an_n_gram_model_of_words_scores_as_perplexity_does():
    """One that stands for all: what `steps.lm.text_scorer` gives is read as it is meant."""
    spoken, model = batch(4), language_model(2)
    first = prefix_beam(spoken, "ctc", beam=6, nbest=6)
    found = rescoring(prefix_beam)(spoken, "ctc", 6, nbest=6, rescore_lm=NgramTextScorer(model), rescore_scale=0.7)
    for hypotheses, ranked in zip(first, found, strict=True):
        scores = {one.score for one in hypotheses}
        for one in ranked:
            ids, places = encode([spoken.text("ctc", one).split()], model.ids)
            log_prob = model.score(ids, places).log_prob
            assert one.parts["rescore"] == pytest.approx(np.where(np.isinf(log_prob), -UNKNOWN, log_prob).sum())
            assert one.score == pytest.approx(one.parts["first"] + 0.7 * one.parts["rescore"])
            assert one.parts["first"] in scores


@pytest.mark.k2
def test_lattices_rescored():
    spoken, scorer, graph = batch(3), Lengths(), decoding_graph(2)
    plain = ctc_graph(spoken, "ctc", graph, 0.7, nbest=20)
    for options in ({}, {"rescore_lm": scorer, "rescore_scale": 0.0}):
        same = ctc_rescore(spoken, "ctc", graph, 0.7, nbest=20, **options)
        for hypotheses, ranked in zip(plain, same, strict=True):
            assert [(one.words, one.tokens) for one in ranked[:3]] == [
                (one.words, one.tokens) for one in hypotheses[:3]
            ]
            assert [one.score for one in ranked] == pytest.approx([one.score for one in hypotheses], abs=1e-3)
    for lm_scale, scale in ((0.7, 1.5), (0.0, 1.5), (1.0, 0.2)):
        found = ctc_rescore(spoken, "ctc", graph, lm_scale, nbest=100, rescore_lm=scorer, rescore_scale=scale)
        for row, hypotheses in enumerate(found):
            scores = [one.score for one in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for one in hypotheses if LENS[row] else []:
                assert one.parts["rescore"] == len(" ".join(one.words))
                parts = one.parts["am"] + lm_scale * one.parts["lm"] + scale * one.parts["rescore"]
                assert one.score == pytest.approx(parts)
        assert (found[2][0].words, found[2][0].score) == ([], 0.0)
    assert scorer.asked == 1
