"""The Zipformer encoder: padding, chunks, short input, lengths, gradients, schedules."""

import pytest
import torch

from steps.nets.encoder import ZipformerConfig
from steps.nets.encoders import build_encoder
from utils.errors import UserError
from utils.options import check_config

SMALL = {
    "downsampling_factor": [1, 2, 4, 2],
    "encoder_dim": [32, 48, 64, 48],
    "num_encoder_layers": [1, 2, 1, 1],
    "encoder_unmasked_dim": [24, 32, 48, 32],
    "feedforward_dim": 64,
    "cnn_module_kernel": [15, 7, 7, 7],
    "num_heads": 4,
    "query_head_dim": 16,
    "pos_dim": 16,
}
LAPTOP = {
    "subsampling": {"factor": 4, "channels": [8, 32, 64], "convnext": False},
    "downsampling_factor": [1, 2, 1],
    "output_downsampling_factor": 1,
    "encoder_dim": [32, 48, 32],
    "encoder_unmasked_dim": 24,
    "num_encoder_layers": 1,
    "feedforward_dim": 64,
    "cnn_module_kernel": 15,
    "num_heads": 4,
}


def make(seed=0, feature_dim=80, **changes):
    """A small encoder with every parameter moved away from its initial value, so that nothing is accidentally zero."""
    torch.manual_seed(seed)
    encoder = build_encoder(ZipformerConfig(**{**SMALL, **changes}), feature_dim)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return encoder


CAUSAL = {"causal": True, "chunk_size": [16], "left_context_frames": [64]}


@pytest.mark.parametrize("changes", [{}, LAPTOP, CAUSAL, {"causal": True}, {**CAUSAL, "chunk_size": [64]}], ids=str)
def test_padding_changes_nothing(changes):
    encoder = make(**changes).eval()
    lens = torch.tensor([300, 211, 64, 16, 9, 3])
    features = 3 * torch.randn(6, 300, 80)
    with torch.no_grad():
        out, out_lens = encoder(features, lens)
        assert out_lens.tolist() == encoder.output_lens(lens).tolist() and out.shape[1] == out_lens[0]
        for row, length in enumerate(lens.tolist()):
            alone, alone_len = encoder(features[row : row + 1, :length], lens[row : row + 1])
            assert alone_len == out_lens[row]
            torch.testing.assert_close(alone[0, :alone_len], out[row, :alone_len], atol=1e-4, rtol=1e-4)


def test_output_lens_is_closed_form():
    for changes in ({}, LAPTOP):
        encoder = make(**changes).eval()
        for length in (*range(1, 40), 100, 101, 102, 103):
            with torch.no_grad():
                out, lens = encoder(torch.randn(1, length, 80), torch.tensor([length]))
            assert int(lens) == int(encoder.output_lens(torch.tensor(length)))
            assert out.shape[1] == max(int(lens), 1) and torch.isfinite(out).all()


def test_a_frame_sees_nothing_beyond_its_chunk():
    encoder = make(**CAUSAL).eval().encoder
    x, lens = torch.randn(1, 100, 32), torch.tensor([100])
    with torch.no_grad():
        before, _ = encoder(x, lens)
        changed = x.clone()
        changed[:, 48:] = torch.randn(1, 52, 32)  # from the fourth chunk of 16 on
        after, _ = encoder(changed, lens)
    torch.testing.assert_close(before[:, :24], after[:, :24], atol=1e-5, rtol=1e-5)
    assert (before[:, 24:] - after[:, 24:]).abs().amax(2).min() > 1e-3


def test_left_context_is_limited():
    changes = {**CAUSAL, "num_encoder_layers": 1, "downsampling_factor": [1], "left_context_frames": [16]}
    changes |= {"encoder_dim": 32, "encoder_unmasked_dim": 24, "cnn_module_kernel": 7}
    encoder = make(**changes).eval().encoder
    x, lens = torch.randn(1, 128, 32), torch.tensor([128])
    with torch.no_grad():
        before, _ = encoder(x, lens)
        changed = x.clone()
        changed[:, :16] = torch.randn(1, 16, 32)
        after, _ = encoder(changed, lens)
    # one layer: attention twice with one chunk to the left, and two convolutions reaching back 3 frames each
    assert (before - after).abs().amax(2)[0, 8:16].max() > 1e-3
    torch.testing.assert_close(before[:, 32:], after[:, 32:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("changes", [{}, LAPTOP, CAUSAL], ids=["plain", "laptop", "causal"])
def test_every_parameter_has_a_finite_gradient_on_every_step(changes, autocast):
    encoder = make(**changes).train()
    lens = torch.tensor([120, 80])
    for step in (0, 3, 100000):
        encoder.set_batch_count(step)
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out, _ = encoder(torch.randn(2, 120, 80), lens)
        assert out.dtype == (torch.bfloat16 if autocast else torch.float32)
        out.float().square().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("changes", [{}, CAUSAL], ids=["plain", "causal"])
def test_the_way_of_accelerators_gives_the_same_gradients(monkeypatch, changes):
    encoder = make(**changes).train()
    encoder.set_batch_count(0)  # everything that is left out at times is left out often
    features, lens = torch.randn(3, 130, 80), torch.tensor([130, 100, 57])
    results = []
    for cpus in ({"cpu"}, set()):
        monkeypatch.setattr("steps.nets.placement.CPUS", cpus)
        torch.manual_seed(1)
        encoder.zero_grad()
        out, out_lens = encoder(features, lens)
        sum(row[:end].square().sum() for row, end in zip(out, out_lens, strict=True)).backward()
        results.append({name: parameter.grad for name, parameter in encoder.named_parameters()})
    for name, grad in results[0].items():
        assert (grad - results[1][name]).norm() <= 1e-3 * grad.norm() + 1e-5, name


def test_training_is_a_function_of_torchs_seed():
    encoder = make().train()
    encoder.set_batch_count(10)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        encoder.zero_grad()
        encoder(torch.ones(2, 100, 80), torch.tensor([100, 60])).out.sum().backward()
        results.append(torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()]))
    assert torch.equal(*results)


def test_bfloat16_is_close_to_float32():
    encoder = make().eval()
    features, lens = torch.randn(2, 200, 80), torch.tensor([200, 150])
    with torch.no_grad():
        exact, _ = encoder(features, lens)
        with torch.autocast("cpu", torch.bfloat16):
            rough, _ = encoder(features, lens)
    assert (exact - rough.float()).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(
    ("millions", "changes"),
    [
        (0.4934, {**LAPTOP, **dict.fromkeys(["encoder_dim", "encoder_unmasked_dim"], 64), "feedforward_dim": 192}),
        (21.99, {"encoder_dim": [192, *[256] * 5], "feedforward_dim": [512, *[768] * 5], "num_encoder_layers": 2}),
        (63.98, {}),
    ],
)
def test_sizes(millions, changes):
    changes = {"encoder_unmasked_dim": 192, **changes}
    encoder = build_encoder(ZipformerConfig(**changes), 80)
    # icefall's bypass_scale of a layer is not used, and a buffer here
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.001)


def test_schedules_follow_the_step_and_its_scale():
    encoder = make(schedule_scale=0.1, warmup_batches=500)
    layer = encoder.encoder.encoders[0].layers[0]
    assert float(layer.bypass.skip_rate) == 0.0  # before training
    encoder.set_batch_count(0)
    assert float(layer.conv_skip_rate) == pytest.approx(0.2) and float(layer.bypass.skip_rate) == 0.5
    encoder.set_batch_count(400)
    assert float(layer.conv_skip_rate) == pytest.approx(0.05)
    assert float(layer.bypass.skip_rate) == pytest.approx(0.035)  # stack 1 of 4 warms up from step 100 to 200
    encoder.set_batch_count(2000)
    assert float(layer.feed_forward1.out_proj.dropout) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_dims": 3}, "unknown key 'encoder_dims' (did you mean 'encoder_dim'?)"),
        ({"num_heads": [4, 4]}, "num_heads has 2 values for 4 stacks"),
        ({"cnn_module_kernel": 4}, "cnn_module_kernel must be odd"),
        ({"chunk_size": [16]}, "need causal: true"),
        ({"causal": True, "chunk_size": [6]}, "chunk_size 6 is not a multiple"),
        ({"encoder_unmasked_dim": 100}, "encoder_unmasked_dim is above encoder_dim"),
        ({"num_encoder_layers": [1, 0, 1, 1]}, "num_encoder_layers must be above 0"),
        (
            {"causal": True, "chunk_size": [8], "left_context_frames": [8]},
            "left_context_frames 8 is less than the 12 of the convolutions",
        ),
        ({"subsampling": {"factor": 3}}, "subsampling.factor"),
    ],
)
def test_wrong_configs_are_refused(changes, message):
    with pytest.raises(UserError) as error:
        check_config({**SMALL, **changes}, ZipformerConfig, "conf.yaml")
    assert message in str(error.value) and str(error.value).startswith("conf.yaml")


def test_features_too_small_for_the_front_end_are_refused():
    for factor, least in ((2, 7), (4, 15)):
        assert make(feature_dim=least, subsampling={"factor": factor})
        with pytest.raises(UserError, match=f"needs features of {least} or more dimensions"):
            make(feature_dim=least - 1, subsampling={"factor": factor})
