from __future__ import annotations

import json
import pickle
import unicodedata

import pytest
import sentencepiece as spm

from steps.lang.tokenizer import Tokenizer, normalize
from utils.errors import UserError

KINDS = {
    "char": ("--type", "char"),
    "unigram": ("--type", "bpe", "--vocab-size", 150),
    "bpe": ("--type", "bpe", "--vocab-size", 150, "--model-type", "bpe"),
}


@pytest.fixture
def everything(sentences):
    return [(language, line) for language, lines in sentences.items() for line in lines]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def lang_dir(kind, cuts, prepare_lang, tmp_path):
    assert prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", *kind)[0] == 0
    return tmp_path / "lang"


@pytest.fixture
def tagged(kind, cuts, prepare_lang, tmp_path):
    assert prepare_lang("--cuts", cuts, "--out", tmp_path / "tagged", "--tags", *kind)[0] == 0
    return Tokenizer.load(tmp_path / "tagged")


def test_round_trip_in_five_languages(everything, lang_dir):
    tokenizer = Tokenizer.load(lang_dir)
    for _, sentence in everything:
        ids = tokenizer.encode(sentence)
        assert tokenizer.decode(ids) == sentence
        assert min(ids) > tokenizer.unk_id and max(ids) < tokenizer.vocab_size


def test_special_ids_are_icefalls(lang_dir):
    tokenizer = Tokenizer.load(lang_dir)
    assert [tokenizer.token(index) for index in range(3)] == ["<blk>", "<sos/eos>", "<unk>"]
    assert (tokenizer.blank_id, tokenizer.sos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 1, 2)


def test_tags_come_first_and_are_dropped(sentences, everything, tagged):
    for language, sentence in everything:
        ids = tagged.encode(sentence, language)
        assert tagged.token(ids[0]) == f"<{language}>" and ids[0] == tagged.tag_id(language)
        assert tagged.decode(ids) == sentence
        assert not {tagged.tag_id(other) for other in sentences} & set(ids[1:])
    assert [tagged.token(index) for index in range(3, 8)] == ["<en>", "<es>", "<fr>", "<it>", "<ru>"]


def test_no_tag_for_the_language(tagged, lang_dir):
    with pytest.raises(UserError, match=r"No tag for the language 'de': the tags are en es fr it ru"):
        tagged.encode("guten tag", "de")
    with pytest.raises(UserError, match="No tag for the language 'None'"):
        tagged.encode("no language given")
    with pytest.raises(UserError, match="has no language tags"):
        Tokenizer.load(lang_dir).tag_id("en")


def test_unknown_characters_become_unk(lang_dir):
    tokenizer = Tokenizer.load(lang_dir)
    ids = tokenizer.encode("you ☃ have")
    assert ids.count(tokenizer.unk_id) == 1
    assert tokenizer.decode(ids) == "you ⁇ have"
    assert tokenizer.decode(tokenizer.encode("yo☃u have")) == "yo⁇u have"
    assert tokenizer.decode(tokenizer.encode("☃")) == "⁇"
    assert tokenizer.unknown("yo☃u hав♫e") == "☃♫"


def test_literal_specials_in_text_are_spelled_not_obeyed(tagged):
    ids = tagged.encode("<blk> <sos/eos> <en> you", "en")[1:]
    assert not {tagged.blank_id, tagged.sos_id, tagged.tag_id("en")} & set(ids)


def test_empty_text_and_empty_ids(lang_dir, tagged):
    tokenizer = Tokenizer.load(lang_dir)
    assert tokenizer.encode("") == [] and tokenizer.encode("  \t ") == [] and tokenizer.decode([]) == ""
    assert tokenizer.decode([0, 1, 0]) == ""
    assert tagged.encode("", "fr") == [tagged.tag_id("fr")]


def test_decomposed_accents_and_odd_spaces_are_the_same_text(sentences, lang_dir):
    tokenizer = Tokenizer.load(lang_dir)
    sentence = sentences["fr"][3]
    odd = "\u00a0" + unicodedata.normalize("NFD", sentence).replace(" ", "  ") + "\n"
    assert odd != sentence and normalize(odd) == sentence
    assert tokenizer.encode(odd) == tokenizer.encode(sentence)


def test_same_in_a_worker_process(everything, lang_dir):
    tokenizer = Tokenizer.load(lang_dir)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert [copy.encode(s) for _, s in everything] == [tokenizer.encode(s) for _, s in everything]


def test_icefall_folder_without_lang_json(everything, tmp_path):
    """Trained the way icefall does: <blk> and <sos/eos> user-defined, NFKC, graph symbols at the end of tokens.txt."""
    lines = tmp_path / "transcript.txt"
    lines.write_text("".join(f"{sentence}\n" for _, sentence in everything), encoding="utf-8")
    folder = tmp_path / "lang_bpe_120"
    folder.mkdir()
    spm.SentencePieceTrainer.train(
        input=str(lines), vocab_size=120, model_type="unigram", model_prefix=str(folder / "unigram_120"),
        character_coverage=1.0, user_defined_symbols=["<blk>", "<sos/eos>"], unk_id=2, bos_id=-1, eos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    (folder / "unigram_120.model").rename(folder / "bpe.model")
    peer = spm.SentencePieceProcessor(model_file=str(folder / "bpe.model"))
    table = [peer.id_to_piece(index) for index in range(120)] + ["#0", "#1"]
    (folder / "tokens.txt").write_text("".join(f"{s} {i}\n" for i, s in enumerate(table)), encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.vocab_size == 120 and not tokenizer.tags
    for _, sentence in everything:
        assert tokenizer.encode(sentence) == peer.encode(sentence)
        assert tokenizer.decode(tokenizer.encode(sentence)) == sentence
    assert 0 not in tokenizer.encode("<blk> you") and 0 in peer.encode("<blk> you")
    assert tokenizer.unknown("a > b") == ">"
    (folder / "tokens.txt").unlink()
    assert Tokenizer.load(folder).vocab_size == 120


def test_icefall_character_folder_without_boundaries(tmp_path):
    (tmp_path / "tokens.txt").write_text("<blk> 0\n<sos/eos> 1\n<unk> 2\n你 3\n好 4\n#0 5\n", encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("你好 好") == [3, 4, 4]
    assert tokenizer.decode([3, 4, 4]) == "你好好"


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_model(cuts, prepare_lang, tmp_path, keep):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", *KINDS["unigram"])
    model = tmp_path / "lang" / "bpe.model"
    model.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"bpe\.model (is truncated or not a|have different tokens)"):
        Tokenizer.load(tmp_path / "lang")


def test_missing_files(cuts, prepare_lang, tmp_path):
    with pytest.raises(UserError, match=r"lang_x does not exist: run stage 3 \(lang\) first"):
        Tokenizer.load(tmp_path / "lang_x")
    prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", *KINDS["unigram"])
    (tmp_path / "lang" / "bpe.model").unlink()
    with pytest.raises(UserError, match=r"bpe\.model does not exist: run stage 3"):
        Tokenizer.load(tmp_path / "lang")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("▁ 3", "▁ three", "line 4: expected 'symbol id', found '▁ three'"),
        ("▁ 3", "▁", "line 4: expected 'symbol id'"),
        ("▁ 3", "▁ 2", "line 4: id 2 is there twice"),
        ("▁ 3", "<unk> 3", "line 4: symbol '<unk>' is there twice"),
        ("▁ 3\n", "", "id 3 is missing although there are higher ones"),
        ("<blk> 0\n", "", "id 0 is missing"),
        ("<blk>", "<eps>", "must begin with <blk> 0, <sos/eos> 1, <unk> 2, found <eps>"),
    ],
)
def test_malformed_tokens(cuts, prepare_lang, tmp_path, old, new, message):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "lang")
    table = tmp_path / "lang" / "tokens.txt"
    text = table.read_text("utf-8")
    assert old in text
    table.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        Tokenizer.load(tmp_path / "lang")
    assert message in str(refused.value) and "tokens.txt" in str(refused.value)


def test_empty_and_binary_tokens(tmp_path):
    (tmp_path / "tokens.txt").write_text("")
    with pytest.raises(UserError, match=r"tokens\.txt is empty"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokens.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"tokens\.txt is not UTF-8"):
        Tokenizer.load(tmp_path)


def test_table_of_another_model(cuts, prepare_lang, tmp_path):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "a", *KINDS["unigram"])
    prepare_lang("--cuts", cuts, "--out", tmp_path / "b", *KINDS["bpe"])
    (tmp_path / "a" / "tokens.txt").write_bytes((tmp_path / "b" / "tokens.txt").read_bytes())
    with pytest.raises(UserError, match="have different tokens"):
        Tokenizer.load(tmp_path / "a")


def test_tags_promised_but_not_there(cuts, prepare_lang, tmp_path):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", "--tags")
    about = json.loads((tmp_path / "lang" / "lang.json").read_text())
    (tmp_path / "lang" / "lang.json").write_text(json.dumps({**about, "languages": ["en", "de"]}))
    with pytest.raises(UserError, match=r"lacks the tag <de>"):
        Tokenizer.load(tmp_path / "lang")
