"""Language models: token by token as at once, rows of different lengths, texts' scores, icefall's names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from steps.nets import language_model
from steps.nets.language_model import LanguageModel, NeuralLmConfig, State, build_language_model
from tests.steps.search.test_fusion import scored
from utils.devices import autocast

VOCAB = 9
LSTM = {"name": "lstm", "lang": "unused", "embedding_dim": 8, "hidden_dim": 12, "layers": 2}
TRANSFORMER = {"name": "transformer", "lang": "unused", "dim": 16, "layers": 2, "heads": 4, "feedforward_dim": 24}
KINDS = [
    LSTM,
    {**LSTM, "layers": 1, "hidden_dim": 8, "tied": True},
    TRANSFORMER,
    {**TRANSFORMER, "tied": False, "final_norm": False, "activation": "gelu"},
]
TEXTS = [[3, 4, 5, 6, 2], [7], [], [8, 8, 3, 4, 4, 5, 7, 3]]


def make(about: dict, seed: int = 0) -> LanguageModel:
    """An untrained model with opinions."""
    torch.manual_seed(seed)
    model = build_language_model(NeuralLmConfig.model_validate({"language_model": about}), VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2.0)
    return model.eval()


@pytest.fixture(params=KINDS, ids=lambda about: f"{about['name']}{about.get('tied', '')}")
def model(request, monkeypatch) -> LanguageModel:
    monkeypatch.setattr(language_model, "BLOCK", 3)  # caches grow within these texts
    return make(request.param)


def at_once(model: LanguageModel, text: list[int]) -> Tensor:
    """Log-probabilities `(tokens + 1, vocab)` of what follows each beginning of a text, by one pass without padding."""
    with torch.no_grad():
        logits = model.log_odds(torch.tensor([[1, *text]]))[0]
    return torch.cat((torch.full((len(logits), 1), float("-inf")), logits[:, 1:].log_softmax(-1)), dim=1)


def joined(one: State, other: State) -> State:
    """Rows of both, as the interface says: smaller ones are padded with zeros."""
    parts = []
    for a, b in zip(one, other, strict=True):
        sizes = [max(pair) for pair in zip(a.shape[1:], b.shape[1:], strict=True)]
        a, b = (
            F.pad(x, [n for s, m in zip(x.shape[:0:-1], sizes[::-1], strict=True) for n in (0, m - s)]) for x in (a, b)
        )
        parts.append(torch.cat((a, b)))
    return tuple(parts)


def test_token_by_token_is_as_at_once(model):
    text = TEXTS[3]
    expected = at_once(model, text)
    found, state = model.begin(1)
    assert (
        found.dtype == torch.float32 and found[0, 0] == float("-inf") and found[0, 1:].exp().sum() == pytest.approx(1)
    )
    torch.testing.assert_close(found[0], expected[0])
    for place, token in enumerate(text, 1):
        found, state = model.extend(torch.tensor([token]), state)
        torch.testing.assert_close(found[0], expected[place], rtol=1e-4, atol=1e-5)


def test_rows_of_different_lengths_are_what_they_are_alone(model):
    """As in a search: at each turn the rows whose text goes on are taken out, extended, and joined with the others."""
    found, state = model.begin(len(TEXTS))
    order = torch.arange(len(TEXTS))
    for turn in range(max(map(len, TEXTS))):
        on = torch.tensor([turn < len(TEXTS[row]) for row in order.tolist()])
        tokens = torch.tensor([TEXTS[row][turn] for row in order[on].tolist()])
        new, extended = model.extend(tokens, tuple(part[on] for part in state))
        state, found = joined(extended, tuple(part[~on] for part in state)), torch.cat((new, found[~on]))
        order = torch.cat((order[on], order[~on]))
        assert all(len(part) == len(TEXTS) for part in state)
    # once more, all rows at a time, each from its own place
    more, state = model.extend(torch.full((len(TEXTS),), 5), state)
    for row, index in enumerate(order.tolist()):
        expected = at_once(model, [*TEXTS[index], 5])
        torch.testing.assert_close(found[row], expected[-2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(more[row], expected[-1], rtol=1e-4, atol=1e-5)


def test_a_state_is_not_changed_by_what_is_made_of_it(model):
    _, state = model.begin(2)
    _, state = model.extend(torch.tensor([3, 4]), state)
    before = [part.clone() for part in state]
    one, _ = model.extend(torch.tensor([5, 5]), state)
    model.extend(torch.tensor([6, 7]), state)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
    assert torch.equal(one, model.extend(torch.tensor([5, 5]), state)[0])


def test_no_rows_are_no_rows(model):
    found, state = model.begin(0)
    assert found.shape == (0, VOCAB) and all(len(part) == 0 for part in state)
    assert model.extend(torch.zeros(0, dtype=torch.int64), state)[0].shape == (0, VOCAB)


@pytest.mark.parametrize("at_a_time", [1, 60, 1 << 24])
def test_a_texts_score_is_the_sum_of_its_tokens_and_its_end(model, monkeypatch, at_a_time):
    monkeypatch.setattr(language_model, "SCORED", at_a_time)
    assert model.score(TEXTS).tolist() == pytest.approx([scored(model, text) for text in TEXTS], abs=1e-4)
    assert model.score([]).shape == (0,)


def test_the_loss_is_of_every_token_and_the_end(model):
    tokens = torch.tensor([[3, 4, 5], [6, 0, 0]])
    costs = model.costs(tokens, torch.tensor([3, 1]))
    assert costs.shape == (2, 4) and (costs[1, 2:] == 0).all() and (costs[0] > 0).all()
    torch.testing.assert_close(-costs.sum(1), model.score([[3, 4, 5], [6]]), rtol=1e-5, atol=1e-5)
    costs.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_half_precision_is_near(model):
    full, state = model.begin(2)
    with autocast(torch.device("cpu"), "bf16"):
        half, state = model.begin(2)
        model.costs(torch.tensor([[3, 4], [5, 0]]), torch.tensor([2, 1])).sum().backward()
        more, _ = model.extend(torch.tensor([3, 4]), state)
    assert half.dtype == more.dtype == torch.float32
    torch.testing.assert_close(full, half, rtol=0.1, atol=0.1)


def test_the_lstm_has_icefalls_names_and_shapes():
    """RnnLmModel of icefall/rnn_lm/model.py."""
    shapes = {name: tuple(value.shape) for name, value in make(LSTM).state_dict().items()}
    cell = {"weight_ih": (48, None), "weight_hh": (48, 12), "bias_ih": (48,), "bias_hh": (48,)}
    expected = {"input_embedding.weight": (9, 8), "output_linear.weight": (9, 12), "output_linear.bias": (9,)}
    for layer, width in enumerate((8, 12)):
        expected |= {f"rnn.{name}_l{layer}": tuple(n or width for n in shape) for name, shape in cell.items()}
    assert shapes == expected


def test_tied_weights_are_one():
    for about in (KINDS[1], TRANSFORMER):
        model = make(about)
        once = sum(parameter.numel() for parameter in model.parameters())
        assert once == sum(value.numel() for value in model.state_dict().values()) - VOCAB * about.get("dim", 8)
    with pytest.raises(ValueError, match="tied: embedding_dim 8 is not hidden_dim 12"):
        make({**LSTM, "tied": True})
