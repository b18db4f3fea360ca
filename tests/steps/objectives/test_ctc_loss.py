"""CTC loss in plain torch: against listing every alignment, and on degenerate input."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from steps.objectives import backend as backends
from steps.objectives.backend import backend_name
from steps.objectives.ctc import ctc_loss
from utils.errors import UserError

VOCAB = 4


def collapse(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token]


def exact_loss(log_probs: Tensor, target: list[int]) -> Tensor:
    """-log of the summed probability of all alignments of `target`; 0 without one."""
    frames = torch.arange(log_probs.shape[0])
    scores = [
        log_probs[frames, list(path)].sum()
        for path in itertools.product(range(VOCAB), repeat=len(frames))
        if collapse(path) == target
    ]
    return -torch.stack(scores).logsumexp(0) if scores else log_probs.sum() * 0


def test_it_is_the_sum_over_all_alignments() -> None:
    torch.manual_seed(0)
    wanted = [[1, 2], [3, 3], [], [2], [1, 1], [3, 1, 2], [1]]
    lens = torch.tensor([4, 3, 4, 1, 2, 2, 4])  # the fifth and the sixth do not fit
    target_lens = torch.tensor([len(target) for target in wanted])
    targets = torch.tensor([target + [0] * (3 - len(target)) for target in wanted])
    logits = torch.randn(len(wanted), 4, VOCAB, requires_grad=True)
    weights = torch.rand(len(wanted))
    loss = ctc_loss(logits.log_softmax(2), lens, targets, target_lens, "torch")
    (grad,) = torch.autograd.grad((loss * weights).sum(), logits)
    log_probs = logits.log_softmax(2)
    exact = torch.stack(
        [exact_loss(row[:size], target) for row, size, target in zip(log_probs, lens, wanted, strict=True)]
    )
    (exact_grad,) = torch.autograd.grad((exact * weights).sum(), logits)
    torch.testing.assert_close(loss, exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, exact_grad, rtol=1e-4, atol=1e-5)
    assert loss[4] == loss[5] == 0 and (grad[4:6] == 0).all()


def test_no_tokens_at_all_and_no_frames() -> None:
    log_probs = torch.randn(2, 3, VOCAB).log_softmax(2)
    loss = ctc_loss(log_probs, torch.tensor([3, 2]), torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0]))
    torch.testing.assert_close(loss, -torch.stack((log_probs[0, :, 0].sum(), log_probs[1, :2, 0].sum())))
    loss = ctc_loss(log_probs, torch.tensor([3, 0]), torch.tensor([[1], [1]]), torch.tensor([1, 1]))
    assert loss[0] > 0 and loss[1] == 0


def test_it_is_float32_under_autocast_and_not_a_number_stays_visible() -> None:
    logits = torch.randn(2, 5, VOCAB).bfloat16().requires_grad_()
    given = (torch.tensor([5, 5]), torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ctc_loss(logits.float().log_softmax(2), *given)
    loss.sum().backward()
    assert loss.dtype == torch.float32 and logits.grad.abs().sum() > 0
    log_probs = logits.detach().float().log_softmax(2)
    log_probs[0, 2] = float("nan")
    loss = ctc_loss(log_probs, *given)
    assert loss[0].isnan() and loss[1] > 0


def test_texts_are_scored_in_inference_too() -> None:
    torch.manual_seed(2)
    values = torch.randn(2, 5, VOCAB).log_softmax(2), torch.tensor([5, 4]), torch.tensor([[1, 2], [3, 0]])
    expected = ctc_loss(*values, torch.tensor([2, 1]), "torch")
    with torch.inference_mode():
        found = ctc_loss(*(value.clone() for value in values), torch.tensor([2, 1]), "torch")
    assert found.tolist() == expected.tolist()


def test_k2_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "have_k2", lambda: False)
    assert backend_name("auto", auto="k2") == backend_name("auto") == backend_name("torch") == "torch"
    with pytest.raises(UserError, match=r"'backend: torch'.*DRAGOMAN_PROFILE=pypi"):
        backend_name("k2")


def test_auto_is_what_the_loss_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "have_k2", lambda: True)
    assert backend_name("auto", auto="k2") == "k2" and backend_name("auto", auto="torch") == "torch"
