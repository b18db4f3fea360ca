"""Ours and k2's losses agree in value and gradient, on random and on degenerate input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steps.objectives.ctc import ctc_loss
from steps.objectives.mmi import MmiLoss
from steps.objectives.transducer import prune_ranges, pruned_loss, simple_loss

pytestmark = pytest.mark.k2

# name: (frames, tokens of each utterance, vocabulary)
SHAPES = {
    "random": ([60, 55, 43, 50], [20, 12, 17, 3], 30),
    "one frame": ([1, 1, 1], [1, 0, 3], 6),
    "empty targets": ([5, 3], [0, 0], 6),
    "one empty target": ([9, 4, 6], [4, 0, 2], 6),
    "more tokens than frames": ([3, 2, 3], [7, 3, 5], 6),
    "mixed lengths": ([80, 1, 30, 2], [25, 1, 0, 2], 10),
}


def targets_of(frames: list[int], tokens: list[int], vocab: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(sum(frames))
    target_lens = torch.tensor(tokens)
    targets = torch.randint(1, vocab, (len(tokens), max(tokens)))
    return targets * (torch.arange(max(tokens)) < target_lens.unsqueeze(1)), torch.tensor(frames), target_lens


def assert_same(ours: tuple, theirs: tuple) -> None:
    """1e-4 of the largest: occupancies far below one are exact in neither."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.isfinite().all()
        if a.numel():
            assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-6


@pytest.mark.parametrize("rnnt_type", ["regular", "modified"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("lm_scale", "am_scale", "delay_penalty"), [(0.0, 0.0, 0.0), (0.25, 0.1, 0.0), (0.25, 0.0, 0.1)]
)
def test_transducer(shape: str, rnnt_type: str, lm_scale: float, am_scale: float, delay_penalty: float) -> None:
    frames, tokens, vocab = SHAPES[shape]
    targets, lens, target_lens = targets_of(*SHAPES[shape])
    am, lm = torch.randn(len(frames), max(frames), vocab), torch.randn(len(frames), max(tokens) + 1, vocab)
    weights = torch.rand(len(frames)) + 0.5
    results, ranges = {}, None
    for backend in ("torch", "k2"):
        options = {"delay_penalty": delay_penalty, "rnnt_type": rnnt_type, "backend": backend}
        am, lm = am.detach().requires_grad_(), lm.detach().requires_grad_()
        loss, symbol, blank = simple_loss(am, lm, targets, lens, target_lens, lm_scale, am_scale, **options)
        grads = torch.autograd.grad((loss * weights).sum(), (am, lm))
        if ranges is None:
            ranges = prune_ranges(symbol, blank, lens, target_lens, 4, rnnt_type)
            given = 2 * torch.randn(*ranges.shape, vocab)
        logits = given.clone().requires_grad_()
        pruned = pruned_loss(logits, targets, ranges, lens, target_lens, **options)
        results[backend] = (loss, symbol, blank, *grads, pruned, *torch.autograd.grad((pruned * weights).sum(), logits))
    assert_same(results["torch"], results["k2"])


@pytest.mark.parametrize("rnnt_type", ["regular", "modified"])
@pytest.mark.parametrize("seed", range(3))
def test_ranges(seed: int, rnnt_type: str) -> None:
    import k2

    targets, lens, target_lens = targets_of([60, 50 + seed, 43, 30], [20, 12, 17, 3 + seed], 30)
    torch.manual_seed(seed)
    am, lm = torch.randn(4, 60, 30), torch.randn(4, 21, 30)
    boundary = torch.stack((lens * 0, lens * 0, target_lens, lens), 1)
    _, (px_grad, py_grad) = k2.rnnt_loss_smoothed(
        lm, am, targets, 0, boundary=boundary, rnnt_type=rnnt_type, return_grad=True
    )
    for s_range in (2, 5, 30):
        theirs = k2.get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range)
        symbol, blank = px_grad[:, :, :60].transpose(1, 2), py_grad.transpose(1, 2)
        assert torch.equal(prune_ranges(symbol, blank, lens, target_lens, s_range, rnnt_type), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_ctc(shape: str) -> None:
    frames, _, vocab = SHAPES[shape]
    targets, lens, target_lens = targets_of(*SHAPES[shape])
    targets[0, : len(targets[0]) // 2] = targets[0, :1]  # repeats need a blank between them
    logits = 2 * torch.randn(len(frames), max(frames), vocab)
    weights = torch.rand(len(frames)) + 0.5
    results = {}
    for backend in ("torch", "k2"):
        logits = logits.detach().requires_grad_()
        loss = ctc_loss(logits.log_softmax(2), lens, targets, target_lens, backend)
        results[backend] = (loss, *torch.autograd.grad((loss * weights).sum(), logits))
    assert_same(results["torch"], results["k2"])


@pytest.mark.parametrize("shape", SHAPES)
def test_mmi(shape: str) -> None:
    frames, _, vocab = SHAPES[shape]
    targets, lens, target_lens = targets_of(*SHAPES[shape])
    targets[0, : len(targets[0]) // 2] = targets[0, :1]
    logits = 2 * torch.randn(len(frames), max(frames), vocab)
    bigram, weights = torch.randn(vocab, vocab), torch.rand(len(frames)) + 0.5
    bigram[:, 1] = -torch.inf  # a token that is never said
    targets = targets.where(targets != 1, torch.full_like(targets, 2))
    results = {}
    for backend in ("torch", "k2"):
        loss, logits = MmiLoss(bigram.log_softmax(1), backend), logits.detach().requires_grad_()
        found = loss(logits.log_softmax(2), lens, targets, target_lens)
        results[backend] = (found, *torch.autograd.grad((found * weights).sum(), logits))
    assert_same(results["torch"], results["k2"])


def test_mmi_without_frames() -> None:
    log_probs, lens = torch.randn(3, 4, 6).log_softmax(2), torch.tensor([4, 0, 2])
    loss = MmiLoss(torch.randn(6, 6).log_softmax(1), "k2")
    torch_sums = MmiLoss(loss.bigram, "torch").denominator(log_probs, lens)
    torch.testing.assert_close(loss.denominator(log_probs, lens)[[0, 2]], torch_sums[[0, 2]])
    assert loss.denominator(log_probs, lens * 0).tolist() == [0, 0, 0]
