"""Searches for an attention head against enumeration of all texts, and their limits one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from steps.nets.heads import build_head, head_config
from steps.search import attention
from steps.search.attention import attention_beam_search, attention_greedy
from steps.search.ctc_prefix import CtcPrefixScorer

VOCAB, END, LONGEST = 5, 1, 3
TEXTS = [text for length in range(LONGEST + 1) for text in itertools.product((2, 3, 4), repeat=length)]
NEG_INF = float("-inf")


def make_head(seed: int, **decoder) -> nn.Module:
    """A decoder that has opinions."""
    torch.manual_seed(seed)
    sizes = {"dim": 8, "layers": 1, "heads": 2, "feedforward_dim": 8, "dropout": 0.0, **decoder}
    head = build_head(head_config("attention", {"lang": "x", "decoder": sizes}), 6, VOCAB).eval()
    with torch.no_grad():
        head.decoder.output_layer.weight.mul_(4)
    return head


def speech(seed: int = 0, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encoder output (batch, 5, 6), lengths, prompts of two tokens."""
    generator = torch.Generator().manual_seed(100 + seed)
    lens = torch.tensor([5, 3, 4, 5, 2, 1, 5, 4])[:batch]
    memory = torch.randn(batch, 5, 6, generator=generator)
    return memory, lens, torch.randint(2, VOCAB, (batch, 2), generator=generator)


def ctc_scores(seed: int, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(batch, 5, VOCAB, generator=generator)).log_softmax(-1)


@torch.no_grad()
def attention_scores(head, memory, lens, prompt) -> dict[tuple[int, ...], float]:
    """Log-probabilities of all texts of one utterance, by the decoder without a cache."""
    table = {}
    for text in TEXTS:
        logits = head.decoder(torch.tensor([[*prompt.tolist(), *text]]), memory[None], lens[None])[0]
        logits[:, 0] = NEG_INF
        log_probs = logits.log_softmax(-1)[len(prompt) - 1 :]
        table[text] = float(log_probs[range(len(text) + 1), [*text, END]].sum())
    return table


def labelling_scores(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Log-probabilities of all labellings of `log_probs (T, V)`, summed over their alignments."""
    table: dict[tuple[int, ...], float] = {}
    probs = log_probs.double().exp().tolist()
    for alignment in itertools.product(range(VOCAB), repeat=len(probs)):
        text = tuple(token for token, _ in itertools.groupby(alignment) if token)
        p = 1.0
        for frame, token in zip(probs, alignment, strict=True):
            p *= frame[token]
        table[text] = table.get(text, 0.0) + p
    return {text: float(torch.tensor(p, dtype=torch.float64).log()) for text, p in table.items()}


@torch.no_grad()
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("ctc_weight", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_a_huge_beam_finds_all_texts_in_their_order(seed, ctc_weight, length_penalty):
    head, (memory, lens, prompts) = make_head(seed), speech(seed)
    ctc = ctc_scores(seed)
    options = {"max_tokens": LONGEST, "max_length_ratio": 10.0, "length_penalty": length_penalty}
    found = attention_beam_search(
        head, memory, lens, prompts, 50, 50, ctc_log_probs=ctc, ctc_weight=ctc_weight, **options
    )
    for row, hypotheses in enumerate(found):
        expected = attention_scores(head, memory[row], lens[row], prompts[row])
        if ctc_weight:
            labels = labelling_scores(ctc[row, : lens[row]])
            expected = {
                text: (1 - ctc_weight) * score + ctc_weight * labels[text]
                for text, score in expected.items()
                if text in labels
            }
        assert {tuple(h.tokens) for h in hypotheses} == set(expected)
        for hypothesis in hypotheses:
            assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-3)
            assert len(hypothesis.frames) == len(hypothesis.token_scores) == len(hypothesis.tokens)
        ranks = [h.score / ((5 + max(len(h.tokens), 1)) / 6) ** length_penalty for h in hypotheses]
        assert ranks == sorted(ranks, reverse=True)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_most_probable_token_at_each_step(seed):
    head, (memory, lens, prompts) = make_head(seed), speech(seed)
    found = attention_greedy(head, memory, lens, prompts, max_length_ratio=1.5)
    for row, (hypothesis,) in enumerate(found):
        text, limit = [], -(-3 * int(lens[row]) // 2)
        while len(text) < limit:
            history = torch.tensor([[*prompts[row].tolist(), *text]])
            logits = head.decoder(history, memory[row : row + 1], lens[row : row + 1])[0, -1]
            if (token := int(logits[1:].argmax()) + 1) == END:
                break
            text.append(token)
        assert hypothesis.tokens == text


@torch.no_grad()
@pytest.mark.parametrize("options", [{"beam": 1}, {"beam": 3, "nbest": 3}, {"beam": 2, "ctc_weight": 0.5}])
def test_an_utterance_gives_the_same_in_any_batch(options):
    head, (memory, lens, prompts), ctc = make_head(7), speech(7, batch=8), ctc_scores(7, batch=8)
    together = attention_beam_search(head, memory, lens, prompts, ctc_log_probs=ctc, **options)
    for row, hypotheses in enumerate(together):
        one, length = slice(row, row + 1), int(lens[row])
        (alone,) = attention_beam_search(
            head, memory[one, :length], lens[one], prompts[one], ctc_log_probs=ctc[one, :length], **options
        )
        assert [h.tokens for h in hypotheses] == [h.tokens for h in alone]
        assert [h.score for h in hypotheses] == pytest.approx([h.score for h in alone], abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_end_detection_loses_nothing(seed, length_penalty, monkeypatch):
    head, spoken = make_head(seed), speech(seed)
    steps = []
    step = attention._Beams.step
    monkeypatch.setattr(attention._Beams, "step", lambda self: steps.append(1) or step(self))
    options = {"beam": 3, "length_penalty": length_penalty, "max_length_ratio": 10.0, "max_tokens": 25}
    found, used = attention_beam_search(head, *spoken, **options), len(steps)
    # go on until nothing is left
    monkeypatch.setattr(attention._Beams, "_open", lambda self: self.scores.max(dim=1).values > NEG_INF)
    steps.clear()
    assert [h[0].tokens for h in attention_beam_search(head, *spoken, **options)] == [h[0].tokens for h in found]
    assert used <= len(steps) == 26


@torch.no_grad()
def test_end_detection_ends_early():
    head, spoken = make_head(0), speech(0)
    head.decoder.output_layer.bias[END] += 3
    calls = []
    log_probs = head.log_probs
    head.log_probs = lambda tokens, state: calls.append(len(tokens)) or log_probs(tokens, state)
    attention_beam_search(head, *spoken, beam=2, max_length_ratio=10.0, max_tokens=50)
    assert len(calls) < 20
    calls.clear()
    head.decoder.output_layer.bias[END] -= 100  # each ends at its longest, and most leave the others alone
    attention_beam_search(head, *spoken, beam=2, max_length_ratio=1.0, max_tokens=50)
    assert sorted(calls, reverse=True) == calls and calls[0] == 3 and calls[-1] == 1


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_limits_of_the_length(seed):
    head, (memory, lens, prompts) = make_head(seed), speech(seed, 8)
    every = {"beam": 4, "nbest": 4}
    for limits, least, most in (
        ({"min_tokens": 2, "max_tokens": 4, "max_length_ratio": 9.0}, 2, [4] * 8),
        ({"max_length_ratio": 0.5}, 0, [-(-length // 2) for length in lens.tolist()]),
    ):
        for hypotheses, longest in zip(
            attention_beam_search(head, memory, lens, prompts, **every, **limits), most, strict=True
        ):
            assert all(least <= len(h.tokens) <= longest for h in hypotheses)


@torch.no_grad()
def test_a_decoder_with_few_positions_ends_there():
    head, spoken = make_head(0, positions="learned", max_positions=6), speech(0)
    head.decoder.output_layer.bias[END] -= 50  # would go on for ever
    found = attention_beam_search(head, *spoken, beam=2, max_length_ratio=10.0)
    assert {len(h[0].tokens) for h in found} == {4}  # and a prompt of two


@torch.no_grad()
def test_what_may_not_begin_a_text_may_follow():
    head, spoken = make_head(0), speech(0)
    head.decoder.output_layer.bias[2] += 50
    assert attention_beam_search(head, *spoken, beam=2)[0][0].tokens[:2] == [2, 2]
    head.not_first = (2, END)
    for hypothesis, *_ in attention_beam_search(head, *spoken, beam=2):
        assert hypothesis.tokens[0] in (3, 4) and set(hypothesis.tokens[1:]) <= {2}


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2])
def test_no_ngram_comes_twice(size):
    head, spoken = make_head(3), speech(3)
    head.decoder.output_layer.bias[END] -= 50
    options = {"beam": 3, "max_length_ratio": 10.0, "max_tokens": 8}
    (free, *_), *_ = attention_beam_search(head, *spoken, **options)
    assert len(set(zip(*(free.tokens[i:] for i in range(size)), strict=False))) < len(free.tokens) - size + 1
    for hypothesis, *_ in attention_beam_search(head, *spoken, no_repeat_ngram=size, **options):
        runs = list(zip(*(hypothesis.tokens[i:] for i in range(size)), strict=False))
        assert len(set(runs)) == len(runs) and len(hypothesis.tokens) >= 3


@torch.no_grad()
def test_what_no_text_satisfies_gives_way():
    head, (memory, lens, prompts) = make_head(0), speech(0)
    free = attention_beam_search(head, memory, lens, prompts, beam=2)
    bound = attention_beam_search(head, memory, lens, prompts, beam=2, min_tokens=5)  # of 5, 3, 4 frames
    assert len(bound[0][0].tokens) == 5
    assert [h[0].tokens for h in bound[1:]] == [h[0].tokens for h in free[1:]]
    # three tokens cannot fill four places without a repetition
    (hypothesis,) = attention_beam_search(
        head, memory[:1], lens[:1], prompts[:1], beam=8, min_tokens=4, no_repeat_ngram=1
    )[0]
    assert hypothesis.score > NEG_INF


@torch.no_grad()
def test_texts_that_ctc_cannot_align_are_no_hypotheses():
    head, (memory, lens, prompts) = make_head(1), speech(1)
    head.decoder.output_layer.bias[END] -= 3
    found = attention_beam_search(
        head, memory, lens, prompts, 50, 50, max_length_ratio=9.0, ctc_log_probs=ctc_scores(1), ctc_weight=0.1
    )
    for hypotheses, length in zip(found, lens.tolist(), strict=True):
        for h in hypotheses:
            repeats = sum(a == b for a, b in itertools.pairwise(h.tokens))
            assert len(h.tokens) + repeats <= length and h.score > -1e3


@pytest.mark.parametrize("seed", range(6))
def test_prefix_scores_are_sums_over_alignments(seed):
    """The probability of a prefix is that of all labellings that begin with it (Watanabe et al. 2017, eq. 50)."""
    log_probs, lens, weight = ctc_scores(seed), torch.tensor([5, 3, 0]), 0.25
    scorer = CtcPrefixScorer(log_probs, lens, 2, weight, END)
    flat = torch.zeros(3, 2, VOCAB)  # an attention without opinions
    flat[..., 0] = NEG_INF
    generator = torch.Generator().manual_seed(seed)
    prefixes, scores = [[(), ()] for _ in lens], torch.zeros(3, 2)
    for _ in range(4):
        found = scorer.combine(scores, flat)
        for row, length in enumerate(lens.tolist()):
            table = labelling_scores(log_probs[row, :length])
            for beam, prefix in enumerate(prefixes[row]):
                for token in range(1, VOCAB):
                    text = prefix if token == END else (*prefix, token)
                    begins = [s for other, s in table.items() if other[: len(text)] == text]
                    expected = table.get(text, NEG_INF) if token == END else float(torch.tensor(begins).logsumexp(0))
                    score = float(found[row, beam, token])
                    assert score == pytest.approx(weight * expected, abs=1e-4), (text, token)
        source = torch.randint(2, (3, 2), generator=generator)
        token = torch.randint(2, VOCAB, (3, 2), generator=generator)
        scores = found.gather(1, source[..., None].expand(-1, -1, VOCAB)).gather(2, token[..., None])[..., 0]
        scorer.advance(source, token)
        prefixes = [[(*prefixes[n][source[n, b]], int(token[n, b])) for b in range(2)] for n in range(3)]
