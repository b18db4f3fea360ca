"""Transformer layers: nothing from the future, nothing from the padding, and the cache changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from steps.nets import transformer
from steps.nets.transformer import (
    MultiHeadAttention,
    TransformerConfig,
    TransformerDecoder,
    TransformerEncoder,
    attend,
    sinusoids,
)

SIZES = {"dim": 16, "layers": 2, "heads": 4, "feedforward_dim": 24, "dropout": 0.0}
KINDS = [
    {"positions": "sinusoidal", "final_norm": False},
    {"positions": "learned", "max_positions": 12, "activation": "gelu"},
]


def make_decoder(tied: bool = False, **options) -> TransformerDecoder:
    torch.manual_seed(0)
    return TransformerDecoder(TransformerConfig(**{**SIZES, **options}), 10, 7, tied).eval()


def memory(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 9, 10), torch.tensor([9, 5, 7][:batch])


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        parts = (ours.linear_q, ours.linear_k, ours.linear_v)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x, context = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    beyond = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    expected, _ = theirs(x, context, context, key_padding_mask=beyond)
    found = ours(x, ours.project(context), beyond[:, None, None].float() * -1e4)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scores", [1, 2 * 4 * 6 * 2, 10**6])
@pytest.mark.parametrize(
    "mask", [None, torch.tensor([[0.0, 0.0, -1e4, 0.0, -1e4, 0.0]]), torch.ones(5, 6).triu(1) * -1e4]
)
def test_attention_in_pieces_is_that_of_the_paper(monkeypatch, scores, mask):
    """Vaswani et al. 2017, equation 1, with the gradients; queries 1, 2 and 5 at a time."""
    monkeypatch.setattr(transformer, "CACHED", scores)
    q = torch.randn(2, 4, 5, 8, dtype=torch.double, requires_grad=True)
    k, v = torch.randn(2, 2, 4, 6, 8, dtype=torch.double)
    inner = q @ k.transpose(-1, -2) / 8**0.5 + (0 if mask is None else mask)
    expected = inner.exp() / inner.exp().sum(-1, keepdim=True) @ v
    found = attend(q, k, v, mask)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    if hasattr(F, "scaled_dot_product_attention"):  # what a GPU computes; torch 1.13 has it not
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.double())
        torch.testing.assert_close(found, fused, rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(y.square().sum(), q)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_positions_are_those_of_the_paper():
    found = sinusoids(torch.arange(30), 6)
    for place, i in ((0, 0), (7, 1), (29, 2)):
        angle = place / 10000 ** (2 * i / 6)
        assert found[place, 2 * i : 2 * i + 2].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", KINDS)
def test_the_future_is_not_seen(options):
    decoder = make_decoder(**options)
    tokens = torch.randint(7, (2, 6))
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 7
    before, after = decoder(tokens, *memory()), decoder(changed, *memory())
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@torch.no_grad()
@pytest.mark.parametrize("options", KINDS)
def test_padding_of_the_memory_is_not_seen(options):
    decoder = make_decoder(**options)
    tokens = torch.randint(7, (2, 4))
    context, lens = memory()
    together = decoder(tokens, context, lens)
    for row, length in enumerate(lens.tolist()):
        alone = decoder(tokens[row : row + 1], context[row : row + 1, :length], lens[row : row + 1])
        torch.testing.assert_close(together[row], alone[0])


@torch.no_grad()
@pytest.mark.parametrize("options", [*KINDS, {"tied": True}])
@pytest.mark.parametrize("pieces", [[1] * 6, [3, 1, 2], [6]])
def test_the_cache_changes_nothing(options, pieces):
    decoder = make_decoder(**options)
    tokens = torch.randint(7, (2, 3, 6))  # three hypotheses of each utterance
    context, lens = memory()
    state, found = decoder.start(context, lens), []
    for piece in tokens.split(pieces, dim=2):
        found.append(decoder.extend(piece, state))
    for beam in range(3):
        expected = decoder(tokens[:, beam], context, lens)
        torch.testing.assert_close(torch.cat(found, dim=2)[:, beam], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hypotheses_are_reordered_and_utterances_left_out():
    decoder = make_decoder()
    context, lens = memory(3)
    tokens = torch.randint(7, (3, 2, 4))
    state = decoder.start(context, lens)
    decoder.extend(tokens[..., :3], state)
    source = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]])  # from two hypotheses to three
    state.reorder(source)
    rows = torch.tensor([2, 0])
    state.keep(rows)
    new = torch.randint(7, (2, 3, 1))
    found = decoder.extend(new, state)
    for place, row in enumerate(rows.tolist()):
        for beam in range(3):
            history = torch.cat((tokens[row, source[row, beam], :3], new[place, beam]))
            expected = decoder(history[None], context[row : row + 1], lens[row : row + 1])[0, -1]
            torch.testing.assert_close(found[place, beam, 0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_encoder_of_text_sees_no_padding():
    torch.manual_seed(0)
    encoder = TransformerEncoder(TransformerConfig(**SIZES), 7).eval()
    tokens, lens = torch.randint(7, (2, 6)), torch.tensor([6, 4])
    together = encoder(tokens, lens)
    torch.testing.assert_close(together[1, :4], encoder(tokens[1:, :4], lens[1:])[0])


def test_learned_positions_begin_as_small_as_embeddings():
    decoder = make_decoder(positions="learned", dim=64, heads=4)
    assert decoder.pos.weight.std().item() == pytest.approx(decoder.embed.weight.std().item(), rel=0.2)


def test_under_autocast_norms_stay_in_float32():
    decoder = make_decoder()
    seen = []
    decoder.layers[0].norm_ff.register_forward_hook(lambda module, x, y: seen.append((x[0].dtype, y.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decoder(torch.randint(7, (2, 4)), *memory())
    assert half.dtype == torch.bfloat16 and seen == [(torch.float32, torch.float32)]


@pytest.mark.parametrize("sizes", [{"dim": 10, "heads": 4}, {"dim": 9, "heads": 3}])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match="must be even and a multiple of heads"):
        TransformerConfig(**sizes)
