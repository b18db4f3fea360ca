"""Heads: configuration, what utterances without a target do, names that icefall's checkpoints have, learning."""

from __future__ import annotations

from operator import itemgetter

import pytest
import torch
from torch import Tensor

from steps.nets.decoder import Decoder
from steps.nets.heads import CtcHead, Head, TransducerHead, build_head, head_config
from steps.nets.joiner import Joiner
from steps.objectives import backend as backends
from steps.objectives.consistency import consistency_loss
from steps.prepare.dataset import Targets
from utils.errors import UserError

DIM, VOCAB = 12, 9
CTC = {"name": "ctc", "lang": "data/lang"}
TRANSDUCER = {"name": "transducer", "lang": "data/lang", "decoder_dim": 16, "joiner_dim": 16, "warm_step": 10}
BOTH = pytest.mark.parametrize("values", [CTC, TRANSDUCER], ids=["ctc", "transducer"])


def make_head(values: dict, **more) -> Head:
    torch.manual_seed(0)
    return build_head(head_config("main", {**values, **more}), DIM, VOCAB)


def random_batch(present: list[bool]) -> tuple[Tensor, Tensor, Targets]:
    torch.manual_seed(1)
    size = len(present)
    lens = torch.randint(15, 21, (size,))
    target_lens = torch.randint(1, 6, (size,)) * torch.tensor(present)
    tokens = torch.randint(1, VOCAB, (size, 5)) * (torch.arange(5) < target_lens.unsqueeze(1))
    return (
        torch.randn(size, 20, DIM),
        lens,
        Targets(tokens, target_lens, torch.tensor(present), torch.ones(size, 1, dtype=torch.int64)),
    )


@BOTH
def test_utterances_without_a_target_count_nothing(values: dict) -> None:
    head = make_head(values).eval()
    encoder_out, lens, targets = random_batch([True, False, True, False])
    encoder_out.requires_grad_()
    losses = head(encoder_out, lens, targets, 100)
    assert set(losses) == set(head.loss_names)
    (grad,) = torch.autograd.grad(sum(losses.values()), encoder_out)
    assert (grad[[1, 3]] == 0).all() and (grad[[0, 2]].abs().sum((1, 2)) > 0).all()
    rows = torch.tensor([0, 2])
    alone = targets.map(itemgetter(rows))
    for name, loss in head(encoder_out[rows], lens[rows], alone, 100).items():
        torch.testing.assert_close(loss, losses[name])


@BOTH
def test_without_any_target_the_zero_still_reaches_every_parameter(values: dict) -> None:
    head = make_head(values)
    encoder_out, lens, targets = random_batch([False, False])
    encoder_out.requires_grad_()
    losses = head(encoder_out, lens, targets, 0)
    assert set(losses) == set(head.loss_names)
    total = sum(losses.values())
    assert total == 0 and total.dtype == torch.float32
    total.backward()
    for parameter in [*head.parameters(), encoder_out]:
        assert parameter.grad is not None and (parameter.grad == 0).all()


@BOTH
def test_losses_are_sums_over_utterances_in_float32(values: dict) -> None:
    head = make_head(values).eval()
    encoder_out, lens, targets = random_batch([True, True, True])
    whole = head(encoder_out, lens, targets)
    parts = [head(encoder_out[i : i + 1], lens[i : i + 1], targets.map(itemgetter(slice(i, i + 1)))) for i in range(3)]
    for name, loss in whole.items():
        torch.testing.assert_close(loss, sum(part[name] for part in parts))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(encoder_out, lens, targets)
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, whole[name], rtol=0.02, atol=0.1)


def test_ctc_log_probs_are_normalised_in_float32_and_named_as_in_icefall() -> None:
    head = make_head(CTC)
    assert isinstance(head, CtcHead)
    assert set(head.state_dict()) == {"ctc_output.1.weight", "ctc_output.1.bias"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs = head.log_probs(torch.randn(2, 5, DIM))
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(2, 5))


def test_two_views_are_compared_in_training_alone() -> None:
    head = make_head(CTC, consistency=0.2, warm_step=10, dropout=0.0)
    assert head.backends == {"ctc": "torch", "consistency": "torch"}
    one, lens, targets = random_batch([True, False, True])
    other, _, _ = random_batch([True, False, True])
    both = torch.cat((one, other + 0.5 * torch.randn_like(other))).requires_grad_()
    twice = targets.repeated(2)
    half, whole, more = (head(both, lens.repeat(2), twice, step)["consistency"] for step in (5, 10, 99))
    assert whole > 0 and torch.isclose(2 * half, whole) and torch.equal(whole, more)
    rows = torch.tensor([0, 2, 3, 5])
    exact = 0.2 * consistency_loss(head.log_probs(both)[rows], lens.repeat(2)[rows]).sum()
    torch.testing.assert_close(whole, exact)
    assert head(one, lens, targets, 10)["consistency"] == 0
    assert set(head.eval()(one, lens, targets, 10)) == {"ctc"}


def test_mmi_comes_in_place_of_ctc() -> None:
    head = make_head(CTC, objective="mmi", warm_step=10, dropout=0.0)
    head.set_bigram(torch.randn(VOCAB, VOCAB).log_softmax(1))
    plain = make_head(CTC, dropout=0.0)
    plain.load_state_dict(head.state_dict())
    batch = random_batch([True, True, False])
    begin, middle, end = (head(*batch, step)["mmi"] for step in (0, 5, 10))
    assert begin == plain(*batch)["ctc"] and torch.isclose(begin + end, 2 * middle) and end != begin
    assert head.eval()(*batch, 0)["mmi"] == end and head.backends == {"mmi": "torch"}


def test_transducer_modules_are_named_as_in_icefall() -> None:
    names = {"decoder.embedding.weight", "decoder.conv.weight"}
    names |= {
        f"joiner.{part}.{kind}"
        for part in ("encoder_proj", "decoder_proj", "output_linear")
        for kind in ("weight", "bias")
    }
    names |= {f"simple_{part}_proj.{kind}" for part in ("am", "lm") for kind in ("weight", "bias")}
    assert set(make_head(TRANSDUCER).state_dict()) == names


def test_transducer_warms_up_from_the_simple_to_the_pruned_loss() -> None:
    head = make_head(TRANSDUCER, simple_loss_scale=0.4)
    assert isinstance(head, TransducerHead)
    assert head.scales(0) == (1.0, 0.1)
    assert head.scales(5) == pytest.approx((0.7, 0.55))
    assert head.scales(10) == head.scales(999) == pytest.approx((0.4, 1.0))
    encoder_out, lens, targets = random_batch([True, True])
    head.decoder.eval()  # no balancers: the same numbers each time
    early, late = head(encoder_out, lens, targets, 0), head(encoder_out, lens, targets, 10)
    torch.testing.assert_close(late["simple"], 0.4 * early["simple"])
    torch.testing.assert_close(late["pruned"], 10 * early["pruned"])
    assert head.eval().scales(0) == pytest.approx((0.4, 1.0))  # losses of a validation can be compared


@pytest.mark.parametrize("rnnt_type", ["regular", "modified"])
@pytest.mark.parametrize("context_size", [1, 3])
def test_transducer_options(rnnt_type: str, context_size: int) -> None:
    head = make_head(TRANSDUCER, rnnt_type=rnnt_type, context_size=context_size, am_scale=0.1, delay_penalty=0.01)
    losses = head(*random_batch([True, True]), 3)
    sum(losses.values()).backward()
    assert all(loss > 0 for loss in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_predictor_in_training_and_in_search_say_the_same() -> None:
    torch.manual_seed(0)
    for context_size in (1, 2, 3):
        decoder = Decoder(VOCAB, 8, context_size=context_size).eval()
        tokens = torch.randint(0, VOCAB, (2, 6))
        whole = decoder(tokens)
        assert whole.shape == (2, 6, 8)
        history = torch.cat((torch.full((2, context_size - 1), -1), tokens), 1)
        for i in range(6):
            one = decoder(history[:, i : i + context_size], need_pad=False)
            assert torch.allclose(decoder.lookup()(history[:, i : i + context_size]), one[:, 0], atol=1e-6)
            torch.testing.assert_close(one, whole[:, i : i + 1])


def test_joiner_projects_before_or_within() -> None:
    joiner = Joiner(DIM, 8, 6, VOCAB)
    frames, states = torch.randn(2, 5, 1, DIM), torch.randn(2, 1, 4, 8)
    logits = joiner(frames, states)
    assert logits.shape == (2, 5, 4, VOCAB)
    projected = joiner(joiner.encoder_proj(frames), joiner.decoder_proj(states), project_input=False)
    torch.testing.assert_close(projected, logits)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("ctk", {"lang": "x"}, r"heads.ctk: there is no head 'ctk' \(did you mean 'ctc'\?\)"),
        ("a", {"lang": "x", "name": "transduser"}, r"no head 'transduser' \(did you mean 'transducer'\?\)"),
        ("ctc", {"lang": "x", "dropuot": 0.1}, r"heads.ctc: unknown key 'dropuot' \(did you mean 'dropout'\?\)"),
        ("ctc", {}, "heads.ctc: the key 'lang' is missing"),
        ("ctc", {"lang": "x", "target": "translation"}, "heads.ctc: 'target' = 'translation'"),
        ("transducer", {"lang": "x", "prune_range": 1}, "heads.transducer: 'prune_range' = 1"),
        ("ctc", "text", "heads.ctc must be a section"),
    ],
)
def test_wrong_configurations_are_named(key: str, values: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        head_config(key, values)


@BOTH
def test_k2_demanded_and_missing_is_said_when_the_head_is_made(values: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "have_k2", lambda: False)
    with pytest.raises(UserError, match="k2 is needed and cannot be imported here"):
        make_head(values, backend="k2")
    assert set(make_head(values, backend="auto").backends.values()) == {"torch"}


def overfit(values: dict) -> tuple[float, float]:
    """Loss before and after a few dozen steps on four utterances."""
    torch.manual_seed(0)
    head = build_head(head_config("main", values), 64, VOCAB).eval()  # nothing random, the final scales
    _, lens, targets = random_batch([True] * 4)
    encoder_out = torch.randn(4, 20, 64)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    history = []
    for step in range(50):
        loss = sum(head(encoder_out, lens, targets, step).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history[0], history[-1]


@BOTH
@pytest.mark.parametrize("backend", ["torch", pytest.param("k2", marks=pytest.mark.k2)])
def test_a_head_learns_four_utterances_by_heart(values: dict, backend: str) -> None:
    before, after = overfit({**values, "backend": backend})
    assert after < 0.1 * before
