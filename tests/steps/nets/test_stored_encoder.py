"""The encoder on stored features: unchanged, or through layers of its own; the same in any batch."""

from __future__ import annotations

import pytest
import torch

from steps.nets.encoders import StoredConfig, build_encoder
from steps.nets.model import Model, ModelConfig
from utils.errors import UserError
from utils.options import check_config

KINDS = [{}, {"downsample": 3}, {"layers": 2, "dim": 16, "feedforward_dim": 24, "downsample": 2}]


def make(**options):
    torch.manual_seed(0)
    return build_encoder(StoredConfig(name="stored", **options), 12).eval()


@torch.no_grad()
@pytest.mark.parametrize("options", KINDS)
def test_an_utterance_gives_the_same_in_any_batch(options):
    encoder = make(**options)
    if "downsample" in options:
        torch.nn.init.normal_(encoder.stack.proj.weight)
    layers = [1] if options.get("layers") else []
    features, lens = torch.randn(3, 20, 12), torch.tensor([20, 13, 1])
    features[torch.arange(20) >= lens[:, None]] = -23.0
    together = encoder(features, lens, layers)
    assert together.lens.tolist() == encoder.output_lens(lens).tolist()
    for row, length in enumerate(lens.tolist()):
        alone = encoder(features[row : row + 1, :length], lens[row : row + 1], layers)
        frames = int(alone.lens[0])
        torch.testing.assert_close(together.out[row, :frames], alone.out[0])
        for layer in layers:
            torch.testing.assert_close(together.at(layer)[row, :frames], alone.at(layer)[0])


def test_without_layers_nothing_changes_but_by_dropout():
    features, lens = torch.randn(2, 9, 12), torch.tensor([9, 9])
    encoder = make(dropout=0.5)
    assert torch.equal(encoder(features, lens).out, features)
    assert not torch.equal(encoder.train()(features, lens).out, features)
    assert not list(encoder.parameters()) and encoder.output_dim == 12 and encoder.subsampling_factor == 1


def test_frames_are_joined_as_their_mean_at_first():
    out = make(downsample=2)(torch.arange(36.0).view(1, 3, 12), torch.tensor([3])).out
    assert out[0, 0].tolist() == [6.0 + i for i in range(12)]


def test_layers_side_by_side_become_their_learned_mean():
    """SUPERB, section 4.2: shares are a softmax of the weights."""
    encoder = build_encoder(StoredConfig(name="stored"), 12, feature_layers=3).eval()
    features, lens = torch.randn(2, 9, 12), torch.tensor([9, 9])
    assert encoder.output_dim == 4 and [name for name, _ in encoder.named_parameters()] == ["mix.weights"]
    torch.testing.assert_close(encoder(features, lens).out, features.view(2, 9, 3, 4).mean(2))
    encoder.mix.weights.data = torch.tensor([0.25, 0.5, 0.25]).log()
    expected = torch.einsum("btld,l->btd", features.view(2, 9, 3, 4), torch.tensor([0.25, 0.5, 0.25]))
    torch.testing.assert_close(encoder(features, lens).out, expected)


def test_order_matters_to_the_layers():
    encoder, features = make(**KINDS[2]), torch.randn(1, 8, 12)
    lens = torch.tensor([8])
    forth, back = encoder(features, lens).out, encoder(features.flip(1), lens).out.flip(1)
    assert not torch.allclose(forth, back, atol=1e-3)


def test_wrong_sizes():
    heads = {"ctc": {"lang": "x", "layer": 1}}
    config = check_config({"encoder": {"name": "stored"}, "heads": heads, "feature_dim": 12}, ModelConfig, "conf")
    with pytest.raises(UserError, match=r"heads.ctc.layer is 1, the encoder has 0 layers"):
        Model(config, {"ctc": 5})
    with pytest.raises(UserError, match=r"conf: encoder: dim 10 must be even and a multiple of heads \(4\)"):
        check_config({"encoder": {"name": "stored", "layers": 1, "dim": 10}, "heads": heads}, ModelConfig, "conf")
