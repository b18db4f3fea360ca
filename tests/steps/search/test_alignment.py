"""CTC's best alignment of a known text: against all paths counted out, and torchaudio's."""

from __future__ import annotations

import itertools

import pytest
import torch

from steps.search import alignment
from steps.search.alignment import Gaps, ctc_alignment, ctc_states, needed_frames

LENS, COUNTS = torch.tensor([6, 4, 5, 1]), torch.tensor([3, 0, 2, 2])


def material(seed: int):
    torch.manual_seed(seed)
    return (2 * torch.randn(4, 6, 3)).log_softmax(-1), torch.randint(1, 3, (4, 3))


def best_by_hand(log_probs, tokens: list[int]):
    """The best frame labels that say `tokens`, None where there are none."""
    found = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        if [token for token, _ in itertools.groupby(path) if token] == tokens:
            found[path] = sum(float(log_probs[t, token]) for t, token in enumerate(path))
    return max(found.items(), key=lambda item: item[1]) if found else (None, -torch.inf)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("trellis", [1, 20, 2**20])
def test_the_best_of_all_paths(seed, trellis, monkeypatch):
    """Also where the trellis is computed in blocks of one frame, or of two."""
    monkeypatch.setattr(alignment, "TRELLIS", trellis)
    log_probs, tokens = material(seed)
    states, scores = ctc_alignment(log_probs, LENS, tokens, COUNTS)
    labels = ctc_states(tokens).gather(1, states.clamp(min=0))
    for row, (length, count) in enumerate(zip(LENS.tolist(), COUNTS.tolist(), strict=True)):
        said = tokens[row, :count].tolist()
        path, score = best_by_hand(log_probs[row, :length], said)
        assert float(scores[row]) == pytest.approx(score, abs=1e-4)
        assert (states[row, length:] == -1).all()
        assert (path is None) == (needed_frames(said) > length)
        if path is not None:
            assert tuple(labels[row, :length].tolist()) == path
            assert (states[row, :length].diff() >= 0).all()


def by_enumeration(log_probs, tokens: list[int], gates: list[int], costs: list[float], strange: float) -> float:
    """The best score of any sequence of states that the rules of gaps allow, each rule as it is told."""
    emits = [0, *(symbol for token in tokens for symbol in (token, 0))]
    price = dict(zip(gates, costs, strict=True))

    def step(before: int, after: int) -> bool:
        hop = after - before == 2 and after % 2 == 1 and emits[after] != emits[before]
        return after - before in (0, 1) or hop

    def reach(state: int) -> dict[int, float]:
        """States that this one can count as after a frame, and what leaving words out costs."""
        jumps = {gate: price[gate] - price[state] for gate in gates if gate >= state} if state in price else {}
        return {state: 0.0, **jumps}

    best = -torch.inf
    for path in itertools.product(range(len(emits)), repeat=len(log_probs)):
        score, ways = 0.0, reach(0)
        for t, state in enumerate(path):
            costs_here = [cost for place, cost in ways.items() if step(place, state)]
            if not costs_here:
                break
            said = float(log_probs[t, emits[state]])
            if state in price:
                said = max(said, float(log_probs[t].max()) - strange)
            score += said - min(costs_here)
            ways = reach(state)
        else:
            ends = [cost for place, cost in ways.items() if place >= len(emits) - 2]
            best = max(best, score - min(ends)) if ends else best
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("trellis", [1, 2**20])
def test_words_left_out_and_strange_speech(seed, trellis, monkeypatch):
    """Words of one and of two tokens, and one of one token; the second row is filled."""
    monkeypatch.setattr(alignment, "TRELLIS", trellis)
    log_probs, tokens = material(seed)
    log_probs, tokens = 2 * log_probs[:2], tokens[:2]
    lens, counts = torch.tensor([4, 3]), torch.tensor([3, 1])
    gaps = Gaps(torch.tensor([[0, 2, 6], [0, 2, 2]]), torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 1.0]]), 0.5)
    states, scores = ctc_alignment(log_probs, lens, tokens, counts, gaps)
    rows = [([0, 2, 6], [0.0, 1.0, 3.0]), ([0, 2], [0.0, 1.0])]
    for row, (gates, costs) in enumerate(rows):
        said = tokens[row, : counts[row]].tolist()
        expected = by_enumeration(log_probs[row, : lens[row]], said, gates, costs, 0.5)
        assert float(scores[row]) == pytest.approx(expected, abs=1e-4)
    assert (states[0, :4] >= 0).all() and (states[1, 3:] == -1).all()


def test_a_word_that_nobody_says_is_left_out():
    """Tokens 1 and 3 are said, 2 is not; and 4 is said, which the text lacks."""
    log_probs = torch.full((1, 9, 5), -9.0)
    for frame, token in enumerate([0, 1, 0, 4, 4, 0, 0, 3, 0]):
        log_probs[0, frame, token] = -0.01
    tokens, counts = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    gaps = Gaps(torch.tensor([[0, 2, 4, 6]]), 3.0 * torch.arange(4)[None], 2.0)
    states, score = ctc_alignment(log_probs, torch.tensor([9]), tokens, counts, gaps)
    assert [int(state) for state in states[0] if state % 2] == [1, 5] and states[0, 1] == 1 and states[0, 7] == 5
    assert float(score) == pytest.approx(-0.01 * 9 - 3.0 - 2 * 2.0, abs=1e-4)
    assert float(ctc_alignment(log_probs, torch.tensor([9]), tokens, counts)[1]) < -15


def test_no_frames_and_no_utterances():
    states, scores = ctc_alignment(
        torch.zeros(2, 0, 3), torch.tensor([0, 0]), torch.ones(2, 1).long(), torch.tensor([1, 0])
    )
    assert states.shape == (2, 0) and scores.tolist() == [-torch.inf, 0.0]


def test_the_same_as_torchaudio():
    functional = pytest.importorskip("torchaudio.functional")
    if not hasattr(functional, "forced_align"):
        pytest.skip("forced_align came with torchaudio 2.1")
    log_probs, tokens = torch.randn(1, 60, 8).log_softmax(-1), torch.randint(1, 8, (1, 20))
    labels, scores = functional.forced_align(log_probs, tokens)
    states, total = ctc_alignment(log_probs, torch.tensor([60]), tokens, torch.tensor([20]))
    assert float(total) == pytest.approx(float(scores.sum()), abs=1e-3)
    assert torch.equal(ctc_states(tokens).gather(1, states), labels.long())
