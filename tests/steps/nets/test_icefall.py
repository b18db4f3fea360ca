"""icefall's checkpoints: their names and ours, both ways, and what is said of files that do not fit."""

import pytest
import torch

from steps.nets.encoder import ZipformerConfig
from steps.nets.encoders import build_encoder
from steps.nets.icefall import load_icefall, save_icefall
from steps.nets.model import Model, ModelConfig
from utils.errors import UserError

# the parameters of icefall's model, from the state dict of its zipformer.py and model.py of 2025: a name without a dot
# at its end stands for name.weight and name.bias
LAYER = """bypass_scale. bypass.bypass_scale. bypass_mid.bypass_scale. self_attn_weights.in_proj
self_attn_weights.linear_pos.weight. self_attn1.in_proj self_attn1.out_proj self_attn2.in_proj self_attn2.out_proj
feed_forward1.in_proj feed_forward1.out_proj feed_forward2.in_proj feed_forward2.out_proj feed_forward3.in_proj
feed_forward3.out_proj nonlin_attention.in_proj nonlin_attention.out_proj conv_module1.in_proj conv_module1.out_proj
conv_module2.in_proj conv_module2.out_proj norm.log_scale. norm.bias."""
CONVOLUTION = {
    False: "conv_module{}.depthwise_conv",
    True: """conv_module{0}.depthwise_conv.causal_conv conv_module{0}.depthwise_conv.chunkwise_conv
    conv_module{0}.depthwise_conv.chunkwise_conv_scale.""",
}
EMBED = """conv.0 conv.4 conv.7 convnext.depthwise_conv convnext.pointwise_conv1 convnext.pointwise_conv2 out
out_norm.log_scale. out_norm.bias."""
HEADS = """decoder.embedding.weight. decoder.conv.weight. joiner.encoder_proj joiner.decoder_proj joiner.output_linear
simple_am_proj simple_lm_proj ctc_output.1"""
SIZES = {
    "downsampling_factor": [1, 2],
    "num_encoder_layers": [1, 2],
    "encoder_dim": [16, 32],
    "encoder_unmasked_dim": 16,
    "num_heads": 4,
    "feedforward_dim": 32,
    "cnn_module_kernel": 7,
}


def names(text, prefix=""):
    """What a list of names above stands for."""
    for name in text.split():
        yield from ([prefix + name[:-1]] if name.endswith(".") else [f"{prefix}{name}.weight", f"{prefix}{name}.bias"])


def icefall_names(causal):
    """The state dict of icefall's model with the sizes above."""
    layer = " ".join((LAYER, *(CONVOLUTION[causal].format(n) for n in (1, 2))))
    layers = [f"encoder.encoders.{place}." for place in ("0.layers.0", "1.encoder.layers.0", "1.encoder.layers.1")]
    found = [
        *names(HEADS),
        *names(EMBED, "encoder_embed."),
        *(name for place in layers for name in names(layer, place)),
    ]
    found += ["encoder.encoders.1.downsample.bias", "encoder.encoders.1.out_combiner.bypass_scale"]
    return [*found, "encoder.downsample_output.bias"]


def make(heads=("ctc", "transducer"), **changes):
    kinds = {key: {"name": "ctc" if "ctc" in key else "transducer", "lang": "", "backend": "torch"} for key in heads}
    config = ModelConfig(encoder=ZipformerConfig(**{**SIZES, **changes}), heads=kinds)
    return Model(config, dict.fromkeys(heads, 11))


@pytest.mark.parametrize("causal", [False, True])
def test_names_are_icefalls(tmp_path, causal):
    model = make(causal=causal)
    save_icefall(model, tmp_path / "icefall.pt")
    state = torch.load(tmp_path / "icefall.pt")["model"]
    assert sorted(state) == sorted(icefall_names(causal))
    other = make(heads=("transducer", "my_ctc"), causal=causal)  # another head of the same type may have another name
    assert load_icefall(other, tmp_path / "icefall.pt") == f"{tmp_path / 'icefall.pt'}: {len(state)} tensors loaded."
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[key])
    assert torch.equal(model.heads["ctc"].ctc_output[1].weight, other.heads["my_ctc"].ctc_output[1].weight)


def test_what_does_not_fit_is_said(tmp_path):
    path = tmp_path / "icefall.pt"
    model = make()
    save_icefall(model, path)
    assert load_icefall(make(heads=("ctc",)), path).endswith(
        "tensors loaded, no place for decoder.embedding (1), decoder.conv (1), joiner.encoder_proj (2), "
        "joiner.decoder_proj (2), joiner.output_linear (2), simple_am_proj (2), simple_lm_proj (2)."
    )
    save_icefall(make(heads=("ctc",)), path)
    assert ", not in it: heads.transducer (12)." in load_icefall(make(), path)
    with pytest.raises(UserError, match=r"feed_forward1.in_proj.weight is \(24, 16\) there and \(48, 16\) here"):
        load_icefall(make(feedforward_dim=64), path)
    torch.save({"model": {"something": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="holds nothing of icefall's zipformer"):
        load_icefall(make(), path)
    with pytest.raises(UserError, match="Of the ctc heads ctc_a, ctc_b, call the one"):
        load_icefall(make(heads=("ctc_a", "ctc_b")), path)


def fill(state):
    """Parameters that need no random numbers: sines of their index."""
    for key, value in state.items():
        index = torch.arange(1, value.numel() + 1, dtype=torch.float64)
        size = 0.5 if value.ndim < 2 else (4.0 / value[0].numel()) ** 0.5
        value.copy_(size * torch.sin(index * (1 + 0.01 * len(key))).view(value.shape))


# computed by icefall's own zipformer.py and subsampling.py in float32 with torch 1.13.1 and k2 1.23.4: frames 0, 7, 30
# and channels 0, 5, 20, 31 of the output for the input below; causal, chunk_size, left_context_frames
REFERENCE = {
    (False, -1, -1): """3.5539 2.75968 -0.09007 -0.42752 3.90234 3.29353 -0.00119 -0.45491 4.21355 3.36738 0.01646
        -0.43959""",
    (True, 16, 32): """4.03346 3.22444 -0.04473 -0.73182 3.78082 3.23165 0.14042 -0.75597 3.52774 3.15226 0.06769
        -0.80667""",
    (True, -1, -1): """4.06812 3.2268 -0.09014 -0.6826 4.13055 3.37771 0.10878 -0.57005 3.4587 3.06665 0.07419
        -0.74272""",
}


@pytest.mark.parametrize(("causal", "chunk", "left"), REFERENCE)
def test_outputs_are_icefalls(causal, chunk, left):
    chunks = {"causal": causal, "chunk_size": [chunk], "left_context_frames": [left]}
    encoder = build_encoder(ZipformerConfig(**SIZES, **chunks), 80).eval()
    features = 3 * torch.sin(torch.arange(130 * 80).view(1, 130, 80) * 0.37)
    with torch.no_grad():
        fill(encoder.state_dict())
        out, lens = encoder(features, torch.tensor([130]))
    assert lens.tolist() == [31]
    found = out[0, [0, 7, 30]][:, [0, 5, 20, 31]].flatten()
    expected = torch.tensor([float(value) for value in REFERENCE[causal, chunk, left].split()])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
