"""Without a GPU: no search step brings a tensor of the CPU into one elsewhere, or looks at a value there."""

from __future__ import annotations

import pytest
import torch

from steps.nets.decoder import Decoder
from steps.nets.joiner import Joiner
from steps.search import ctc, transducer
from steps.search.beams import Trace
from steps.search.transducer import InternalLm

META = torch.device("meta")  # tensors without values: to mix it with the CPU or to read from it is an error


@pytest.fixture
def modules():
    return Decoder(20, 8).to(META).eval(), Joiner(6, 8, 8, 20).to(META).eval()


def test_prefix_beam_stays_on_the_device():
    log_probs, trace = torch.empty(5, 3, 20, device=META), Trace()
    state = ctc._start(log_probs, beam=4, blank=0)
    for t in range(3):
        state = state.head(5 - t)
        state = ctc._step(state, log_probs[: 5 - t, t], 0, trace)
    assert {x.device for x in (state.ended(), state.blank, state.token, state.prefixes.key, *trace.steps[-1])} == {META}
    assert state.ended().shape == (3, 4)


def modified_beam(decoder, joiner, scorers=()):
    """The state after three steps of five utterances, of which one ends at each, and the last step's trace."""
    trace, state = Trace(), transducer._start(transducer.Predictor(decoder, joiner), 5, 4, META, scorers)
    for t in range(3):
        state = state.head(5 - t)
        encoder_out = torch.empty(5 - t, 4, 8, device=META)
        state = transducer._step(
            state, transducer.symbol_log_probs(joiner, encoder_out, state.decoder_out, 0, 0.5), trace
        )
    return state, trace


@torch.inference_mode()
def test_modified_beam_stays_on_the_device(modules):
    state, trace = modified_beam(*modules)
    assert {x.device for x in (state.scores, state.context, state.decoder_out, *trace.steps[-1])} == {META}
    assert state.decoder_out.shape == (3, 4, 8)


@torch.inference_mode()
def test_fusion_stays_on_the_device(modules):
    state, _ = modified_beam(*modules, [(InternalLm(*modules), -0.2)])
    assert state.fused.scores.device == META and state.fused.scores.shape == (3, 4, 20)


@torch.inference_mode()
def test_greedy_stays_on_the_device(modules):
    state = transducer._Greedy.start(*modules, torch.empty(5, 7, 6, device=META), torch.tensor([7, 6, 5, 4, 3]))
    for step in range(3):
        state.step(5 - step, max_symbols=2, blank_penalty=0.0)
    assert {x.device for x in (state.score, state.frame, state.context, state.decoder_out, *state.trace[-1])} == {META}
