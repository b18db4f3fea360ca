"""Transducer losses in plain torch: against listing every path, numeric derivatives, and what must not change them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steps.objectives import transducer_torch
from steps.objectives.transducer import do_prune, full_loss, prune_ranges, pruned_loss, simple_loss

TYPES = ("regular", "modified")
VOCAB = 5


def paths(frames: int, tokens: int, modified: bool) -> list[list[tuple[int, int, bool]]]:
    """Every path as its arcs (frame, tokens emitted before, whether it emits one)."""
    found: list[list[tuple[int, int, bool]]] = []

    def extend(frame: int, state: int, arcs: list[tuple[int, int, bool]]) -> None:
        if frame == frames:
            if state == tokens:
                found.append(arcs)
            return
        extend(frame + 1, state, [*arcs, (frame, state, False)])
        if state < tokens:
            extend(frame + 1 if modified else frame, state + 1, [*arcs, (frame, state, True)])

    extend(0, 0, [])
    return found


def loss_of(blank: Tensor, symbol: Tensor, modified: bool = False, kept: set[tuple[int, int]] | None = None) -> Tensor:
    """-log of the summed probability of all paths through nodes in `kept` (all by default); 0 without a path.

    `blank` and `symbol` are `(frames, tokens + 1)` log-probabilities of the arcs that leave each node.
    """
    totals = []
    for path in paths(blank.shape[0], blank.shape[1] - 1, modified):
        if kept is None or all((frame, state) in kept for frame, state, _ in path):
            arcs = [symbol[frame, state] if emits else blank[frame, state] for frame, state, emits in path]
            totals.append(torch.stack(arcs).sum())
    return -torch.stack(totals).logsumexp(0) if totals else blank.sum() * 0


def arcs_of(logits: Tensor, target: Tensor, delay_penalty: float = 0.0) -> tuple[Tensor, Tensor]:
    """Arc log-probabilities from `logits` `(frames, tokens + 1, vocab)`."""
    log_probs = logits.log_softmax(2)
    labels = torch.cat((target, target.new_zeros(1)))
    symbol = log_probs[:, torch.arange(len(labels)), labels]
    frames = logits.shape[0]
    gain = delay_penalty * ((frames - 1) / 2 - torch.arange(frames, dtype=logits.dtype))
    return log_probs[:, :, 0], symbol + gain.unsqueeze(1)


def smoothed_arcs(am: Tensor, lm: Tensor, target: Tensor, unigram: Tensor, scales: tuple) -> tuple[Tensor, Tensor]:
    """Arcs of the smoothed additive joiner for `am` `(frames, vocab)`, `lm` `(tokens + 1, vocab)`: the definition."""
    lm_scale, am_scale = scales
    both = arcs_of(am.unsqueeze(1) + lm, target)
    only_lm = arcs_of(lm.expand(am.shape[0], -1, -1), target)
    only_am = arcs_of((am + unigram.log()).unsqueeze(1).expand(-1, lm.shape[0], -1), target)
    return tuple(
        (1 - lm_scale - am_scale) * a + lm_scale * b + am_scale * c
        for a, b, c in zip(both, only_lm, only_am, strict=True)
    )


def random_case(seed: int, frames: list[int], tokens: list[int]):
    """Random logits with padding: am, lm, targets, lens, target_lens."""
    torch.manual_seed(seed)
    batch, most_frames, most_tokens = len(frames), max(frames), max(tokens)
    lens, target_lens = torch.tensor(frames), torch.tensor(tokens)
    targets = torch.randint(1, VOCAB, (batch, most_tokens))
    targets = targets * (torch.arange(most_tokens) < target_lens.unsqueeze(1))
    am = 2 * torch.randn(batch, most_frames, VOCAB)
    return am, 2 * torch.randn(batch, most_tokens + 1, VOCAB), targets, lens, target_lens


def assert_same(got, expected) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("delay_penalty", [0.0, 0.3])
def test_full_loss_is_the_sum_over_all_paths(rnnt_type: str, delay_penalty: float) -> None:
    am, lm, targets, lens, target_lens = random_case(1, [4, 3, 1, 2, 4], [2, 3, 1, 0, 1])
    logits = (am.unsqueeze(2) + lm.unsqueeze(1)).mul(torch.rand(5, 4, 4, VOCAB)).requires_grad_()
    weights = torch.rand(5)
    loss = full_loss(logits, targets, lens, target_lens, delay_penalty, rnnt_type)
    (grad,) = torch.autograd.grad((loss * weights).sum(), logits)

    exact = logits.detach().double().requires_grad_()
    rows = [
        loss_of(*arcs_of(exact[i, :t, : u + 1], targets[i, :u], delay_penalty), rnnt_type == "modified")
        for i, (t, u) in enumerate(zip(lens.tolist(), target_lens.tolist(), strict=True))
    ]
    (exact_grad,) = torch.autograd.grad((torch.stack(rows) * weights).sum(), exact)
    assert_same((loss, grad), (torch.stack(rows), exact_grad))


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("scales", [(0.0, 0.0), (0.25, 0.0), (0.0, 0.2), (0.25, 0.1)])
def test_simple_loss_is_the_smoothed_sum_over_all_paths(rnnt_type: str, scales: tuple) -> None:
    am, lm, targets, lens, target_lens = random_case(2, [4, 3, 1, 2], [2, 3, 1, 0])
    am.requires_grad_()
    lm.requires_grad_()
    weights = torch.rand(4)
    loss, _, _ = simple_loss(am, lm, targets, lens, target_lens, *scales, rnnt_type=rnnt_type)
    grads = torch.autograd.grad((loss * weights).sum(), (am, lm))

    am64, lm64 = am.detach().double().requires_grad_(), lm.detach().double().requires_grad_()
    unigram = lm64.softmax(2).mean((0, 1))
    rows = [
        loss_of(*smoothed_arcs(am64[i, :t], lm64[i, : u + 1], targets[i, :u], unigram, scales), rnnt_type == "modified")
        for i, (t, u) in enumerate(zip(lens.tolist(), target_lens.tolist(), strict=True))
    ]
    exact_grads = torch.autograd.grad((torch.stack(rows) * weights).sum(), (am64, lm64))
    assert_same((loss, *grads), (torch.stack(rows), *exact_grads))


@pytest.mark.parametrize("rnnt_type", TYPES)
@pytest.mark.parametrize("seed", range(4))
def test_pruned_loss_is_the_sum_over_paths_inside_the_ranges(rnnt_type: str, seed: int) -> None:
    am, lm, targets, lens, target_lens = random_case(seed, [6, 5, 4, 6], [4, 3, 4, 1])
    _, symbol, blank = simple_loss(am, lm, targets, lens, target_lens, rnnt_type=rnnt_type)
    ranges = prune_ranges(symbol, blank, lens, target_lens, 2, rnnt_type)
    logits = (2 * torch.randn(4, 6, 2, VOCAB)).requires_grad_()
    loss = pruned_loss(logits, targets, ranges, lens, target_lens, 0.1, rnnt_type)
    (grad,) = torch.autograd.grad(loss.sum(), logits)

    exact, rows = logits.detach().double().requires_grad_(), []
    for i, (t, u) in enumerate(zip(lens.tolist(), target_lens.tolist(), strict=True)):
        index = ranges[i, :t].unsqueeze(2).expand(-1, -1, VOCAB)
        full = torch.zeros(t, 6, VOCAB, dtype=torch.float64).scatter(1, index, exact[i, :t])[:, : u + 1]
        kept = {(frame, state) for frame in range(t) for state in ranges[i, frame].tolist()}
        rows.append(loss_of(*arcs_of(full, targets[i, :u], 0.1), rnnt_type == "modified", kept))
    (exact_grad,) = torch.autograd.grad(torch.stack(rows).sum(), exact)
    assert_same((loss, grad), (torch.stack(rows), exact_grad))
    assert (loss[:2] > 0).all()


@pytest.mark.parametrize("modified", [False, True])
def test_gradients_are_the_numeric_derivatives(modified: bool) -> None:
    am, lm, targets, lens, target_lens = random_case(3, [3, 2], [2, 1])
    am, lm = am.double().requires_grad_(), lm.double().requires_grad_()
    rnnt_type = "modified" if modified else "regular"

    def simple(am, lm):
        return transducer_torch.simple_loss(am, lm, targets, lens, target_lens, 0.2, 0.1, 0.05, rnnt_type)[0]

    assert torch.autograd.gradcheck(simple, (am, lm))


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_ranges_start_at_zero_end_at_the_last_token_and_skip_none(rnnt_type: str) -> None:
    am, lm, targets, lens, target_lens = random_case(4, [30, 25, 12, 30], [20, 10, 12, 1])
    _, symbol, blank = simple_loss(am, lm, targets, lens, target_lens, rnnt_type=rnnt_type)
    ranges = prune_ranges(symbol, blank, lens, target_lens, 4, rnnt_type)
    assert ranges.shape == (4, 30, 4)
    begin = ranges[:, :, 0]
    steps = begin.diff(dim=1)
    assert (begin[:, 0] == 0).all()
    assert (steps >= 0).all() and (steps <= (1 if rnnt_type == "modified" else 3)).all()
    for i in range(4):
        assert target_lens[i] in ranges[i, lens[i] - 1]
    assert (ranges <= 20).all()


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_pruning_loses_little_and_nothing_when_the_range_covers_all(rnnt_type: str) -> None:
    am, lm, targets, lens, target_lens = random_case(5, [20, 16], [8, 6])
    loss, symbol, blank = simple_loss(am, lm, targets, lens, target_lens, rnnt_type=rnnt_type)
    previous = torch.full((2,), float("inf"))
    for s_range in (2, 5, 9):
        ranges = prune_ranges(symbol, blank, lens, target_lens, s_range, rnnt_type)
        pruned = pruned_loss(sum(do_prune(am, lm, ranges)), targets, ranges, lens, target_lens, rnnt_type=rnnt_type)
        assert (pruned > loss - 1e-3).all() and (pruned < previous + 1e-3).all()
        previous = pruned
    torch.testing.assert_close(pruned, loss, rtol=1e-5, atol=1e-4)


def test_pruning_to_a_single_state_is_refused() -> None:
    am, lm, targets, lens, target_lens = random_case(6, [4], [2])
    _, symbol, blank = simple_loss(am, lm, targets, lens, target_lens)
    with pytest.raises(ValueError, match="s_range is 1"):
        prune_ranges(symbol, blank, lens, target_lens, 1)


def test_do_prune_takes_the_states_of_each_frame() -> None:
    am, lm = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    ranges = torch.tensor([[[0, 1], [1, 2], [3, 4]], [[0, 1], [0, 1], [2, 3]]])
    pruned_am, pruned_lm = do_prune(am, lm, ranges)
    assert torch.equal(pruned_am, am.unsqueeze(2))
    for i in range(2):
        for t in range(3):
            assert torch.equal(pruned_lm[i, t], lm[i, ranges[i, t]])


@pytest.mark.parametrize("rnnt_type", TYPES)
def test_padding_and_neighbours_change_nothing(rnnt_type: str) -> None:
    am, lm, targets, lens, target_lens = random_case(7, [9, 4, 6], [3, 4, 0])
    together = simple_loss(am, lm, targets, lens, target_lens, 0.25, rnnt_type=rnnt_type)[0]
    for i, (t, u) in enumerate(zip(lens.tolist(), target_lens.tolist(), strict=True)):
        one = (
            am[i : i + 1, :t],
            lm[i : i + 1, : u + 1],
            targets[i : i + 1, :u],
            lens[i : i + 1],
            target_lens[i : i + 1],
        )
        torch.testing.assert_close(simple_loss(*one, 0.25, rnnt_type=rnnt_type)[0][0], together[i])


def impossible_case():
    """Modified transducer: the first utterance has more tokens than frames, the last no frame at all."""
    am, lm, targets, lens, target_lens = random_case(8, [2, 5, 4], [3, 3, 2])
    lens[2] = 0
    return am, lm, targets, lens, target_lens


def test_an_utterance_without_a_path_has_no_loss_and_no_gradient() -> None:
    am, lm, targets, lens, target_lens = impossible_case()
    am.requires_grad_()
    loss, symbol, blank = simple_loss(am, lm, targets, lens, target_lens, rnnt_type="modified")
    ranges = prune_ranges(symbol, blank, lens, target_lens, 4, "modified")
    logits = torch.randn(3, 5, 4, VOCAB, requires_grad=True)
    pruned = pruned_loss(logits, targets, ranges, lens, target_lens, rnnt_type="modified")
    (loss.sum() + pruned.sum()).backward()
    for grad, value in ((am.grad, loss), (logits.grad, pruned)):
        assert value[0] == 0 and value[1] > 0 and value[2] == 0
        assert (grad[0] == 0).all() and grad[1].abs().sum() > 0 and (grad[2] == 0).all()


def test_more_tokens_than_the_ranges_can_reach_is_no_path() -> None:
    am, lm, targets, lens, target_lens = random_case(9, [2, 2], [7, 2])
    loss, symbol, blank = simple_loss(am, lm, targets, lens, target_lens)
    assert (loss > 0).all()
    ranges = prune_ranges(symbol, blank, lens, target_lens, 3)
    pruned = pruned_loss(torch.randn(2, 2, 3, VOCAB), targets, ranges, lens, target_lens)
    assert pruned[0] == 0 and pruned[1] > 0


def test_not_a_number_stays_visible() -> None:
    am, lm, targets, lens, target_lens = random_case(10, [4, 4], [2, 2])
    am[0, 1, 1] = float("nan")
    loss, symbol, blank = simple_loss(am, lm, targets, lens, target_lens)
    assert loss[0].isnan() and loss[1] > 0
    logits = torch.randn(2, 4, 3, VOCAB)
    logits[1, 0, 0, 0] = float("inf")
    ranges = prune_ranges(symbol.nan_to_num(), blank.nan_to_num(), lens, target_lens, 3)
    loss = pruned_loss(logits, targets, ranges, lens, target_lens)
    assert loss[0] > 0 and not loss[1].isfinite()


@pytest.mark.parametrize("gap", [60.0, 100.0, 1000.0])
def test_encoder_and_predictor_in_violent_disagreement_have_finite_gradients(gap: float) -> None:
    am, lm, targets, lens, target_lens = random_case(14, [8, 5], [3, 2])
    am[:, :, 1] += gap
    lm[:, :, 2] += gap
    am.requires_grad_()
    lm.requires_grad_()
    loss, _, _ = simple_loss(am, lm, targets, lens, target_lens, 0.25)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert am.grad.isfinite().all() and am.grad.abs().max() < 10
    assert lm.grad.isfinite().all() and lm.grad.abs().max() < 10


def test_losses_are_float32_under_autocast_and_go_back_through_it() -> None:
    am, lm, targets, lens, target_lens = random_case(11, [12, 9], [5, 4])
    exact = simple_loss(am, lm, targets, lens, target_lens, 0.25)[0]
    low = am.bfloat16().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_am = low.bfloat16().requires_grad_()
        loss, symbol, blank = simple_loss(half_am, lm, targets, lens, target_lens, 0.25)
        ranges = prune_ranges(symbol, blank, lens, target_lens, 3)
        logits = torch.randn(2, 12, 3, VOCAB).bfloat16().requires_grad_()
        pruned = pruned_loss(logits, targets, ranges, lens, target_lens)
        (loss.sum() + pruned.sum()).backward()
    assert loss.dtype == pruned.dtype == torch.float32
    assert torch.equal(loss, simple_loss(low, lm, targets, lens, target_lens, 0.25)[0])
    assert half_am.grad.dtype == logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.1)


def test_delay_penalty_moves_symbols_to_earlier_frames() -> None:
    am, lm, targets, lens, target_lens = random_case(12, [20], [5])
    mean = []
    for delay_penalty in (0.0, 0.5):
        _, symbol, _ = simple_loss(0.1 * am, 0.1 * lm, targets, lens, target_lens, delay_penalty=delay_penalty)
        torch.testing.assert_close(symbol.sum((1, 2)), torch.tensor([5.0]), rtol=1e-4, atol=0)
        mean.append((symbol.sum(2) * torch.arange(20)).sum() / 5)
    assert mean[1] < mean[0] - 1.0


def test_a_long_lattice_keeps_its_precision() -> None:
    am, lm, targets, lens, target_lens = random_case(13, [600, 400], [80, 60])
    single, double = [], []
    for values, dtype in ((single, torch.float32), (double, torch.float64)):
        a, b = am.to(dtype).requires_grad_(), lm.to(dtype).requires_grad_()
        loss = transducer_torch.simple_loss(a, b, targets, lens, target_lens, 0.25, 0.0, 0.0, "regular")[0]
        values += [loss, *torch.autograd.grad(loss.sum(), (a, b))]
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-5, atol=0)
    for a, b in zip(single[1:], double[1:], strict=True):
        assert (a - b).abs().max() < 1e-3 * b.abs().max()
