from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers
from transformers import AutoTokenizer

from steps.lang.prompts import REQUESTS, SLOT, Request, TokenPrompt, requests
from steps.lang.tokenizer import Tokenizer
from tests.steps.tiny_llm import TEXTS, lang_folder, make_llm
from utils.errors import UserError

REQUEST = "<speech>\ntranslate the {language_name} speech into {target_name}:"


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return make_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def whole(llm, tmp_path_factory):
    return lang_folder(llm, tmp_path_factory.mktemp("lang"), TEXTS[:1])


def theirs(tokenizer, ids: list[int]) -> list[int]:
    return [tokenizer.ids[index] if index >= 0 else index for index in ids]


def test_a_request_is_what_transformers_makes_of_the_template(llm, whole):
    reference = AutoTokenizer.from_pretrained(llm)
    for language, name in (("en", "English"), ("mdw", "Mboshi")):
        prompt = Request(whole, REQUEST, "fr", names={"mdw": "Mboshi"})
        words = f"<speech>\ntranslate the {name} speech into French:"
        expected = reference.apply_chat_template(
            [{"role": "user", "content": words}], tokenize=False, add_generation_prompt=True
        )
        assert prompt.text(language) == expected and expected.startswith("<|im_start|>system\nYou help.")
        before, after = expected.split("<speech>")
        ids = [reference(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
        assert theirs(whole, prompt(language)) == [*ids[0], SLOT, *ids[1]]
        assert prompt(language) is prompt(language)  # made once


def test_a_request_without_chat_is_its_words(whole):
    for prompt in (
        Request(whole, REQUEST, "fr", chat=False),
        Request(whole, REQUEST, "fr", chat=False, system="Hello"),
    ):
        ids = prompt("en")
        words = whole._backend.decode(theirs(whole, ids[ids.index(SLOT) + 1 :]))
        assert words == "\ntranslate the English speech into French:"
    assert whole.decode(ids[: ids.index(SLOT)]) == "Hello"


def test_an_instruction_of_ones_own(whole):
    assert (
        Request(whole, REQUEST, "fr", system="Be brief.")
        .text("en")
        .startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<speech>\n")
    )


def test_what_a_model_wants_before_all_is_there_without_chat_only(llm, whole):
    whole_again = Tokenizer.load(whole_folder(whole, llm))
    from tokenizers.processors import TemplateProcessing

    whole_again._backend.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    start = whole_again.ids.index(1)
    assert Request(whole_again, "<speech>", "fr", chat=False)("en") == [start, SLOT]
    assert Request(whole_again, "<speech>", "fr")("en")[0] == start
    assert Request(whole_again, "<speech>", "fr")("en").count(start) == 3  # the template's own


def whole_folder(whole, llm):
    folder = llm / "lang_again"
    lang_folder(llm, folder, TEXTS[:1])
    return folder


@pytest.mark.parametrize(
    "template, complaint",
    [
        ("translate:", "a prompt without the slot for speech"),
        ("<speech> and <speech>", "a prompt with 2 slots"),
        ("<speech> into {taget_name}", r"'{taget_name}' \(did you mean 'target_name'\?\)"),
        ("<speech> in {}", "has '{}'"),
    ],
)
def test_wrong_requests_are_named(whole, template, complaint):
    with pytest.raises(UserError, match=complaint):
        requests(template)
    with pytest.raises(UserError, match=complaint):
        Request(whole, template, "fr")


def test_languages_that_are_missing_are_named(whole):
    with pytest.raises(UserError, match=r"the language 'mdw'.*names: {mdw: ...}"):
        Request(whole, REQUEST, "fr")("mdw")
    with pytest.raises(UserError, match="wants the language that is spoken"):
        Request(whole, REQUEST, "fr")(None)
    assert SLOT in Request(whole, "<speech> into {target_name}", "fr")(None)


def test_a_request_for_each_language_that_is_spoken(whole):
    each = {"fr": "<speech>\nEn {target_name} :", "default": "<speech>\nInto {target_name}:"}
    asked = Request(whole, each, "en", chat=False)
    assert asked.text("fr") == "<speech>\nEn English :"
    assert asked.text("it") == asked.text(None) == "<speech>\nInto English:"
    assert asked("fr") == Request(whole, each["fr"], "en", chat=False)("fr") != asked("it")
    with pytest.raises(UserError, match="No prompt is given for the language 'it': add it to prompt, or 'default'"):
        Request(whole, {"fr": "<speech>"}, "en")("it")
    with pytest.raises(UserError, match="'Bonjour' is a prompt without the slot for speech"):
        Request(whole, {**each, "it": "Bonjour"}, "en")


def test_a_template_that_takes_no_instruction_says_so(llm, tmp_path):
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ 1 }}"
    stubborn = lang_folder(make_llm(tmp_path / "llm", template), tmp_path / "lang", TEXTS[:1])
    with pytest.raises(UserError, match="does not take this prompt"):
        Request(stubborn, "<speech>", "fr", system="Be brief.")("en")
    with pytest.raises(UserError, match="repeats or drops"):
        Request(stubborn, "<speech>", "fr")("en")


def test_token_prompts(whole):
    prompt = TokenPrompt(whole, "<|im_start|><|{target}|>", "endoftext")
    assert theirs(whole, prompt("en")) == [1, 0]
    assert TokenPrompt(whole, None, "fr")("en") == [whole.sos_id]
    with pytest.raises(UserError, match="wants the language that is spoken"):
        TokenPrompt(whole, "<|{language}|>", None)(None)


def test_a_trimmed_set_keeps_what_the_model_is_asked(llm, whole, tmp_path):
    trimmed = lang_folder(llm, tmp_path / "a", ["non merci"], every=False)
    wider = lang_folder(llm, tmp_path / "b", ["non merci"], every=False, keep=("<speech> good morning",))
    assert trimmed.vocab_size < wider.vocab_size < whole.vocab_size
    usual = "<speech>\nTranslate the speech into {target_name}:"
    for tokenizer, request in ((trimmed, usual), (wider, usual), (wider, "<speech> good morning")):
        assert len(Request(tokenizer, request, "fr")("en")) == len(Request(whole, request, "fr")("en"))
    assert len(Request(trimmed, "<speech> good morning", "fr")("en")) > len(
        Request(whole, "<speech> good morning", "fr")("en")
    )  # spelled
    text = "Ça, c'est 1 œuf ? bonjour à tous 日本"
    for tokenizer in (trimmed, whole):
        assert tokenizer.decode(tokenizer.encode(text)) == text and tokenizer.unk_id not in tokenizer.encode(text)
    assert {whole.token(i) for i in whole.suppressed} == {"<blk>", "<unk>", "<|endoftext|>", "<|im_start|>"}


def test_a_model_that_does_not_chat_is_asked_in_words(tmp_path):
    base = make_llm(tmp_path / "base", None)
    whole = lang_folder(base, tmp_path / "a", ["non merci"])
    trimmed = lang_folder(base, tmp_path / "b", ["non merci"], every=False)
    assert trimmed.chat is None and trimmed.vocab_size < whole.vocab_size
    for request in REQUESTS.values():
        asked = [Request(tokenizer, request, "fr")("en") for tokenizer in (trimmed, whole)]
        assert theirs(trimmed, asked[0]) == theirs(whole, asked[1])
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "is_encoder_decoder": True}))
    # what has a decoder beside an encoder is not asked in words
    assert lang_folder(base, tmp_path / "c", ["non merci"], every=False).vocab_size < trimmed.vocab_size


def test_the_end_is_the_chats_or_the_models(llm, tmp_path):
    assert lang_folder(llm, tmp_path / "a", TEXTS[:1]).ids[1] == 2
    base = make_llm(tmp_path / "base", None, eos_token_id=[0, 2])
    (base / "tokenizer_config.json").unlink()
    tokenizer = lang_folder(base, tmp_path / "b", TEXTS[:1])
    assert tokenizer.ids[1] == 0 and tokenizer.chat is None
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    with pytest.raises(UserError, match="does not say which token ends a text"):
        lang_folder(base, tmp_path / "c", TEXTS[:1])


def test_sentencepiece_like_tokens_are_spelled_in_bytes(llm, tmp_path):
    """As Llama 2's: a token for the space, bytes in hexadecimal, an unknown token of its own, and white space."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = ["<unk>", "</s>", *bytes_, "▁", "a", "b", "▁a", "ab", "\n\n", "▁ab"]
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    backend = Backend(
        models.BPE(
            {token: i for i, token in enumerate(vocab)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    folder = tmp_path / "llm"
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 1}))
    for every, size in ((True, len(vocab) + 1), (False, 3 + 256 + 2 + 2)):  # ▁ and ▁ab; a and b of the requests
        tokenizer = lang_folder(folder, tmp_path / f"lang{every}", ["ab"], every)
        assert tokenizer.vocab_size == size and tokenizer.ids[:3] == [-1, 1, 0]
        for text in ("ab", "ab ab", "a b é", "ba"):
            assert tokenizer.decode(tokenizer.encode(text)) == text
            assert tokenizer.unk_id not in tokenizer.encode(text)
