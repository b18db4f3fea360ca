"""Lattice-free MMI in plain torch: against listing every alignment of every text, and on degenerate input."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from steps.objectives.ctc import ctc_loss
from steps.objectives.mmi import MmiLoss

VOCAB = 4


def random_bigram(vocab: int = VOCAB) -> Tensor:
    return torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(5)).mul(2).log_softmax(1)


def text_score(bigram: Tensor, text: tuple[int, ...]) -> Tensor:
    return sum(bigram[before, after] for before, after in zip((0, *text), (*text, 0), strict=True))


def scores(log_probs: Tensor, bigram: Tensor) -> dict[tuple[int, ...], Tensor]:
    """ln of p(frames | text) P(text), of every text that fits into the frames `(T, V)`: a list of all alignments."""
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for path in itertools.product(range(len(bigram)), repeat=len(log_probs)):
        text = tuple(token for token, _ in itertools.groupby(path) if token)
        found.setdefault(text, []).append(log_probs[torch.arange(len(path)), list(path)].sum())
    return {text: torch.stack(rows).logsumexp(0) + text_score(bigram, text) for text, rows in found.items()}


def padded(texts: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    most = max(1, *map(len, texts))
    return torch.tensor([[*text, *[0] * (most - len(text))] for text in texts]), torch.tensor(list(map(len, texts)))


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_it_is_the_posterior_among_all_texts(share: float) -> None:
    torch.manual_seed(0)
    texts = [(1, 2), (3, 3), (), (2,), (1, 1), (3, 1, 2), (1,), (2, 1, 2)]
    lens = torch.tensor([4, 3, 4, 1, 2, 2, 4, 5])  # the fifth and the sixth do not fit
    bigram, weights = random_bigram(), torch.rand(len(texts))
    logits = (2 * torch.randn(len(texts), 5, VOCAB)).requires_grad_()
    loss = MmiLoss(bigram, "torch")(logits.log_softmax(2), lens, *padded(texts), share)
    (grad,) = torch.autograd.grad((loss * weights).sum(), logits)
    exact = []
    for row, size, text in zip(logits.log_softmax(2), lens, texts, strict=True):
        found = scores(row[:size], bigram)
        if text in found:
            ctc = text_score(bigram, text) - found[text]
            exact.append(ctc + share * (torch.stack(list(found.values())).logsumexp(0) - text_score(bigram, text)))
        else:
            exact.append(row.sum() * 0)
    (exact_grad,) = torch.autograd.grad((torch.stack(exact) * weights).sum(), logits)
    torch.testing.assert_close(loss, torch.stack(exact), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, exact_grad, rtol=1e-4, atol=1e-5)
    assert loss[4] == loss[5] == 0 and (grad[4:6] == 0).all()


def test_the_posteriors_of_all_texts_sum_to_one() -> None:
    log_probs = torch.randn(1, 3, VOCAB, generator=torch.Generator().manual_seed(1)).log_softmax(2)
    texts = list(scores(log_probs[0], random_bigram()))
    many = log_probs.expand(len(texts), -1, -1)
    loss = MmiLoss(random_bigram())(many, torch.full((len(texts),), 3), *padded(texts))
    assert (loss > 0).all() and float((-loss).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def log_space(log_probs: Tensor, bigram: Tensor) -> Tensor:
    """The denominator of one utterance `(T, V)` by logarithms alone."""
    same = torch.eye(len(bigram), dtype=torch.bool)
    blank, token = torch.full((2, len(bigram)), -torch.inf).double()
    blank = blank.clone().index_fill(0, torch.tensor([0]), 0.0)
    said = bigram.index_fill(1, torch.tensor([0]), -torch.inf)
    for frame in log_probs:
        on = torch.logaddexp(
            (blank[:, None] + said).logsumexp(0), (token[:, None] + said).masked_fill(same, -torch.inf).logsumexp(0)
        )
        blank, token = torch.logaddexp(blank, token) + frame[0], torch.logaddexp(on, token) + frame
    return torch.cat((blank + bigram[:, 0], token + bigram[:, 0])).logsumexp(0)


def test_long_utterances_of_a_confident_model_lose_nothing() -> None:
    vocab, frames = 30, 400
    torch.manual_seed(2)
    log_probs = (40 * torch.randn(2, frames, vocab)).log_softmax(2)
    bigram, lens = random_bigram(vocab), torch.tensor([frames, 251])
    found = MmiLoss(bigram, "torch").denominator(log_probs, lens)
    exact = [log_space(row[:size].double(), bigram.double()) for row, size in zip(log_probs, lens, strict=True)]
    torch.testing.assert_close(found, torch.stack(exact), rtol=1e-9, atol=1e-6)


def test_no_tokens_at_all_and_no_frames() -> None:
    log_probs = torch.randn(2, 3, VOCAB).log_softmax(2).requires_grad_()
    bigram = random_bigram()
    loss = MmiLoss(bigram)(log_probs, torch.tensor([3, 0]), torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0]))
    everything = torch.stack(list(scores(log_probs[0], bigram).values())).logsumexp(0)
    torch.testing.assert_close(loss[0], everything - log_probs[0, :, 0].sum() - bigram[0, 0])
    loss.sum().backward()
    assert loss[1] == 0 and (log_probs.grad[1] == 0).all() and log_probs.grad.isfinite().all()


def test_share_nothing_is_ctc_and_not_a_number_stays_visible() -> None:
    log_probs = torch.randn(2, 5, VOCAB).log_softmax(2)
    given = (torch.tensor([5, 5]), torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    loss = MmiLoss(random_bigram())
    torch.testing.assert_close(loss(log_probs, *given, 0.0), ctc_loss(log_probs, *given))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(log_probs, *given), loss(log_probs.clone(), *given))
    log_probs[0, 2] = float("nan")
    assert loss(log_probs, *given)[0].isnan() and loss(log_probs, *given)[1] > 0


def test_a_token_that_is_never_said_takes_no_part() -> None:
    bigram = random_bigram()
    bigram[:, 2] = -torch.inf
    log_probs = torch.randn(1, 4, VOCAB).log_softmax(2)
    exact = [score for text, score in scores(log_probs[0], bigram).items() if 2 not in text]
    found = MmiLoss(bigram, "torch").denominator(log_probs, torch.tensor([4]))
    torch.testing.assert_close(found[0].float(), torch.stack(exact).logsumexp(0))
