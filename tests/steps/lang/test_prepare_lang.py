from __future__ import annotations

import gzip
import json

import pytest

from steps.lang.tokenizer import Tokenizer


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def lines(path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("arguments", [("--type", "char"), ("--type", "bpe", "--vocab-size", 150, "--tags")])
def test_files_in_icefalls_format(sentences, cuts, prepare_lang, tmp_path, arguments):
    status, out, _ = prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", *arguments)
    assert status == 0 and "20 utterances" in out and "no unknown character" in out
    folder = tmp_path / "lang"
    tokenizer = Tokenizer.load(folder)
    tokens, words = lines(folder / "tokens.txt"), lines(folder / "words.txt")
    assert [int(index) for _, index in tokens] == list(range(tokenizer.vocab_size))
    assert [int(index) for _, index in words] == list(range(len(words)))
    symbols = [symbol for symbol, _ in words]
    assert symbols[:2] == ["<eps>", "<UNK>"] and symbols[-3:] == ["#0", "<s>", "</s>"]
    spoken = {word for spoken in sentences.values() for line in spoken for word in line.split()}
    assert symbols[2:-3] == sorted(spoken)
    lexicon = {word: pieces for word, *pieces in lines(folder / "lexicon.txt")}
    assert list(lexicon) == ["<UNK>", *sorted(spoken)] and lexicon["<UNK>"] == ["▁", "<unk>"]
    known = {symbol for symbol, _ in tokens}
    for word in spoken:
        assert "".join(lexicon[word]) == "▁" + word and set(lexicon[word]) <= known
    sentence = sentences["it"][1]
    spelled = [piece for word in sentence.split() for piece in lexicon[word]]
    encoded = tokenizer.encode(sentence, "it")[1 if tokenizer.tags else 0 :]
    assert spelled == [tokenizer.token(index) for index in encoded]


def test_deterministic(cuts, prepare_lang, tmp_path, in_new_process):
    arguments = ("--type", "bpe", "--vocab-size", 150)
    prepare_lang("--cuts", cuts, "--out", tmp_path / "a", *arguments)
    options = ["prepare", "--cuts", str(cuts), "--out", str(tmp_path / "b"), *map(str, arguments)]
    in_new_process(f"import sys; sys.argv = {options}; from steps.lang.prepare import main; main()")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_one_language_of_many(cuts, prepare_lang, tmp_path):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "fr", "--languages", "fr")
    prepare_lang("--cuts", cuts, "--out", tmp_path / "ru", "--languages", "ru")
    prepare_lang("--cuts", cuts, "--out", tmp_path / "all")
    french, russian, joint = (Tokenizer.load(tmp_path / name) for name in ("fr", "ru", "all"))
    assert french.languages == ["fr"] and set(french.tokens) & set(russian.tokens) == {*french.tokens[:4], "-"}
    assert set(french.tokens) | set(russian.tokens) <= set(joint.tokens)


def test_translation_target(sentences, cuts, prepare_lang, tmp_path):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "x-en", "--target", "translation.en")
    prepare_lang("--cuts", cuts, "--out", tmp_path / "x-en-tags", "--target", "translation.en", "--tags")
    tokenizer = Tokenizer.load(tmp_path / "x-en")
    assert tokenizer.languages == ["en"]
    assert set(tokenizer.tokens[4:]) == set("".join(sentences["en"])) - {" "}
    assert Tokenizer.load(tmp_path / "x-en-tags").tokens[3] == "<en>"


def test_same_language_adds_the_transcripts(cut_rows, prepare_lang, tmp_path):
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt", encoding="utf-8") as out:
        for row in cut_rows:
            row["supervisions"][0]["text"] += " ☃" if row["id"].startswith("en") else ""
            out.write(json.dumps(row) + "\n")
    options = ("--cuts", tmp_path / "cuts.jsonl.gz", "--target", "translation.en")
    prepare_lang(*options, "--out", tmp_path / "without")
    prepare_lang(*options, "--out", tmp_path / "with", "--same-language")
    assert "☃" not in Tokenizer.load(tmp_path / "without").tokens
    assert "☃" in Tokenizer.load(tmp_path / "with").tokens


def test_several_targets_share_a_set(cuts, prepare_lang, tmp_path):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "l", "--target", "text", "translation.en", "--languages", "en")
    about = json.loads((tmp_path / "l" / "lang.json").read_text())
    assert about["target"] == "text translation.en" and about["languages"] == ["en"]


def test_check_reports_what_is_unknown(cut_rows, cuts, prepare_lang, tmp_path):
    _, out, _ = prepare_lang("--cuts", cuts, "--out", tmp_path / "en", "--languages", "en")
    rows = cut_rows[:1]
    rows[0]["supervisions"][0]["text"] = "naïve éclair ï"
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--cuts", cuts, "--out", tmp_path / "en", "--languages", "en", "--check", tmp_path / "dev.jsonl")
    _, out, _ = prepare_lang(*options)
    assert "dev.jsonl: 1 utterances, 3 words" in out and "3 unknown characters ('é' 1, 'ï' 2)" in out


def test_supervision_manifest_is_as_good_as_cuts(cut_rows, cuts, prepare_lang, tmp_path):
    path = tmp_path / "train_supervisions.jsonl"
    path.write_text("".join(json.dumps(row["supervisions"][0]) + "\n" for row in cut_rows))
    prepare_lang("--cuts", cuts, "--out", tmp_path / "a")
    prepare_lang("--cuts", path, "--out", tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_characters_after_bpe_in_the_same_folder(cuts, prepare_lang, tmp_path):
    prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", "--type", "bpe", "--vocab-size", 150)
    prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", "--type", "char")
    assert not (tmp_path / "lang" / "bpe.model").exists()
    assert len(Tokenizer.load(tmp_path / "lang").encode("you have")) == 9


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_vocabulary_size_limits_are_named_and_true(cuts, prepare_lang, tmp_path, model_type):
    options = ("--cuts", cuts, "--out", tmp_path / "lang", "--type", "bpe", "--model-type", model_type, "--vocab-size")
    assert prepare_lang(*options, 150)[0] == 0
    before = files(tmp_path / "lang")
    for wrong, words in ((5000, "the largest possible is "), (20, "give at least ")):
        status, _, error = prepare_lang(*options, wrong)
        assert status == 1 and error.count("\n") == 1 and f"--vocab-size {wrong} is too" in error and words in error
        assert files(tmp_path / "lang") == before
        possible = int(error.split(words)[1].rstrip(".\n"))
        assert prepare_lang(*options, possible)[0] == 0
        assert Tokenizer.load(tmp_path / "lang").vocab_size == possible
        assert prepare_lang(*options, possible + (1 if wrong > 20 else -1))[0] == 1
        prepare_lang(*options, 150)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--languages", "fra"], "no text in the language 'fra': there are en es fr it ru."),
        (["--target", "translation.de"], "no utterance has the target translation.de: there are text translation.en"),
        (["--target", "transcript"], "Target 'transcript' is not a target"),
        (["--vocab-size", "50"], "--vocab-size is for --type bpe"),
        (["--model-type", "bpe"], "--model-type is for --type bpe"),
        (["--cuts", "nowhere.jsonl.gz"], "nowhere.jsonl.gz does not exist"),
        (["--type", "bpe", "--vocab-size", "-3"], "--vocab-size -3"),
        (["--typ", "bpe"], "unrecognized arguments: --typ bpe (did you mean '--type'?)"),
    ],
)
def test_mistakes_are_one_sentence(cuts, prepare_lang, tmp_path, arguments, sentence):
    status, _, error = prepare_lang("--cuts", cuts, "--out", tmp_path / "lang", *arguments)
    assert status in (1, 2) and error.startswith("error: ") and error.count("\n") == 1
    assert sentence in error
    assert not (tmp_path / "lang").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "no utterance has the target text: no utterance has any text."),
        ('{"id": "x"}\n', "entry 1: not a cut or a supervision"),
        ("[1]\n", "entry 1: not a cut or a supervision"),
        ('{"id": \n', "line 1: not JSON"),
    ],
)
def test_bad_manifest(prepare_lang, tmp_path, content, sentence):
    (tmp_path / "bad.jsonl").write_text(content)
    status, _, error = prepare_lang("--cuts", tmp_path / "bad.jsonl", "--out", tmp_path / "lang")
    assert status == 1 and sentence in error and error.count("\n") == 1


def test_tags_need_a_language(cut_rows, prepare_lang, tmp_path):
    row = cut_rows[0]
    row["supervisions"][0]["language"] = None
    (tmp_path / "cuts.jsonl").write_text(json.dumps(row) + "\n")
    assert prepare_lang("--cuts", tmp_path / "cuts.jsonl", "--out", tmp_path / "plain")[0] == 0
    status, _, error = prepare_lang("--cuts", tmp_path / "cuts.jsonl", "--out", tmp_path / "lang", "--tags")
    assert status == 1 and "--tags needs the language of every utterance" in error


def test_plain_text_in_the_language_of_its_name(sentences, cuts, prepare_lang, tmp_path):
    for language in ("en", "fr"):
        with gzip.open(tmp_path / f"train.{language}.gz", "wt", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in (*sentences[language], ""))
    texts = [tmp_path / f"train.{language}.gz" for language in ("fr", "en")]
    status, out, _ = prepare_lang("--text", *texts, "--tags", "--out", tmp_path / "text")
    assert status == 0 and "8 utterances" in out and Tokenizer.load(tmp_path / "text").languages == ["en", "fr"]
    assert prepare_lang("--cuts", cuts, "--languages", "en", "fr", "--tags", "--out", tmp_path / "cuts")[0] == 0
    assert files(tmp_path / "text") == files(tmp_path / "cuts")
    status, _, error = prepare_lang("--out", tmp_path / "nothing")
    assert status == 1 and "manifests with --cuts, plain text with --text" in error
    (tmp_path / "blank.en").write_text(" \n")
    status, _, error = prepare_lang("--text", tmp_path / "blank.en", "--out", tmp_path / "nothing")
    assert status == 1 and "blank.en holds no text" in error


def test_a_large_text_gives_a_sample_for_tokens_and_all_its_words(sentences, prepare_lang, tmp_path):
    (tmp_path / "all.fr").write_text("".join(f"{line}\n" for line in sentences["fr"] * 50))
    (tmp_path / "one.en").write_text("the walrus\n")
    text = ("--text", tmp_path / "all.fr", tmp_path / "one.en", "--tags", "--type", "bpe", "--vocab-size", 45)
    status, out, _ = prepare_lang(*text, "--sample", 20, "--out", tmp_path / "sample")
    lines_there = 50 * len(sentences["fr"]) + 1
    assert status == 0 and f"one.en (20 of {lines_there} lines drawn): 20 utterances" in out
    assert prepare_lang(*text, "--sample", 20, "--out", tmp_path / "again")[0] == 0
    assert files(tmp_path / "sample") == files(tmp_path / "again")
    assert prepare_lang(*text, "--out", tmp_path / "whole")[0] == 0
    assert files(tmp_path / "sample")["words.txt"] == files(tmp_path / "whole")["words.txt"]
    assert Tokenizer.load(tmp_path / "sample").languages == ["en", "fr"]
