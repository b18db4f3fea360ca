"""Scores of texts and perplexities by models of all kinds: sums of what each model says of its tokens, and errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steps.lang.tokenizer import Tokenizer
from steps.lm.arpa import write_arpa
from steps.lm.kneser_ney import estimate, vocabulary
from steps.lm.perplexity import main
from steps.lm.text_scorer import open_text_scorer
from tests.steps.lm.ngram_text import sentences
from tests.steps.tiny_llm import make_llm
from tests.steps.tiny_lms import LSTM, write_lang, write_language_model
from utils.errors import UserError

TEXTS = ["the cat sees a bird", "dog", "", "the small dog hears the cat and sleeps", "a cat"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """ARPA files `words.arpa` and `tokens.arpa`, the lang folder `lang`, the model folder `lm` and `llm`."""
    root = tmp_path_factory.mktemp("scorers")
    lines = [" ".join(words) for words in sentences(200)]
    tokenizer = write_lang(root / "lang", lines)
    for name, text in (("words", [line.split() for line in lines]), ("tokens", list(map(tokenizer.pieces, lines)))):
        write_arpa(root / f"{name}.arpa", estimate(text, 3, vocabulary(text)).model)
    write_language_model(root / "lm", lines, LSTM)
    make_llm(root / "llm")
    return root


def run(capsys, *words) -> list[dict]:
    assert main([*map(str, words), "--device", "cpu"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_neural_models_score_is_of_the_texts_tokens(root):
    scorer, tokenizer = open_text_scorer(root / "lm"), Tokenizer.load(root / "lang")
    found = scorer.score(TEXTS)
    ids = [tokenizer.encode(text) for text in TEXTS]
    np.testing.assert_allclose(found.log_probs, scorer.model.score(ids).numpy(), rtol=1e-5, atol=1e-5)
    assert found.tokens.tolist() == [len(row) + 1 for row in ids] and not found.unknown.any() and not found.rest.any()
    other = scorer.score(["the cät"])
    assert other.unknown.tolist() == [1] and -20 < other.rest[0] < 0 and scorer.lacks("cät") and not scorer.lacks("cat")


@pytest.mark.parametrize(("name", "lang"), [("words", None), ("tokens", "lang")])
def test_an_n_gram_models_score_is_the_sum_of_its_conditionals(root, name, lang):
    scorer = open_text_scorer(root / f"{name}.arpa", lang and root / lang)
    found = scorer.score(TEXTS)
    for text, log_prob, tokens in zip(TEXTS, found.log_probs, found.tokens, strict=True):
        split = Tokenizer.load(root / lang).pieces(text) if lang else text.split()
        ids = np.array([[scorer.model.ids[word] for word in ("<s>", *split, "</s>")]])
        parts = [scorer.model.conditional(ids[:, :n], ids[:, n])[0] for n in range(1, ids.shape[1])]
        assert log_prob == pytest.approx(sum(parts)) and tokens == len(parts)


@pytest.mark.parametrize("at_a_time", [1, 1 << 24])
def test_a_model_of_transformers_scores_as_its_own_loss(root, monkeypatch, at_a_time):
    monkeypatch.setattr("steps.nets.language_model.SCORED", at_a_time)
    found = open_text_scorer(root / "llm").score(TEXTS)
    model, tokenizer = (kind.from_pretrained(root / "llm") for kind in (AutoModelForCausalLM, AutoTokenizer))
    for text, log_prob, tokens in zip(TEXTS, found.log_probs, found.tokens, strict=True):
        ids = torch.tensor([tokenizer(f"<|im_start|>{text}<|im_end|>").input_ids])
        with torch.no_grad():
            loss = float(model.eval()(input_ids=ids, labels=ids).loss)
        assert log_prob == pytest.approx(-loss * tokens, rel=1e-4) and tokens == ids.shape[1] - 1


def test_perplexities_are_of_tokens_and_of_words(root, tmp_path, capsys):
    (tmp_path / "dev.en").write_text("\n".join(TEXTS) + "\n")
    models = [root / "words.arpa", root / "lm", root / "llm"]
    ngram, neural, hub = run(capsys, "--lm", *models, "--text", tmp_path / "dev.en")
    for report, path in ((ngram, models[0]), (neural, models[1]), (hub, models[2])):
        scores = open_text_scorer(path).score([text for text in TEXTS if text])
        assert (report["sentences"], report["words"], report["oov"], report["oov_words"]) == (4, 16, 0, [])
        assert report["log_prob"] == pytest.approx(scores.log_probs.sum(), abs=1e-3)
        assert report["tokens"] == scores.tokens.sum() - 4 >= 16
        assert report["word_perplexity"] == pytest.approx(math.exp(-report["log_prob"] / 20), rel=1e-3)
        assert report["perplexity"] == pytest.approx(math.exp(-report["log_prob"] / scores.tokens.sum()), rel=1e-3)
    assert "longest_found" in ngram and "longest_found" not in neural
    (tokens,) = run(capsys, "--lm", root / "tokens.arpa", "--lang", root / "lang", "--text", tmp_path / "dev.en")
    assert tokens["tokens"] == neural["tokens"] and tokens["word_perplexity"] < neural["word_perplexity"]


def test_what_is_unknown_is_told_apart(root, tmp_path, capsys):
    (tmp_path / "dev.en").write_text("the zebra sees\na cät\n")
    ngram, neural = run(capsys, "--lm", root / "words.arpa", root / "lm", "--text", tmp_path / "dev.en")
    assert (ngram["oov"], ngram["oov_words"]) == (2, ["cät", "zebra"])
    assert "cät" in neural["oov_words"] and neural["oov"] >= 1
    for report in (ngram, neural):
        assert report["perplexity"] != report["perplexity_with_oov"] and report["word_perplexity"] > 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tokens.arpa"], r"is a model of tokens \(it has '▁'\): give --lang"),
        (["words.arpa", "--lang", "lang"], r"has none of the tokens of .*lang: leave out --lang"),
        (["nowhere.arpa"], r"nowhere\.arpa does not exist"),
        (["lang"], r"lang holds no config\.json"),
        (["lm", "--checkpoint", "epoch-3.pt"], r"epoch-3\.pt does not exist: there are averaged\.pt"),
    ],
)
def test_mistakes_are_one_sentence(root, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(root)
    (tmp_path / "text").write_text("the cat\n")
    with pytest.raises(UserError, match=sentence):
        main(["--lm", *words, "--text", str(tmp_path / "text"), "--device", "cpu"])


def test_a_text_longer_than_a_model_takes_is_refused(root):
    with pytest.raises(UserError, match=r"A text of \d+ tokens \('zzzz.*is longer than the 160 that .*llm takes"):
        open_text_scorer(root / "llm").score(["z" * 400])


def test_the_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("encoder: {name: zipformer}\n")
    with pytest.raises(UserError, match=r"holds no language model: give the folder of one that steps.train made"):
        open_text_scorer(tmp_path)
