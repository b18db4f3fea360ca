"""Translators: losses beside torch's and transformers' own, what is saved, what does not fit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSeq2SeqLM

from steps.lang.hub_tokens import HubPair
from steps.nets.translator import TranslationConfig, Translator
from steps.prepare.pair_batches import pair_loader, pair_table
from steps.prepare.pairs import Pair, ParallelSection
from steps.prepare.text_batches import TextPlan
from tests.steps.parallel import EN, FR
from tests.steps.tiny_translators import WRITERS
from utils.checkpoint import fit_state
from utils.errors import UserError
from utils.options import check_config

LAYER = {"dim": 16, "layers": 2, "heads": 2, "feedforward_dim": 24, "dropout": 0.0}
SIZES = {"source": 12, "target": 12}


def config(translator: dict, **more) -> TranslationConfig:
    ours = {"lang": "x"} if translator["name"] == "transformer" else {}
    sides = {"source": ours, "target": {"target": "translation.fr", **ours}}
    return check_config({"translator": translator, **sides, **more}, TranslationConfig, "test")


def transformer(**values) -> Translator:
    torch.manual_seed(0)
    return Translator(config({"name": "transformer", "encoder": LAYER, "decoder": LAYER, **values}), SIZES)


def batch_of(tokens, pairs=4):
    """The first pairs as one batch."""
    table = pair_table([Pair(f"u{i}", EN[i], FR[i], "en") for i in range(pairs)], tokens, 250)
    section = ParallelSection.model_validate({"train": "unused"})
    return next(iter(pair_loader(TextPlan(table, section, shuffle=False), tokens)))


class Letters:
    """Tokens without a file: every fifth letter, two ends."""

    ends, start, sizes = 1, [], SIZES

    def prompt(self, language=None):
        return [1]

    def source(self, text, language=None):
        return [3 + ord(letter) % 9 for letter in text[::5]] + [1]

    def target(self, text):
        return [3 + ord(letter) % 9 for letter in text[::5]]


def test_the_loss_is_the_cross_entropy_of_each_next_token():
    net, batch = transformer(label_smoothing=0.0).eval(), batch_of(Letters())
    loss = net(batch)["text.cross_entropy"]
    targets, total = batch.targets["text"], 0.0
    for row in range(len(batch)):
        source = batch.features[row : row + 1, : batch.feature_lens[row]]
        said = targets.tokens[row, : targets.lens[row]].tolist()
        encoded = net.net.encoder(source, batch.feature_lens[row : row + 1])
        decoder = net.net.head.decoder
        logits = decoder(torch.tensor([[1, *said]]), encoded, batch.feature_lens[row : row + 1])
        total = total + F.cross_entropy(logits[0], torch.tensor([*said, 1]), reduction="sum")
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)


def test_embeddings_are_shared_where_asked():
    apart, tied = transformer(tied=False), transformer()
    both = transformer(share_embeddings=True)
    counts = [sum(p.numel() for p in net.parameters()) for net in (apart, tied, both)]
    assert counts == [counts[1] + 12 * 16 + 12, counts[1], counts[1] - 12 * 16]


def test_every_parameter_learns():
    net = transformer(share_embeddings=True)
    net(batch_of(Letters()))["text.cross_entropy"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("translator", "more", "sentence"),
    [
        ({"name": "transformr"}, {}, r"it is one of transformer, seq2seq.* \(did you mean 'transformer'\?\)"),
        ({"name": "transformer", "encoder": {"dim": 32}, "share_embeddings": True}, {}, r"encoder\.dim 32 is not"),
        ({"name": "seq2seq", "path": "x"}, {"source": {"lang": "x"}}, r"source\.lang: a pretrained translator has"),
        ({"name": "seq2seq", "path": "x"}, {"target": {}}, r"source and target are both 'text'"),
        ({"name": "transformer"}, {"target": {"target": "translation.fr"}}, r"target\.lang: give the lang folder"),
        ({"name": "transformer"}, {"target": {"target": "french"}}, r"target\.target"),
    ],
)
def test_mistakes_are_one_sentence(translator, more, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        config(translator, **more)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module", params=sorted(WRITERS))
def pretrained(request, tmp_path_factory):
    return WRITERS[request.param](tmp_path_factory.mktemp(request.param))


def seq2seq(folder, **values) -> tuple[Translator, HubPair]:
    about = config({"name": "seq2seq", "path": str(folder), **values})
    tokens = HubPair(folder, "fr")
    model = Translator(about, tokens.sizes, folder)
    model.load_pretrained({})
    return model, tokens


def test_a_pretrained_one_has_transformers_own_loss(pretrained):
    model, tokens = seq2seq(pretrained, label_smoothing=0.0)
    model.eval()
    theirs = AutoModelForSeq2SeqLM.from_pretrained(pretrained).eval()
    batch, total = batch_of(tokens), 0.0
    for row, name in enumerate(batch.ids):
        source = batch.features[row : row + 1, : batch.feature_lens[row]]
        labels = torch.tensor([tokens.target(FR[int(name[1:])])])
        total += theirs(input_ids=source, labels=labels).loss.item() * labels.shape[1]
    assert model(batch)["text.cross_entropy"].item() == pytest.approx(total, rel=1e-4)


def test_languages_are_found_in_the_models_own_names(pretrained):
    tokens = HubPair(pretrained, "fr")
    names = tokens._tokenizer.convert_ids_to_tokens(tokens.target(FR[0]))
    assert (names[0] == "__fr__") == ("m2m100" in str(pretrained)) and names[-1] == "</s>"
    assert tokens.decode(tokens.target(FR[0])) == FR[0]
    if "m2m100" in str(pretrained):
        assert tokens._tokenizer.convert_ids_to_tokens(tokens.source(EN[0], "en"))[0] == "__en__"
        with pytest.raises(UserError, match="for the language 'xx' the model has none"):
            tokens.source(EN[0], "xx")
        with pytest.raises(UserError, match=r"for the language 'mdw' the model has none.*--target-code"):
            HubPair(pretrained, "mdw")
        assert HubPair(pretrained, "mdw", (None, "ln")).start == tokens._tokenizer.convert_tokens_to_ids(["__ln__"])
        with pytest.raises(UserError, match="the model has no language 'lin'"):
            HubPair(pretrained, "mdw", (None, "lin"))


def test_dropout_is_as_configured(pretrained):
    model, tokens = seq2seq(pretrained, dropout=0.9)
    batch = batch_of(tokens)
    model.train()
    with torch.no_grad():
        assert model(batch)["text.cross_entropy"] != model(batch)["text.cross_entropy"]
        model.eval()
        assert model(batch)["text.cross_entropy"] == model(batch)["text.cross_entropy"]


def test_what_is_shared_is_saved_once_and_comes_back(pretrained):
    model, _ = seq2seq(pretrained)
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    other, _ = seq2seq(pretrained)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:  # Marian's positions are read from the model again
                parameter.zero_()
    fit_state(other, state, "checkpoint")
    assert all(torch.equal(value, other.full_state()[name]) for name, value in model.full_state().items())


def test_only_adapters_are_saved(pretrained):
    targets = ["q", "v"] if "t5" in str(pretrained) else ["q_proj", "v_proj"]
    model, _ = seq2seq(pretrained, lora={"rank": 2, "targets": targets})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    saved = {name for name in model.state_dict() if ".lora_" in name}
    assert trained == saved and saved and set(model.state_dict()) - saved <= {"net.model.final_logits_bias"}
    with pytest.raises(UserError, match=r"translator\.lora\.targets: no layer is called none: there are"):
        seq2seq(pretrained, lora={"targets": ["none"]})


def test_another_model_is_one_sentence(pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "model")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "model_type": "llama", "architectures": None}))
    with pytest.raises(UserError, match="holds a model of type 'llama', which transformers cannot") as caught:
        seq2seq(folder)
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_text(json.dumps({**about, "vocab_size": 20}))
    with pytest.raises(
        UserError, match=r"tokenizer in .* has \d+ tokens, the model 20|cannot make a seq2seq model of \(Padding"
    ):
        seq2seq(folder)
    (folder / "config.json").write_text(json.dumps(about))
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read") as caught:
        seq2seq(folder)
    assert "\n" not in str(caught.value)
    for file in (*folder.glob("*.json"), *folder.glob("*.spm"), *folder.glob("*.model")):
        if file.name != "config.json":
            file.unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        HubPair(folder, "fr")
