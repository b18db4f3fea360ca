"""Fusion in beam search against sums written out by hand, and its scorers against the models that they are made of."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from steps.lm.combination import prune
from steps.lm.kneser_ney import estimate, vocabulary
from steps.lm.token_ngram import NgramScorer
from steps.search.ctc import ctc_prefix_beam
from steps.search.fusion import FLOOR, Fused
from steps.search.hotwords import Hotwords
from steps.search.transducer import InternalLm, modified_beam_search
from tests.steps.lm.ngram_text import WORDS, sentences
from tests.steps.search.test_ctc_search import all_labellings
from tests.steps.search.test_transducer_search import all_sequences, random_model
from utils.errors import UserError

TOKENS = ["<blk>", "<sos/eos>", "<unk>", *WORDS, "never"]
TEXT = sentences(250)


def make(order: int, threshold: float = 0.0):
    model = estimate(TEXT, order, vocabulary(TEXT)).model
    return prune(model, threshold) if threshold else model


def scored(scorer, tokens, end: bool = True) -> float:
    """The sum over a text and its end, step by step."""
    log_probs, state = scorer.begin(1)
    total = 0.0
    for token in tokens:
        total += float(log_probs[0, token])
        log_probs, state = scorer.extend(torch.tensor([token]), state)
    return total + float(log_probs[0, scorer.end_id]) if end else total


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("threshold", [0.0, 1e-3])
def test_an_ngram_scores_every_token_as_the_model_does(order, threshold):
    model = make(order, threshold)
    scorer = NgramScorer(model, TOKENS, "lm.arpa")
    rng = np.random.default_rng(order)
    texts = rng.integers(2, len(TOKENS), (50, 7))
    ids = np.array([model.ids.get(token, model.ids["<unk>"]) for token in TOKENS])
    ids[1] = model.ids["</s>"]
    log_probs, state = scorer.begin(len(texts))
    for length in range(texts.shape[1] + 1):
        context = np.concatenate((np.full((len(texts), 1), model.ids["<s>"]), ids[texts[:, :length]]), axis=1)
        for token in range(1, len(TOKENS)):
            expected = model.conditional(context, np.full(len(texts), ids[token]))
            assert log_probs[:, token].numpy() == pytest.approx(expected, abs=1e-5)
        if length < texts.shape[1]:
            log_probs, state = scorer.extend(torch.from_numpy(texts[:, length]), state)


def test_a_model_of_other_tokens_is_refused():
    few = [*TOKENS[:3], "x", "y", WORDS[0]]  # as letters are words of some languages
    with pytest.raises(UserError, match=r"lm.arpa has other words than the head's tokens: train it .*ngram --lang"):
        NgramScorer(make(2), few, "lm.arpa")


def ngram_of_two() -> NgramScorer:
    """Of token 2, behind which 1, the end, may stand."""
    text = [["2"] * length for length in (0, 1, 1, 3, 4)]
    return NgramScorer(estimate(text, 2, vocabulary(text)).model, ["<blk>", "<sos/eos>", "2"], "lm")


class History:
    """A scorer whose state is the text so far, which grows; token t behind u tokens is worth -t * u."""

    end_id = 1

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab

    def begin(self, rows):
        return self._scores(torch.zeros(rows, dtype=torch.int64)), (
            torch.zeros(rows, 0, dtype=torch.int64),
            torch.zeros(rows, dtype=torch.int64),
        )

    def extend(self, tokens, state):
        past, size = state
        past = torch.nn.functional.pad(past, (0, int(int(size.max()) + 1 > past.shape[1])))
        past = past.scatter(1, size[:, None], tokens[:, None])
        return self._scores(past.sum(1)), (past, size + 1)

    def _scores(self, total):
        return -0.3 * (total[:, None] + 1) * torch.arange(self.vocab)


@pytest.mark.parametrize("seed", range(6))
def test_full_beam_is_all_paths_and_what_the_scorers_add(seed):
    decoder, joiner, encoder_out, lens = random_model(seed, context_size=1 + seed % 2)
    internal = InternalLm(decoder, joiner)
    scorers = [(ngram_of_two(), 0.7), (History(3), 0.4), (internal, -0.3)]
    options = {"beam": 40, "nbest": 40, "length_norm": False}
    found = modified_beam_search(decoder, joiner, encoder_out, lens, scorers=scorers, **options)
    for frames, length, hypotheses in zip(encoder_out, lens.tolist(), found, strict=True):
        truth = {}
        for tokens, score in all_sequences(decoder, joiner, frames[:length]).items():
            added = sum(scale * scored(scorer, tokens) for scorer, scale in scorers[:2])
            added -= 0.3 * scored(internal, tokens, end=False)
            truth[tokens] = score + added
        assert {tuple(h.tokens): h.score for h in hypotheses} == pytest.approx(truth, abs=1e-4)
        assert tuple(hypotheses[0].tokens) == max(truth, key=truth.get)


@pytest.mark.parametrize("seed", range(4))
def test_the_full_prefix_beam_is_all_alignments_and_what_the_scorers_add(seed):
    torch.manual_seed(seed)
    log_probs, lens = (2 * torch.randn(4, 4, 3)).log_softmax(2), torch.tensor([4, 3, 0, 1])
    scorers = [(ngram_of_two(), 0.7), (History(3), 0.4)]
    found = ctc_prefix_beam(log_probs, lens, beam=40, nbest=40, scorers=scorers)
    for frames, length, hypotheses in zip(log_probs, lens.tolist(), found, strict=True):
        truth = all_labellings(frames[:length])
        for tokens in truth:
            truth[tokens] += sum(scale * scored(scorer, tokens) for scorer, scale in scorers)
        assert {tuple(h.tokens): h.score for h in hypotheses} == pytest.approx(truth, abs=1e-4)
        assert tuple(hypotheses[0].tokens) == max(truth, key=truth.get)


def test_the_internal_model_is_the_joiner_without_the_encoder():
    decoder, joiner, *_ = random_model(3)
    log_probs, _ = InternalLm(decoder, joiner).begin(1)
    out = joiner.decoder_proj(decoder(torch.tensor([[-1, 0]])))[0]
    logits = joiner.output_linear(torch.tanh(out))
    assert log_probs[0, 1:].tolist() == pytest.approx(logits[1:].log_softmax(0).tolist(), abs=1e-5)
    assert math.isinf(float(log_probs[0, 0]))


def test_a_small_beam_of_many_is_that_of_each_alone():
    decoder, joiner, encoder_out, lens = random_model(2, shape=(6, 9))
    scorers = [(History(3), 0.2), (InternalLm(decoder, joiner), -0.2)]
    together = modified_beam_search(decoder, joiner, encoder_out, lens, beam=3, scorers=scorers)
    for n, length in enumerate(lens.tolist()):
        one = (encoder_out[n : n + 1, : max(length, 1)], lens[n : n + 1])
        (alone,) = modified_beam_search(decoder, joiner, *one, beam=3, scorers=scorers)
        assert alone[0].tokens == together[n][0].tokens and alone[0].frames == together[n][0].frames
        assert alone[0].score == pytest.approx(together[n][0].score, abs=1e-4)


def test_impossible_tokens_do_not_win_when_a_model_is_subtracted():
    class Never:
        end_id = 1

        def begin(self, rows):
            return torch.full((rows, 3), -math.inf), (torch.zeros(rows),)

    fused = Fused.start([(Never(), -0.5)], batch=1, beam=2, blank=0)
    assert fused.scores[0, 0].tolist() == [0.0, -0.5 * FLOOR, -0.5 * FLOOR]


PIECES = ["<blk>", "<sos/eos>", "<unk>", "▁a", "▁b", "c", "d"]
PHRASES = {("▁a", "c"): 1.0, ("▁a", "c", "d"): 0.5, ("▁b",): 2.0, ("▁a", "▁b"): 1.5, ("▁a", "c", "▁b", "d"): 0.7}


def bonus_of(text: tuple[str, ...]) -> float:
    """Of every place where a phrase stands as whole words."""
    total = 0.0
    for phrase, bonus in PHRASES.items():
        for start in range(len(text) - len(phrase) + 1):
            after = text[start + len(phrase) : start + len(phrase) + 1]
            if text[start : start + len(phrase)] == phrase and (not after or after[0].startswith("▁")):
                total += bonus * len(phrase)
    return total


def hotwords(device="cpu") -> Hotwords:
    words = [[PIECES.index(piece) for piece in phrase] for phrase in PHRASES]
    return Hotwords(words, list(PHRASES.values()), [piece.startswith("▁") for piece in PIECES], device=device)


def test_hotwords_are_worth_their_bonus_where_they_are_whole_words():
    scorer = hotwords()
    for length in range(6):
        for text in itertools.product(PIECES[3:], repeat=length):
            total = scored(scorer, [PIECES.index(piece) for piece in text])
            assert total == pytest.approx(bonus_of(text), abs=1e-4), text


def test_a_bonus_is_given_on_the_way():
    log_probs, state = hotwords().begin(1)
    assert log_probs[0].tolist() == [0, 0, 0, pytest.approx(1.5), 2.0, 0, 0]
    log_probs, _ = hotwords().extend(torch.tensor([3]), state)
    assert float(log_probs[0, 6]) == pytest.approx(-1.5)  # no phrase goes on with it: taken back


@pytest.mark.skipif(torch.__version__ < "2", reason="torch 1.13 has no searchsorted on the meta device")
@torch.inference_mode()
@pytest.mark.parametrize("make_scorer", [lambda: NgramScorer(make(3), TOKENS, "lm"), hotwords])
def test_scorers_stay_on_their_device(make_scorer):
    """Only the table's sizes are known on the host."""
    scorer, meta = make_scorer(), torch.device("meta")
    for holder in (scorer, scorer.trie):
        for name, value in vars(holder).items():
            if isinstance(value, torch.Tensor):
                setattr(holder, name, value.to(meta))
    log_probs, state = scorer.begin(3)
    log_probs, state = scorer.extend(torch.zeros(3, dtype=torch.int64, device=meta), state)
    assert log_probs.device == meta and state[0].device == meta
