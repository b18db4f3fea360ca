"""ScaledAdam: icefall's trajectory to the last digits, steps that are skipped, states that are restored."""

from __future__ import annotations

import copy

import pytest
import torch

from steps.training.scaled_adam import ScaledAdam

SHAPES = [(4, 3), (3,), (4, 3), (), (3,), (1,), (2, 2, 2), ()]
# Sums of absolute values of each parameter after some steps (first column, from 0), by
# icefall's egs/librispeech/ASR/zipformer/optim.py (md5 b4981206f6e90f229a842c15edb236bf), ScaledAdam(params, lr=0.05,
# clipping_scale=2.0) on torch 1.13.1, from parameters() and with the gradients of train() below.
ICEFALL = [
    [0, 4.724092, 1.415371, 18.007776, 0.844488, 6.757298, 0.165873, 9.593989, 4.924201],
    [1, 4.712186, 1.408359, 17.854731, 0.844259, 6.749315, 0.16491, 9.579968, 4.92339],
    [3, 4.64958, 1.393669, 17.385627, 0.843525, 6.656365, 0.162887, 9.540084, 4.920806],
    [9, 4.423631, 1.398557, 15.360925, 0.830914, 6.035786, 0.155745, 8.550542, 4.904614],
    [16, 4.205379, 1.227825, 12.567473, 0.812734, 4.91034, 0.148661, 7.179906, 4.878215],
    [33, 3.371357, 0.877991, 7.494865, 0.779872, 2.602272, 0.146058, 5.062177, 4.804849],
    [60, 2.647993, 1.009304, 5.165719, 0.728366, 1.168665, 0.122589, 3.032305, 4.678423],
    [129, 1.516544, 0.62738, 2.773305, 0.689597, 0.741349, 0.120801, 2.105559, 4.459825],
]


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64).float() for shape in SHAPES]
    return [torch.nn.Parameter(value * (0.5 + 0.3 * i)) for i, value in enumerate(values)]


def train(params, optimizer, first: int, last: int, generator) -> list[list[float]]:
    """Steps `first` to `last` - 1; every 17th gradient is 21 times as large, so that it is clipped."""
    rows = []
    for step in range(first, last):
        for p in params:
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).float()
            p.grad = (noise + 0.5 * p.detach()) * (21.0 if step % 17 == 16 else 1.0)
        optimizer.step()
        rows.append([step, *(float(p.detach().double().abs().sum()) for p in params)])
    return rows


def make(params: list[torch.nn.Parameter], read: bool) -> ScaledAdam:
    """`read=False`: as on a GPU, where no number is read from the device."""
    optimizer = ScaledAdam(params, lr=0.05)
    assert optimizer.read
    optimizer.read = read
    return optimizer


@pytest.mark.parametrize("read", [True, False])
def test_the_trajectory_is_icefalls(read):
    params = parameters()
    rows = train(params, make(params, read), 0, 130, torch.Generator().manual_seed(8))
    kept = [rows[int(row[0])] for row in ICEFALL]
    torch.testing.assert_close(torch.tensor(kept), torch.tensor(ICEFALL), rtol=3e-6, atol=2e-6)


def test_a_restored_state_goes_on_exactly():
    generator = torch.Generator().manual_seed(8)
    params = parameters()
    optimizer = ScaledAdam(params, lr=0.05)
    train(params, optimizer, 0, 13, generator)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = ScaledAdam(copies, lr=0.05)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # newer torch would share the tensors
    start = generator.get_state()
    expected = train(params, optimizer, 13, 60, generator)
    assert train(copies, other, 13, 60, generator.set_state(start)) == expected


def averages(params, optimizer) -> list[torch.Tensor]:
    """Copies of all moments."""
    names = ("exp_avg_sq", "delta", "scale_exp_avg_sq")
    return [optimizer.state[p][name].clone() for p in params for name in names if name in optimizer.state[p]]


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("step", [0, 5, 7, 12, 23])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_with_a_nonfinite_gradient_changes_no_parameter_and_no_moment(step, value, read):
    params = parameters()
    optimizer = make(params, read)
    generator = torch.Generator().manual_seed(8)
    train(params, optimizer, 0, step, generator)
    before = [p.detach().clone() for p in params]
    moments = averages(params, optimizer)
    for p in params:
        p.grad = torch.ones_like(p)
    params[2].grad[1, 1] = value
    optimizer.step()
    assert not optimizer.finite
    assert all(torch.equal(old, new.detach()) for old, new in zip(before, params, strict=True))
    after = averages(params, optimizer)
    if step:
        assert len(after) > 8 and all(torch.equal(old, new) for old, new in zip(moments, after, strict=True))
    rows = train(params, optimizer, step + 1, step + 60, generator)
    assert optimizer.finite and torch.isfinite(torch.tensor(rows)).all()


def spoil(params, optimizer) -> None:
    """A step whose gradient is not finite."""
    for p in params:
        p.grad = torch.full_like(p, float("nan"))
    optimizer.step()


@pytest.mark.parametrize("spoilt", [(0, 1, 2), (3, 7), (10, 11, 25, 40)])
def test_skipped_steps_are_the_same_on_every_device(spoilt):
    rows = []
    for read in (True, False):
        params, generator = parameters(), torch.Generator().manual_seed(8)
        optimizer = make(params, read)
        rows.append([])
        for step in range(60):
            if step in spoilt:
                spoil(params, optimizer)
            else:
                rows[-1] += train(params, optimizer, step, step + 1, generator)
        assert [state["step"] for state in optimizer.state.values() if "step" in state] == [60]
    torch.testing.assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("read", [True, False])
def test_the_first_good_step_is_as_large_after_skipped_ones(read):
    sizes = []
    for skipped in (0, 5):
        params = parameters()
        optimizer = make(params, read)
        for _ in range(skipped):
            spoil(params, optimizer)
        before = params[0].detach().clone()
        train(params, optimizer, 0, 1, torch.Generator().manual_seed(8))
        sizes.append(float((params[0].detach() - before).abs().mean()))
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_parameters_may_be_replaced_after_the_optimizer_was_made():
    params = parameters()
    optimizer = ScaledAdam(params, lr=0.05)
    for p in params:
        p.data = p.detach().clone()  # what model.to(device) does
    rows = train(params, optimizer, 0, 4, torch.Generator().manual_seed(8))
    torch.testing.assert_close(rows[3], ICEFALL[2], rtol=3e-6, atol=2e-6)


def test_a_parameter_without_gradient_stays_and_others_move():
    params = parameters()
    optimizer = ScaledAdam(params, lr=0.05)
    before = [p.detach().clone() for p in params]
    for p in params[1:]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    moved = [not torch.equal(old, new.detach()) for old, new in zip(before, params, strict=True)]
    assert moved == [False] + [True] * (len(params) - 1)


def test_the_size_of_a_step_is_relative_to_the_parameter():
    small, large = torch.full((5, 5), 0.01), torch.full((5, 5), 1.0)
    params = [torch.nn.Parameter(small.clone()), torch.nn.Parameter(large.clone())]
    optimizer = ScaledAdam(params, lr=0.05)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    moved = [float((p.detach() - old).abs().mean()) for p, old in zip(params, (small, large), strict=True)]
    assert moved[1] == pytest.approx(100 * moved[0], rel=1e-4) and moved[1] > 0


def test_sizes_stay_within_their_limits():
    p = torch.nn.Parameter(torch.full((4, 4), 1.0))
    optimizer = ScaledAdam([p], lr=0.02, param_max_rms=1.2)
    for _ in range(400):
        p.grad = -p.detach()  # asks for growth, of up to 8 % in the four steps between the limit's updates
        optimizer.step()
    assert 1.15 < float(p.detach().square().mean().sqrt()) < 1.35
    scalar = torch.nn.Parameter(torch.tensor(9.9))
    optimizer = ScaledAdam([scalar], lr=1.0, scalar_max=10.0)
    for _ in range(50):
        scalar.grad = torch.tensor(-1.0)
        optimizer.step()
    assert float(scalar.detach()) == 10.0
