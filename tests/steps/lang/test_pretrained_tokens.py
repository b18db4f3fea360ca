"""Tokens of a pretrained model as a lang folder: those that a text needs, and everything else in bytes."""

from __future__ import annotations

import json
import shutil

import pytest

from steps.lang.pretrained import PretrainedTokenizer, check_tokens, load_backend, symbol
from steps.lang.text import normalize
from steps.lang.tokenizer import Tokenizer
from tests.steps.tiny_models import SPECIAL, TIMES, write_tokenizer
from utils.errors import UserError
from utils.files import read_json

PROMPT = "<|startoftranscript|><|fr|><|transcribe|><|notimestamps|>"


@pytest.fixture
def lang(cuts, tiny_whisper, prepare_lang, tmp_path):
    """Makes a lang folder of the French texts: (*options) -> its path."""

    def call(*options):
        target = ("--target", "text", "--languages", "fr", "--type", "pretrained", "--path", tiny_whisper[0])
        status, out, err = prepare_lang("--cuts", cuts, *target, "--out", tmp_path / "lang", *options)
        assert status == 0 and "no unknown character" in out, err
        return tmp_path / "lang"

    return call


@pytest.mark.parametrize(
    "text", ["vous n'avez pas de nouveau message", "Ça  va ? 12 €", "добрый день", "日本 🙂", "a\u0301"]
)
@pytest.mark.parametrize("options", [(), ("--all-tokens",)])
def test_any_text_comes_back(lang, text, options):
    tokenizer = Tokenizer.load(lang(*options))
    assert isinstance(tokenizer, PretrainedTokenizer)
    ids = tokenizer.encode(text, "fr")
    assert tokenizer.decode(ids) == normalize(text)
    assert tokenizer.decode([*tokenizer.prompt(PROMPT), *ids, tokenizer.eos_id, 0]) == normalize(text)
    assert not {0, 1, 2} & set(ids) and tokenizer.unknown(text) == ""


def test_the_tokens_are_the_models(lang, tiny_whisper, sentences):
    kept, everything = Tokenizer.load(lang()), Tokenizer.load(lang("--all-tokens"))
    backend = load_backend(tiny_whisper[0] / "tokenizer.json")
    for tokenizer in (kept, everything):
        assert tokenizer.ids[:3] == [-1, backend.token_to_id("<|endoftext|>"), -1]
        assert [backend.id_to_token(i) for i in tokenizer.ids[3:]] == tokenizer.tokens[3:]
        assert tokenizer.ids[3:] == sorted(set(tokenizer.ids[3:]))
        for text in sentences["fr"]:
            own = backend.encode(f" {text}", add_special_tokens=False).ids
            assert [tokenizer.ids[i] for i in tokenizer.encode(text)] == own
    assert len(everything.tokens) == backend.get_vocab_size() + 2
    assert set(TIMES) & set(everything.tokens) and not set(TIMES) & set(kept.tokens)
    assert set(SPECIAL[1:]) < set(kept.tokens)
    needed = {i for text in sentences["fr"] for i in kept.encode(text)}
    spare = [kept.tokens[i] for i in range(3, len(kept.tokens)) if i not in needed]
    assert all(len(token) == 1 or token in SPECIAL for token in spare)


def test_what_searches_must_not_say_is_in_either_file(lang, tiny_whisper, tmp_path, prepare_lang, cuts):
    model = tmp_path / "model"
    shutil.copytree(tiny_whisper[0], model)
    backend = load_backend(model / "tokenizer.json")
    space, end, a = (backend.token_to_id(token) for token in ("Ġ", "<|endoftext|>", "a"))
    said = {"begin_suppress_tokens": [space, end], "suppress_tokens": [a]}
    (model / "generation_config.json").write_text(json.dumps(said))
    options = ("--target", "text", "--type", "pretrained", "--path", model, "--out", tmp_path / "new")
    assert prepare_lang("--cuts", cuts, *options)[0] == 0
    tokenizer = Tokenizer.load(tmp_path / "new")
    assert [tokenizer.tokens[i] for i in tokenizer.not_first] == ["Ġ", "<sos/eos>"]
    assert tokenizer.tokens.index("a") in tokenizer.suppressed
    assert Tokenizer.load(lang()).not_first == ()


def test_a_piece_that_was_left_out_is_spelled(lang):
    kept, everything = Tokenizer.load(lang()), Tokenizer.load(lang("--all-tokens"))
    english = next(t for t in everything.tokens[3:] if len(t) > 3 and t not in kept.tokens and t[0] != "<")
    text = english.replace("Ġ", "")
    assert len(kept.encode(text)) > len(everything.encode(text)) and kept.decode(kept.encode(text)) == text


@pytest.mark.parametrize(("token", "written"), [("", "<empty>"), ("a\u00a0\n", "a<U+00A0><U+000A>"), ("Ġa", "Ġa")])
def test_any_token_fits_into_a_table(token, written):
    assert symbol(token) == written


def test_prompts(lang):
    tokenizer = Tokenizer.load(lang())
    found = [tokenizer.token(i) for i in tokenizer.prompt(PROMPT.replace("><", "> <"))]
    assert "".join(found) == PROMPT


def test_another_type_in_the_same_folder(lang, cuts, prepare_lang):
    folder = lang()
    assert (folder / "tokenizer.json").exists()
    assert prepare_lang("--cuts", cuts, "--out", folder, "--type", "char")[0] == 0
    assert not (folder / "tokenizer.json").exists() and not isinstance(Tokenizer.load(folder), PretrainedTokenizer)


def spoil(folder, case: str) -> None:
    if case == "none":
        (folder / "tokenizer.json").unlink()
    elif case == "broken":
        (folder / "tokenizer.json").write_text("{")
    elif case == "end":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))


@pytest.mark.parametrize(
    ("case", "options", "sentence"),
    [
        ("none", (), "holds no tokenizer.json: copy the model's tokenizer there."),
        ("broken", (), "tokenizer.json is no tokenizer ("),
        ("end", (), "does not say which token ends a text: give config.json an eos_token_id."),
        ("", ("--tags",), "--tags adds tokens that a pretrained model lacks"),
        ("", ("--vocab-size", 300), "--vocab-size is for --type bpe: leave it out."),
        ("", ("--path", "nowhere/at/all"), "--path: nowhere/at/all is no folder: give the folder of a model"),
    ],
)
def test_mistakes_are_one_sentence(cuts, tiny_whisper, prepare_lang, tmp_path, case, options, sentence):
    shutil.copytree(tiny_whisper[0], tmp_path / "whisper")
    spoil(tmp_path / "whisper", case)
    arguments = ("--cuts", cuts, "--type", "pretrained", "--path", tmp_path / "whisper", "--out", tmp_path / "lang")
    status, _, err = prepare_lang(*arguments, *options)
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1 and sentence in err


def test_options_of_pretrained_alone(cuts, prepare_lang, tmp_path):
    status, _, err = prepare_lang("--cuts", cuts, "--out", tmp_path, "--path", "x")
    assert status == 1 and err == "error: --path is for --type pretrained: leave it out.\n"
    assert prepare_lang("--cuts", cuts, "--out", tmp_path, "--type", "pretrained")[2].startswith(
        "error: --type pretrained needs --path"
    )


def test_parts_that_do_not_fit_each_other(lang):
    folder = lang()
    about = read_json(folder / "lang.json")
    (folder / "lang.json").write_text(json.dumps({**about, "ids": about["ids"][:-1]}))
    with pytest.raises(Exception, match=r"lang.json, tokens.txt, tokenizer.json do not fit: make it again"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("options", [(), ("--all-tokens",)])
def test_another_models_tokens_are_refused(lang, tiny_whisper, tmp_path, options):
    folder, file = lang(*options), tmp_path / "other" / "tokenizer.json"
    check_tokens(folder, tiny_whisper[0], "heads.asr.lang")
    check_tokens(folder, tmp_path / "other", "heads.asr.lang")  # no tokenizer there, as in model folders
    write_tokenizer(file.parent, ["other words make other merges, and so other tokens at the same ids"])
    with pytest.raises(UserError, match=rf"^heads.asr.lang: {folder} has '.*' as the model's token \d+, in .* that"):
        check_tokens(folder, file.parent, "heads.asr.lang")
    same = load_backend(tiny_whisper[0] / "tokenizer.json")
    same.add_special_tokens(["<pad>"])
    same.save(str(file), pretty=False)  # written in another way, with a token more
    check_tokens(folder, file.parent, "heads.asr.lang")
