"""Transducer searches against enumeration of all paths, on a random stateless transducer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from steps.nets.speech import Encoded
from steps.search.fast_beam import transducer_fast_beam, transducer_fast_beam_nbest
from steps.search.spoken import Spoken
from steps.search.transducer import modified_beam_search, transducer_greedy


class Decoder(nn.Module):
    """icefall's interface in the least code: an embedding of each context position, summed."""

    def __init__(self, vocab: int, context_size: int, dim: int = 5) -> None:
        super().__init__()
        self.blank_id, self.context_size = 0, context_size
        self.tables = nn.ModuleList(nn.Embedding(vocab + 1, dim) for _ in range(context_size))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        assert y.ndim == 2 and y.shape[1] == self.context_size
        return torch.stack([table(y[:, i] + 1) for i, table in enumerate(self.tables)]).sum(0)

    def lookup(self):
        return self


class Joiner(nn.Module):
    def __init__(self, vocab: int, dim: int = 5, blank_bias: float = 0.0) -> None:
        super().__init__()
        self.encoder_proj, self.decoder_proj = nn.Linear(dim, 6), nn.Linear(dim, 6)
        self.output_linear = nn.Linear(6, vocab)
        self.output_linear.weight.data *= 6
        self.output_linear.bias.data[0] += blank_bias

    def forward(self, encoder_out: torch.Tensor, decoder_out: torch.Tensor, project_input: bool = True) -> torch.Tensor:
        assert encoder_out.ndim == decoder_out.ndim and not project_input
        return self.output_linear(torch.tanh(encoder_out + decoder_out))


def random_model(seed: int, shape=(4, 4), vocab: int = 3, context_size: int = 2, blank_bias: float = 0.0):
    torch.manual_seed(seed)
    decoder, joiner = Decoder(vocab, context_size), Joiner(vocab, blank_bias=blank_bias)
    lens = torch.randint(0, shape[1] + 1, shape[:1])
    lens[-1] = shape[1]
    return decoder.requires_grad_(False), joiner.requires_grad_(False), 2 * torch.randn(*shape, 5), lens


def log_probs_after(decoder, joiner, frame, tokens, blank_penalty=0.0, temperature=1.0) -> list[float]:
    history = ([-1] * (decoder.context_size - 1) + [0] + list(tokens))[-decoder.context_size :]
    decoder_out = joiner.decoder_proj(decoder(torch.tensor([history])))[0]
    logits = joiner(joiner.encoder_proj(frame), decoder_out, project_input=False)
    logits[0] -= blank_penalty
    return (logits / temperature).log_softmax(-1).tolist()


def all_paths(decoder, joiner, frames, **options) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every path with one symbol a frame, and its log probability."""
    for path in itertools.product(range(3), repeat=len(frames)):
        score, tokens = 0.0, ()
        for frame, symbol in zip(frames, path, strict=True):
            score += log_probs_after(decoder, joiner, frame, tokens, **options)[symbol]
            tokens += (symbol,) if symbol else ()
        yield path, score


def all_sequences(decoder, joiner, frames, **options) -> dict[tuple[int, ...], float]:
    """Tokens -> log of the summed probability of all paths with one symbol per frame."""
    totals: dict[tuple[int, ...], float] = {}
    for path, score in all_paths(decoder, joiner, frames, **options):
        tokens = tuple(symbol for symbol in path if symbol)
        totals[tokens] = totals.get(tokens, 0.0) + math.exp(score)
    return {tokens: math.log(p) for tokens, p in totals.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("options", [{}, {"blank_penalty": 0.7, "temperature": 1.6}])
def test_full_beam_is_the_sum_over_all_paths(seed, options):
    decoder, joiner, encoder_out, lens = random_model(seed, context_size=1 + seed % 3)
    found = modified_beam_search(decoder, joiner, encoder_out, lens, beam=40, nbest=40, length_norm=False, **options)
    for frames, length, hypotheses in zip(encoder_out, lens.tolist(), found, strict=True):
        truth = all_sequences(decoder, joiner, frames[:length], **options)
        assert len(hypotheses) == len(truth)
        assert {tuple(h.tokens): h.score for h in hypotheses} == pytest.approx(truth, abs=1e-4)
        assert tuple(hypotheses[0].tokens) == max(truth, key=truth.get)


@pytest.mark.parametrize("seed", range(8))
def test_length_norm_ranks_by_score_per_token(seed):
    decoder, joiner, encoder_out, lens = random_model(seed)
    found = modified_beam_search(decoder, joiner, encoder_out, lens, beam=40)
    for frames, length, (best,) in zip(encoder_out, lens.tolist(), found, strict=True):
        truth = all_sequences(decoder, joiner, frames[:length])
        assert tuple(best.tokens) == max(truth, key=lambda tokens: truth[tokens] / (len(tokens) + 2))
        assert best.score == pytest.approx(truth[tuple(best.tokens)], abs=1e-4)


def reference_beam(decoder, joiner, frames, beam: int) -> list[tuple[tuple[int, ...], float]]:
    """The same search over a dict of token sequences."""
    beams = {(): 0.0}
    for frame in frames:
        new: dict[tuple[int, ...], float] = {}
        for tokens, score in beams.items():
            for symbol, log_prob in enumerate(log_probs_after(decoder, joiner, frame, tokens)):
                key = (*tokens, symbol) if symbol else tokens
                new[key] = new.get(key, 0.0) + math.exp(score + log_prob)
        beams = {k: math.log(p) for k, p in sorted(new.items(), key=lambda item: -item[1])[:beam]}
    return list(beams.items())


@pytest.mark.parametrize("beam", [1, 2, 3, 4])
def test_narrow_beam_is_the_search_over_a_dict(beam):
    decoder, joiner, encoder_out, lens = random_model(beam, shape=(8, 15), vocab=7, blank_bias=1.0)
    found = modified_beam_search(decoder, joiner, encoder_out, lens, beam=beam, nbest=beam, length_norm=False)
    for frames, length, hypotheses in zip(encoder_out, lens.tolist(), found, strict=True):
        truth = reference_beam(decoder, joiner, frames[:length], beam)
        assert [tuple(h.tokens) for h in hypotheses] == [tokens for tokens, _ in truth]
        assert [h.score for h in hypotheses] == pytest.approx([score for _, score in truth], abs=1e-3)


def reference_greedy(decoder, joiner, frames, max_symbols: int):
    tokens, where, score, token_scores = [], [], 0.0, []
    for t, frame in enumerate(frames):
        for _ in range(max_symbols):
            log_probs = log_probs_after(decoder, joiner, frame, tokens)
            best = max(range(len(log_probs)), key=log_probs.__getitem__)
            score += log_probs[best]
            if best == 0:
                break
            tokens.append(best)
            where.append(t)
            token_scores.append(log_probs[best])
    return tokens, where, score, token_scores


@pytest.mark.parametrize("max_symbols", [1, 2, 3, 20])
def test_greedy_takes_the_best_symbol_at_each_step(max_symbols):
    decoder, joiner, encoder_out, lens = random_model(max_symbols, shape=(10, 25), vocab=6, blank_bias=0.5)
    found = transducer_greedy(decoder, joiner, encoder_out, lens, max_symbols)
    at_most = 0
    for frames, length, (h,) in zip(encoder_out, lens.tolist(), found, strict=True):
        tokens, where, score, token_scores = reference_greedy(decoder, joiner, frames[:length], max_symbols)
        assert (h.tokens, h.frames) == (tokens, where)
        assert h.score == pytest.approx(score, abs=1e-3)
        assert h.token_scores == pytest.approx(token_scores, abs=1e-4)
        at_most = max([at_most, *(where.count(t) for t in where)])
    assert at_most == max_symbols or max_symbols == 20  # the limit was really met


def test_beam_of_one_is_greedy():
    decoder, joiner, encoder_out, lens = random_model(1, shape=(9, 20), vocab=6, blank_bias=1.0)
    greedy = transducer_greedy(decoder, joiner, encoder_out, lens)
    beam = modified_beam_search(decoder, joiner, encoder_out, lens, beam=1)
    assert [(h.tokens, h.frames) for (h,) in beam] == [(h.tokens, h.frames) for (h,) in greedy]
    assert [h.score for (h,) in beam] == pytest.approx([h.score for (h,) in greedy], abs=1e-4)


def narrow_beam(decoder, joiner, encoder_out, lens):
    return modified_beam_search(decoder, joiner, encoder_out, lens, beam=3, nbest=2)


def greedy_two(decoder, joiner, encoder_out, lens):
    return transducer_greedy(decoder, joiner, encoder_out, lens, max_symbols=2)


def spoken(decoder, joiner, encoder_out, lens) -> Spoken:
    """A batch for searches of a whole head."""
    head = nn.Module()
    head.decoder, head.joiner, head.config = decoder, joiner, SimpleNamespace(layer=None)
    return Spoken({"transducer": head}, Encoded(encoder_out, lens), decoders={"transducer": str})


def fast_beam(*batch):
    return transducer_fast_beam(spoken(*batch), "transducer")


def fast_beam_nbest(*batch):
    return transducer_fast_beam_nbest(spoken(*batch), "transducer", nbest=3)


FAST = [fast_beam, fast_beam_nbest]
PLAIN = [transducer_greedy, greedy_two, narrow_beam]
ALL = pytest.mark.parametrize("search", [*PLAIN, *(pytest.param(one, marks=pytest.mark.k2) for one in FAST)])


def assert_same(found, expected):
    for hypothesis, other in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert (hypothesis.tokens, hypothesis.frames) == (other.tokens, other.frames)
        assert hypothesis.score == pytest.approx(other.score, abs=1e-4)
        assert hypothesis.token_scores == pytest.approx(other.token_scores, abs=1e-4)


@ALL
def test_batch_equals_single_and_padding_does_not_matter(search):
    decoder, joiner, encoder_out, lens = random_model(5, shape=(6, 20), vocab=8, blank_bias=1.0)
    together = search(decoder, joiner, encoder_out, lens)
    for n, length in enumerate(lens.tolist()):
        assert_same(search(decoder, joiner, encoder_out[n : n + 1, :length], lens[n : n + 1]), together[n : n + 1])
        encoder_out[n, length:] = torch.randn(20 - length, 5) * 9
    assert_same(search(decoder, joiner, encoder_out, lens), together)


@ALL
def test_frames_and_scores_belong_to_the_tokens(search):
    decoder, joiner, encoder_out, lens = random_model(6, shape=(5, 12), vocab=6)
    for frames, length, hypotheses in zip(
        encoder_out, lens.tolist(), search(decoder, joiner, encoder_out, lens), strict=True
    ):
        for h in hypotheses:
            assert h.frames == sorted(h.frames) and all(0 <= t < length for t in h.frames)
            for i, (t, token) in enumerate(zip(h.frames, h.tokens, strict=True)):
                log_probs = log_probs_after(decoder, joiner, frames[t], h.tokens[:i])
                assert h.token_scores[i] == pytest.approx(log_probs[token], abs=1e-4)


@ALL
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (2, 3)])
def test_nothing_in_gives_the_empty_hypothesis(search, shape):
    decoder, joiner, _, _ = random_model(7)
    found = search(decoder, joiner, torch.randn(*shape, 5), torch.zeros(shape[0], dtype=torch.int64))
    assert [[(h.tokens, h.frames, h.score) for h in hypotheses] for hypotheses in found] == [[([], [], 0.0)]] * shape[0]


@pytest.mark.parametrize("search", PLAIN)
def test_equal_scores_are_decided_by_the_lower_token(search):
    decoder, joiner, encoder_out, _ = random_model(8, shape=(2, 1), vocab=6)
    joiner.output_linear.weight.zero_()
    joiner.output_linear.bias.copy_(torch.tensor([-9.0, -5.0, 1.0, 1.0, 1.0, -9.0]))
    found = search(decoder, joiner, encoder_out, torch.tensor([1, 1]))
    assert [hypotheses[0].tokens[0] for hypotheses in found] == [2, 2]
