"""A decoder-only language model as a translator of text: its loss, adapters, prompts, and what it says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from steps.lang.prompts import SLOT
from steps.lm.export_adapter import main as export_adapter
from steps.prepare.pair_batches import pair_loader, pair_table
from steps.prepare.pairs import Pair, ParallelSection
from steps.prepare.text_batches import TextPlan
from steps.search.translation import SearchOptions
from steps.translator import TextTranslator
from steps.translator_folder import load_translator
from tests.steps.parallel import EN, FR, settings
from tests.steps.tiny_llm import lang_folder, make_llm
from tests.steps.tiny_models import write_tokenizer
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny language model, its tokens, parallel text and `conf.yaml`."""
    root = tmp_path_factory.mktemp("llm")
    lang_folder(make_llm(root / "llm"), root / "lang", [*EN, *FR])
    values = settings(root, {"dim": 16, "layers": 1, "heads": 2})
    values["translator"] = {"name": "llm", "path": str(root / "llm"), "train_llm": True}
    values |= {"source": {}, "target": {"target": "translation.fr", "lang": str(root / "lang")}}
    (root / "conf.yaml").write_text(yaml.safe_dump(values))
    return root


@pytest.fixture
def train(root, train_conf):
    return partial(train_conf, root / "conf.yaml")


def test_as_it_begins_it_has_the_models_own_probabilities(root, train, tmp_path):
    assert train(tmp_path / "m", "epochs=0", "translator.prompt='{text} in {target_name}: '") == 0
    model, tokens = load_translator(tmp_path / "m")
    theirs, ids = AutoModelForCausalLM.from_pretrained(root / "llm").eval(), tokens.tokenizers["target"].ids
    table = pair_table([Pair(f"u{i}", EN[i], FR[i], "en") for i in range(4)], tokens, 250)
    batch = next(
        iter(pair_loader(TextPlan(table, ParallelSection.model_validate({"train": "x"}), shuffle=False), tokens))
    )
    total, kept = 0.0, torch.tensor([i for i in ids if i >= 0])
    for i in range(4):
        prompt = tokens.prompt("en")
        slot, said = prompt.index(SLOT), tokens.target(FR[i])
        ours = [*prompt[:slot], *tokens.source(EN[i]), *prompt[slot + 1 :], *said]
        assert "<|im_start|>user" in tokens.tokenizers["target"]._backend.decode(
            [ids[j] for j in ours], skip_special_tokens=False
        )
        logits = theirs(torch.tensor([[ids[j] for j in ours]])).logits[0, -len(said) - 1 :]
        left_out = torch.ones(logits.shape[1], dtype=torch.bool).index_fill(0, kept, False)
        wanted = torch.tensor([ids[j] for j in (*said, 1)])
        total += F.cross_entropy(logits.masked_fill(left_out, -1e30), wanted, reduction="sum").item()
    with torch.no_grad():
        loss = model(batch)["text.cross_entropy"].item()
    # the two tokens of ours that the model lacks have the mean of its vectors
    assert loss == pytest.approx(total, rel=0.02) and loss >= total - 1e-3


def test_it_learns_and_says_the_same_in_any_batch(train, tmp_path):
    assert train(tmp_path / "m", "epochs=60", "data.max_tokens=150", "log_every=100") == 0
    model, tokens = load_translator(tmp_path / "m")

    def say(texts, size):
        return TextTranslator(model, tokens, SearchOptions(beam=2), CPU, max_tokens=size)(texts, ["en"] * len(texts))

    alone, together = say(EN, 1), say(EN, 1000)
    assert [best[0].text for best in alone] == [best[0].text for best in together]
    assert sum(best[0].text == other for best, other in zip(alone, FR, strict=True)) >= 15


def test_adapters_alone_are_saved_and_come_back(train, tmp_path):
    lora = "translator.lora={rank: 2, targets: [q_proj, v_proj, up_proj]}"
    assert train(tmp_path / "m", "epochs=1", "translator.train_llm=false", lora) == 0
    saved = load_checkpoint(tmp_path / "m" / "averaged.pt")["model"]
    assert len(saved) == 2 * 3 * 2 and all(".lora_" in name for name in saved)
    model, _ = load_translator(tmp_path / "m")
    assert all(torch.equal(model.full_state()[name], value) for name, value in saved.items())


def test_the_exported_adapter_reloads_and_gives_the_same_text(root, train, tmp_path, capsys):
    """Through peft and transformers alone but for the request."""
    lora = "translator.lora={rank: 4, alpha: 32, targets: [q_proj, v_proj, up_proj]}"
    assert train(tmp_path / "m", "epochs=20", "data.max_tokens=200", "translator.train_llm=false", lora) == 0
    assert export_adapter(["--model", str(tmp_path / "m"), "--out", str(tmp_path / "adapter")]) == 0
    assert "adapter of 12 tensors" in capsys.readouterr().out
    plain, base = (AutoModelForCausalLM.from_pretrained(root / "llm") for _ in range(2))
    model, tokens = load_translator(tmp_path / "m")
    limit, tokenizer = SearchOptions(beam=1, max_tokens=12), tokens.tokenizers["target"]
    found = TextTranslator(model, tokens, limit, CPU)(EN[:6], ["en"] * 6)
    prompt, unwanted = tokens.prompt("en"), {*range(336)} - {*tokenizer.ids}
    unwanted |= {tokenizer.ids[i] for i in tokenizer.suppressed}
    limits = {"max_new_tokens": 12, "suppress_tokens": sorted(unwanted - {-1}), "do_sample": False}
    said = []
    for llm in (plain, PeftModel.from_pretrained(base, tmp_path / "adapter").eval()):
        for text in EN[:6]:
            slot = prompt.index(SLOT)
            ids = [tokenizer.ids[i] for i in (*prompt[:slot], *tokens.source(text), *prompt[slot + 1 :])]
            row = llm.generate(torch.tensor([ids]), eos_token_id=2, pad_token_id=2, **limits)[0, len(ids) :]
            said.append(tokenizer.decode([tokenizer.ids.index(i) for i in row.tolist() if i != 2]))
    assert said[6:] == [best[0].text for best in found] != said[:6]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "translator.prompt='Translate into French:'",
            r"is a prompt without the slot for the text: write \{text\} once",
        ),
        ("translator.prompt='{text} {text}'", r"is a prompt with 2 slots for the text"),
        ("translator.prompt='{text} in {langage}'", r"'\{langage\}' \(did you mean 'language'\?\)"),
        ("translator.lora={rank: 2}", r"leave out lora or train_llm"),
        ("translator.path=./nowhere", r"nowhere is no folder"),
        ("source.lang=data/lang", r"source\.lang: a pretrained translator has the target's tokens for both sides"),
        ("target={target: translation.fr}", r"target\.lang: give the lang folder"),
    ],
)
def test_a_mistake_is_one_sentence(train, tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        train(tmp_path / "m", change)
    assert "\n" not in str(caught.value) and not (tmp_path / "m" / "checkpoint.pt").exists()


def test_tokens_must_be_the_models(root, train, tmp_path):
    with pytest.raises(UserError, match=r"lang_target is not of a model's tokens \(--type pretrained\)"):
        train(tmp_path / "m", f"target.lang={root / 'lang_target'}")
    write_tokenizer(make_llm(tmp_path / "other"), ["un autre texte"])
    with pytest.raises(UserError, match=r"target\.lang: .* as the model's token \d+, in .*other that is"):
        train(tmp_path / "m", f"translator.path={tmp_path / 'other'}")
    with pytest.raises(UserError, match=r"No name is known of the language 'mdw'"):
        train(tmp_path / "m", "data.train.language=mdw", "translator.prompt='{text} from {language_name}'")
