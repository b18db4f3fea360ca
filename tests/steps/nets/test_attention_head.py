"""The attention head: what it learns from, what it shares, and icefall's attention decoder beside it."""

from __future__ import annotations

import pytest
import torch

from steps.nets.attention_head import AttentionHead, teacher_forcing
from steps.nets.heads import build_head, head_config
from steps.nets.icefall import load_icefall, save_icefall
from steps.nets.model import Model, ModelConfig
from steps.prepare.dataset import Targets
from tests.steps.nets.test_icefall import fill
from tests.steps.tiny_models import ZIPFORMER
from utils.errors import UserError
from utils.options import check_config

DECODER = {"dim": 16, "layers": 2, "heads": 4, "feedforward_dim": 24, "dropout": 0.0}
ENCODER = {**ZIPFORMER, "downsampling_factor": [1, 2], "encoder_dim": [32, 24], "encoder_unmasked_dim": [24, 24]}


def targets(rows: list[list[int] | None], prompts=((1,),)) -> Targets:
    longest = max(len(row or []) for row in rows)
    tokens = torch.tensor([(row or []) + [0] * (longest - len(row or [])) for row in rows])
    prompts = torch.tensor(list(prompts) * (len(rows) // len(prompts)))
    return Targets(
        tokens, torch.tensor([len(row or []) for row in rows]), torch.tensor([r is not None for r in rows]), prompts
    )


def make_head(**options) -> AttentionHead:
    torch.manual_seed(0)
    return build_head(head_config("attention", {"lang": "x", "decoder": DECODER, **options}), 32, 11).eval()


def test_inputs_are_prompt_and_text_and_outputs_text_and_end():
    given = targets([[3, 4, 5], [7]], [[8, 9], [8, 10]])
    before, after = teacher_forcing(given.tokens, given.lens, given.prompts, 1)
    assert before.tolist() == [[8, 9, 3, 4, 5], [8, 10, 7, 0, 0]]
    assert after.tolist() == [[3, 4, 5, 1], [7, 1, -100, -100]]


@pytest.mark.parametrize("prompts", [[[1]], [[8, 9]]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_each_text_alone(prompts, smoothing):
    head = make_head(label_smoothing=smoothing)
    memory, lens = torch.randn(4, 9, 32), torch.tensor([9, 5, 7, 8])
    rows = [[3, 4, 5], None, [7], [6, 6]]
    found = head(memory, lens, targets(rows, prompts))["attention"]
    expected = 0.0
    for row, length, text in zip(memory, lens.tolist(), rows, strict=True):
        if text is None:
            continue
        for place, token in enumerate([*text, 1]):
            history = torch.tensor([prompts[0] + text[:place]])
            log_probs = head.decoder(history, row[None, :length], torch.tensor([length]))[0, -1].log_softmax(0)
            expected -= (1 - smoothing) * log_probs[token] + smoothing * log_probs.mean()
    torch.testing.assert_close(found, expected)


def test_without_any_text_the_loss_is_zero_and_reaches_all():
    head = make_head()
    memory = torch.randn(2, 9, 32, requires_grad=True)
    loss = head(memory, torch.tensor([9, 9]), targets([None, None]))["attention"]
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in [memory, *head.parameters()])


@torch.no_grad()
def test_scores_for_searches_never_want_a_blank():
    head = make_head()
    memory, lens = torch.randn(2, 9, 32), torch.tensor([9, 5])
    state = head.start(memory, lens)
    prompt = torch.tensor([[[1, 8]], [[1, 9]]]).expand(-1, 3, -1)
    first = head.log_probs(prompt, state)
    assert first.shape == (2, 3, 11) and (first[..., 0] == float("-inf")).all()
    torch.testing.assert_close(first.exp().sum(-1), torch.ones(2, 3))
    second = head.log_probs(torch.full((2, 3, 1), 5), state)
    logits = head.decoder(torch.tensor([[1, 8, 5], [1, 9, 5]]), memory, lens)[:, -1]
    logits[:, 0] = float("-inf")
    torch.testing.assert_close(second[:, 2], logits.log_softmax(-1))


def shared(**changes) -> Model:
    heads = {
        "asr": {"name": "attention", "lang": "x", "decoder": DECODER},
        "st": {"name": "attention", "lang": "x", "target": "translation.fr", "share": "asr", "prompt": "<fr>"},
        "ctc": {"lang": "x"},
    }
    for key, change in changes.items():
        heads[key] = {**heads[key], **change}
    values = {"encoder": ENCODER, "heads": heads, "feature_dim": 20}
    return Model(check_config(values, ModelConfig, "conf"), {"asr": 11, "st": 11, "ctc": 5})


def test_two_heads_share_a_decoder():
    model = shared()
    assert model.heads["st"].decoder is model.heads["asr"].decoder
    assert not list(model.heads["st"].parameters()) and not any(".st." in name for name in model.state_dict())
    assert len(list(model.parameters())) == len({id(p) for p in model.parameters()})
    memory, lens = torch.randn(1, 9, 32), torch.tensor([9])
    head = model.heads["st"].eval()
    head(memory, lens, targets([[3, 4]], [[6]]))["attention"].backward()
    assert all(p.grad is not None for p in model.heads["asr"].decoder.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"st": {"share": "asrr"}}, r"heads.st.share: there is no head 'asrr' \(did you mean 'asr'\?\)"),
        ({"st": {"share": "ctc"}}, r"share: ctc is no attention head with a decoder of its own: give another head"),
        ({"st": {"share": "st"}}, r"share: st is no attention head with a decoder of its own"),
        ({"st": {"layer": 2}}, r"the layer that asr reads has 32 values a frame, not 24: give both the same 'layer'"),
        ({"st": {"decoder": DECODER}}, r"'share' takes the other head's decoder: leave out path, lora and decoder"),
        ({"st": {"layer": 3}}, r"heads.st.layer is 3, the encoder has 2 layers"),
    ],
)
def test_what_cannot_be_shared(changes, message):
    with pytest.raises(UserError, match=message):
        shared(**changes)


def test_token_sets_of_another_size_cannot_be_shared():
    config = shared().config
    with pytest.raises(UserError, match="share: asr has 11 tokens, not 12: use one lang"):
        Model(config, {"asr": 11, "st": 12, "ctc": 5})


def test_hierarchical_ctc_reads_a_lower_stack():
    heads = {"low": {"name": "ctc", "lang": "x", "layer": 1}, "high": {"name": "ctc", "lang": "x", "layer": 2}}
    values = {"encoder": ENCODER, "heads": {**heads, "ctc": {"lang": "x"}}, "feature_dim": 20}
    model = Model(check_config(values, ModelConfig, "conf"), {"low": 5, "high": 6, "ctc": 7}).eval()
    features, lens = torch.randn(2, 60, 20), torch.tensor([60, 41])
    encoded = model.encode(features, lens)
    assert encoded.lens.tolist() == model.encoder.output_lens(lens).tolist()
    assert [encoded.at(layer).shape[2] for layer in (1, 2, None)] == [32, 24, 32]
    assert len({encoded.at(layer).shape[1] for layer in (1, 2, None)}) == 1
    scores = {key: head.log_probs(encoded.at(head.config.layer)) for key, head in model.heads.items()}
    assert [scores[key].shape[2] for key in ("low", "high", "ctc")] == [5, 6, 7]
    scores["low"].sum().backward()
    assert all(p.grad is None for p in model.encoder.encoder.encoders[1].parameters())
    assert all(p.grad is not None for p in model.encoder.encoder_embed.parameters())


# the state dict of icefall's AttentionDecoderModel(vocab_size=11, decoder_dim=16, num_decoder_layers=2,
# attention_dim=16, num_heads=4, feedforward_dim=24, memory_dim=32): linear layers and norms of each layer
ATTENTION = [f"{kind}.{part}" for kind in ("self_attn", "src_attn") for part in ("linear_q", "linear_k", "linear_v")]
LAYER = [*ATTENTION, "self_attn.out_proj", "src_attn.out_proj", "feed_forward.0", "feed_forward.3"]
LAYER += ["norm_self_attn", "norm_src_attn", "norm_ff"]


def icefall_names() -> set[str]:
    parts = ["output_layer", *(f"layers.{layer}.{part}" for layer in range(2) for part in LAYER)]
    names = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")} | {"embed.weight"}
    return {f"attention_decoder.decoder.{name}" for name in names}


def test_losses_are_icefalls(tmp_path):
    """The numbers are icefall's own `attention_decoder.py`'s with torch 1.13.1 and k2 1.23.4."""
    memory, lens = torch.sin(torch.arange(2 * 9 * 32).view(2, 9, 32) * 0.37), torch.tensor([9, 6])
    head = make_head(decoder={**DECODER, "final_norm": False})
    with torch.no_grad():
        fill({f"attention_decoder.decoder.{name}": value for name, value in head.decoder.state_dict().items()})
    given = targets([[3, 4, 5], [7, 8]])
    assert head(memory, lens, given)["attention"].item() == pytest.approx(116.957832, abs=1e-3)
    head.config.label_smoothing = 0.0
    assert head(memory, lens, given)["attention"].item() == pytest.approx(121.706787, abs=1e-3)


def test_checkpoints_are_icefalls(tmp_path):
    decoder = {**DECODER, "final_norm": False}
    heads = {"ctc": {"lang": "x"}, "st": {"name": "attention", "lang": "x", "decoder": decoder}}
    heads["transducer"] = {"lang": "x", "decoder_dim": 16, "joiner_dim": 16}
    values = {"encoder": ENCODER, "heads": heads, "feature_dim": 20}
    config, sizes = check_config(values, ModelConfig, "conf"), {"ctc": 11, "st": 11, "transducer": 11}
    model, other = Model(config, sizes), Model(config, sizes)
    save_icefall(model, tmp_path / "icefall.pt")
    saved = torch.load(tmp_path / "icefall.pt")["model"]
    assert {name for name in saved if name.startswith("attention")} == icefall_names()
    assert "decoder.embedding.weight" in saved  # the transducer's
    assert load_icefall(other, tmp_path / "icefall.pt").endswith(f"{len(saved)} tensors loaded.")
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
