"""CTC searches against enumeration of all alignments."""

from __future__ import annotations

import itertools

import pytest
import torch

from steps.search.ctc import ctc_greedy, ctc_prefix_beam


def collapse(alignment: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(alignment) if token != 0)


def all_labellings(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Labelling -> log of the summed probability of its alignments, for `log_probs (T, V)`."""
    totals: dict[tuple[int, ...], float] = {}
    table = log_probs.double().exp().tolist()
    for alignment in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        probability = 1.0
        for frame, token in enumerate(alignment):
            probability *= table[frame][token]
        totals[collapse(alignment)] = totals.get(collapse(alignment), 0.0) + probability
    return {tokens: float(torch.tensor(p, dtype=torch.float64).log()) for tokens, p in totals.items()}


def random_batch(seed: int, shape: tuple[int, int, int], sharpness: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (sharpness * torch.randn(shape, generator=generator)).log_softmax(-1)
    lens = torch.randint(0, shape[1] + 1, shape[:1], generator=generator)
    lens[0] = shape[1]
    return log_probs, lens


@pytest.mark.parametrize("seed", range(20))
def test_greedy_is_the_best_alignment(seed):
    log_probs, lens = random_batch(seed, (3, 4, 3))
    for row, length, (hypothesis,) in zip(log_probs, lens.tolist(), ctc_greedy(log_probs, lens), strict=True):
        alignments = itertools.product(range(3), repeat=length)
        scored = {a: sum(row[t, v].item() for t, v in enumerate(a)) for a in alignments}
        best = max(scored, key=scored.get)
        assert tuple(hypothesis.tokens) == collapse(best)
        assert hypothesis.score == pytest.approx(scored[best], abs=1e-5)
        starts = [t for t, v in enumerate(best) if v != 0 and (t == 0 or best[t - 1] != v)]
        assert hypothesis.frames == starts
        assert hypothesis.token_scores == pytest.approx([row[t, best[t]].item() for t in starts], abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("vocab", [2, 3])
def test_full_prefix_beam_is_the_sum_over_all_alignments(seed, vocab):
    log_probs, lens = random_batch(seed, (4, 4, vocab), sharpness=1.0 + seed % 3)
    found = ctc_prefix_beam(log_probs, lens, beam=40, nbest=40)
    for row, length, hypotheses in zip(log_probs, lens.tolist(), found, strict=True):
        truth = all_labellings(row[:length])
        assert {tuple(h.tokens) for h in hypotheses} == set(truth)
        assert len(hypotheses) == len(truth)
        for h in hypotheses:
            assert h.score == pytest.approx(truth[tuple(h.tokens)], abs=1e-4)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def reference_prefix_beam(log_probs: torch.Tensor, beam: int) -> list[tuple[tuple[int, ...], float]]:
    """The textbook's search over a dict of prefixes, all tokens tried, merged before pruning."""
    beams = {(): (1.0, 0.0)}
    for frame in log_probs.double().exp().tolist():
        new: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, token) in beams.items():
            stay = new.setdefault(prefix, [0.0, 0.0])
            stay[0] += (blank + token) * frame[0]
            if prefix:
                stay[1] += token * frame[prefix[-1]]
            for v in range(1, len(frame)):
                mass = blank if prefix and prefix[-1] == v else blank + token
                new.setdefault((*prefix, v), [0.0, 0.0])[1] += mass * frame[v]
        best = sorted(new.items(), key=lambda item: -sum(item[1]))[:beam]
        beams = {prefix: (blank, token) for prefix, (blank, token) in best}
    return [(prefix, sum(p)) for prefix, p in beams.items() if sum(p) > 0]


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_narrow_prefix_beam_is_the_textbook_search(beam):
    log_probs, lens = random_batch(beam, (12, 14, 9), sharpness=1.5)
    found = ctc_prefix_beam(log_probs, lens, beam=beam, nbest=beam)
    for row, length, hypotheses in zip(log_probs, lens.tolist(), found, strict=True):
        truth = reference_prefix_beam(row[:length], beam)
        assert [tuple(h.tokens) for h in hypotheses] == [tokens for tokens, _ in truth]
        expected = [float(torch.tensor(p, dtype=torch.float64).log()) for _, p in truth]
        assert [h.score for h in hypotheses] == pytest.approx(expected, abs=1e-4)


def test_a_wider_beam_beats_the_best_alignment():
    # blank wins each frame (0.6 * 0.6 = 0.36), yet the labelling [1] has 0.4 * 0.4 + 2 * 0.4 * 0.6 = 0.64
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lens = torch.tensor([2])
    assert ctc_greedy(log_probs, lens)[0][0].tokens == []
    (best,) = ctc_prefix_beam(log_probs, lens, beam=4)[0]
    assert best.tokens == [1]
    assert best.score == pytest.approx(torch.tensor(0.64).log().item(), abs=1e-6)


def narrow_beam(log_probs, lens):
    return ctc_prefix_beam(log_probs, lens, beam=3, nbest=2)


@pytest.mark.parametrize("search", [ctc_greedy, narrow_beam])
def test_batch_equals_single_and_padding_does_not_matter(search):
    log_probs, lens = random_batch(3, (6, 20, 12))
    together = search(log_probs, lens)
    log_probs_dirty = log_probs.clone()
    for n, length in enumerate(lens.tolist()):
        log_probs_dirty[n, length:] = torch.randn(20 - length, 12) * 9
        assert search(log_probs[n : n + 1, :length], lens[n : n + 1]) == together[n : n + 1]
    assert search(log_probs_dirty, lens) == together


@pytest.mark.parametrize("search", [ctc_greedy, narrow_beam])
def test_frames_and_scores_belong_to_the_tokens(search):
    log_probs, lens = random_batch(4, (5, 30, 6), sharpness=3.0)
    for row, length, hypotheses in zip(log_probs, lens.tolist(), search(log_probs, lens), strict=True):
        for h in hypotheses:
            assert len(h.tokens) == len(h.frames) == len(h.token_scores)
            assert h.frames == sorted(set(h.frames))
            assert all(0 <= t < length for t in h.frames)
            assert h.token_scores == [row[t, v].item() for t, v in zip(h.frames, h.tokens, strict=True)]


@pytest.mark.parametrize("search", [ctc_greedy, narrow_beam])
@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (2, 3, 4)])
def test_nothing_in_gives_the_empty_hypothesis(search, shape):
    found = search(torch.randn(shape).log_softmax(-1), torch.zeros(shape[0], dtype=torch.int64))
    assert [[(h.tokens, h.frames, h.score) for h in hypotheses] for hypotheses in found] == [[([], [], 0.0)]] * shape[0]


@pytest.mark.parametrize("search", [ctc_greedy, narrow_beam])
def test_equal_scores_are_decided_by_the_lower_token(search):
    log_probs = torch.tensor([[-9.0, -1.5, -1.0, -1.0, -1.0, -9.0]]).expand(2, 1, 6)
    assert [hypotheses[0].tokens for hypotheses in search(log_probs, torch.tensor([1, 1]))] == [[2], [2]]


def test_impossible_tokens_leave_one_hypothesis():
    log_probs = torch.full((1, 3, 4), float("-inf"))
    log_probs[:, :, 2] = 0.0
    hypotheses = ctc_prefix_beam(log_probs, torch.tensor([3]), beam=4, nbest=4)[0]
    assert [(h.tokens, h.frames, h.score) for h in hypotheses] == [([2], [0], 0.0)]
