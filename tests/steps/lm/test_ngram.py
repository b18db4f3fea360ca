"""N-gram models: KenLM's and kaldingram's numbers, sums to one, the laws of mixtures, files that are wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from steps.lang.prepare import main as prepare_lang
from steps.lang.tables import UNK
from steps.lm.arpa import LN10, read_arpa, write_arpa
from steps.lm.backoff import BOS, EOS, BackoffModel, encode
from steps.lm.combination import interpolate, mixture_weights, prune
from steps.lm.kneser_ney import estimate, vocabulary
from steps.lm.ngram import main
from steps.lm.perplexity import main as show_perplexity
from steps.lm.perplexity import perplexity as perplexity_of
from steps.lm.text_scorer import NgramTextScorer
from tests.steps.lm.ngram_text import sentences
from utils.errors import UserError

TEXT, OTHER = sentences(250), sentences(100, seed=1)


def make(order: int = 4, text=TEXT, cutoffs=(), words=None) -> BackoffModel:
    return estimate(text, order, words or vocabulary(text), cutoffs).model


def perplexity(model: BackoffModel, text) -> dict:
    return perplexity_of(NgramTextScorer(model), [(" ".join(words), None) for words in text])


def entry(model: BackoffModel, gram: str) -> tuple[float, float]:
    """Decimal logarithms of probability and back-off weight."""
    ids = np.array([[model.ids[word] for word in gram.split()]])
    grams, place = model.orders[ids.shape[1] - 1], model.index(ids)[0]
    assert place >= 0
    return grams.log_prob[place] / LN10, grams.backoff[place] / LN10


# lmplz -o 4 --discount_fallback 0.5 1 1.5, with and without --prune 0 0 1, of KenLM 0.3.0; perplexities are query's
LMPLZ = [
    (
        (),
        [23, 135, 413, 629],
        {
            "<unk>": (-1.9813948, 0),
            "cat": (-1.2322072, -0.27741826),
            "<s> the": (-0.9984792, -0.40718055),
            "tree then": (-0.92260927, -0.2702481),
            "old tree then": (-0.53839195, -0.14663628),
            "chases cat a </s>": (-0.4952839, 0),
        },
        24.30342214894607,
    ),
    (
        (0, 0, 1),
        [23, 135, 224, 141],
        {
            "tree": (-1.6665765, -0.22432235),
            "tree then": (-0.92260927, -0.16391319),
            "<s> a and </s>": (-0.58164275, 0),
            "a and hears </s>": (-0.5059211, 0),
        },
        23.451538431037132,
    ),
]


@pytest.mark.parametrize(("cutoffs", "counts", "entries", "ppl"), LMPLZ)
def test_estimates_are_lmplzs(cutoffs, counts, entries, ppl):
    found = estimate(TEXT, 4, vocabulary(TEXT), cutoffs)
    assert found.model.counts == counts and found.fallback == [True, False, False, False]
    for gram, expected in entries.items():
        assert entry(found.model, gram) == pytest.approx(expected, abs=1e-6)
    assert perplexity(found.model, OTHER)["perplexity"] == pytest.approx(ppl, abs=1e-3)


@pytest.mark.skipif(not shutil.which("lmplz"), reason="lmplz (KenLM's) is not on PATH")
def test_both_backends_write_the_same(tmp_path):
    (tmp_path / "text").write_text("".join(" ".join(line) + "\n" for line in TEXT))
    models = []
    for backend in ("lmplz", "numpy"):
        out = ["--out", str(tmp_path / f"{backend}.arpa.gz"), "--backend", backend]
        assert main(["train", "--text", str(tmp_path / "text"), "--order", "3", *out]) == 0
        models.append(read_arpa(tmp_path / f"{backend}.arpa.gz"))
    scored = [perplexity(model, OTHER) for model in models]
    assert scored[0] == {**scored[1], "log_prob": pytest.approx(scored[1]["log_prob"], abs=1e-2)}


def sums(model: BackoffModel) -> np.ndarray:
    """Σ p(w | h) over all words but `<s>`, of every context that the model has, and of none."""
    words = np.array([i for i, word in enumerate(model.words) if word != BOS])
    contexts = [np.zeros((1, 0), dtype=int), *(model.grams(order) for order in range(1, model.order))]
    contexts = [row for rows in contexts for row in rows if model.ids[EOS] not in row]
    return np.array([np.exp(model.conditional(np.tile(row, (len(words), 1)), words)).sum() for row in contexts])


@pytest.mark.parametrize("cutoffs", [(), (0, 1, 1, 2)])
def test_probabilities_sum_to_one_behind_every_context(cutoffs):
    np.testing.assert_allclose(sums(make(cutoffs=cutoffs)), 1, atol=1e-9)


def test_scores_of_sentences_are_the_conditionals():
    model = make()
    text = [*OTHER[:20], *TEXT[:5], ["cat", "zebra", "the"], []]
    ids, places = encode(text, model.ids)
    scores = model.score(ids, places)
    starts = np.flatnonzero(places == 0)
    for at, place in enumerate(places):
        start = starts[starts <= at][-1]
        expected = model.conditional(ids[None, start:at], ids[[at]])[0] if place else 0.0
        assert scores.log_prob[at] == pytest.approx(expected)
    assert (scores.matched <= np.minimum(places + 1, 4)).all() and scores.matched.max() == 4


def test_unknown_words_are_counted_and_told_apart():
    """KenLM's query: the cat zebra sees, and an empty line."""
    text = [["the", "cat", "zebra", "sees"], []]
    found = perplexity(make(), text)
    assert (found["sentences"], found["words"], found["oov"], found["oov_words"]) == (2, 4, 1, ["zebra"])
    assert found["perplexity"] == pytest.approx(25.046478956607174, abs=1e-3)
    assert found["perplexity_with_oov"] == pytest.approx(34.841035313363264, abs=1e-3)
    assert found["word_perplexity"] == found["perplexity_with_oov"]  # its tokens are the words
    assert found["longest_found"] == {"1": 3, "2": 2, "3": 0, "4": 0}
    closed = make()
    closed.orders[0].log_prob[closed.ids[UNK]] = -np.inf
    assert perplexity(closed, text) == {**found, "perplexity_with_oov": None, "word_perplexity": None}


def test_a_text_is_read_in_blocks(monkeypatch):
    whole = perplexity(make(3), OTHER)
    monkeypatch.setattr("steps.lm.perplexity.BLOCK", 7)
    assert perplexity(make(3), OTHER) == {**whole, "log_prob": pytest.approx(whole["log_prob"], abs=1e-3)}


def test_what_does_not_fit_into_memory_is_not_begun(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").write_text("the cat sees\n" * 100)
    options = ["train", "--text", str(tmp_path / "text"), "--backend", "numpy", "--out", str(tmp_path / "lm")]
    monkeypatch.setattr("steps.lm.ngram.memory_gb", lambda: 1e-5)
    with pytest.raises(
        UserError, match=r"^Counting 3-grams of 100 sentences \(300 words\) takes .* install KenLM, whose"
    ):
        main(options)
    assert not (tmp_path / "lm").exists()
    monkeypatch.setattr("steps.lm.ngram.memory_gb", lambda: 2e-4)
    assert main(options) == 0
    assert "counting 3-grams of 500 words and ends: up to 0.0 GiB" in capsys.readouterr().err


def test_a_given_vocabulary():
    words = vocabulary([], ["cat", "dog", "walrus", "<unk>", "</s>"])
    model = make(2, words=words)
    assert model.words == ["<unk>", "<s>", "</s>", "cat", "dog", "walrus"]
    assert entry(model, "walrus") < entry(model, "<unk>")  # what is not listed is <unk>, and often so
    np.testing.assert_allclose(sums(model), 1, atol=1e-9)


# kaldingram 0.1.2 (Kaldi's port of SRILM), of lmplz's model. It takes the history <s> alone for certain, SRILM for as
# probable as </s>: these bigrams are left out
KALDINGRAM = [(1e-4, [23, 126, 300, 63]), (1e-3, [23, 65, 36, 2])]


@pytest.mark.parametrize(("threshold", "counts"), KALDINGRAM)
def test_pruning_is_kaldis(threshold, counts):
    model = prune(make(), threshold)
    begins = (model.grams(2)[:, 0] == model.ids[BOS]).sum()
    assert [model.counts[0], model.counts[1] - begins, *model.counts[2:]] == counts
    np.testing.assert_allclose(sums(model), 1, atol=1e-9)


def test_pruning_everything_leaves_unigrams_and_nothing_leaves_all():
    model = make(3)
    assert prune(model, 1e9).counts == model.counts[:1]
    assert prune(model, -1.0).counts == model.counts
    assert perplexity(prune(model, 1e-3), TEXT)["perplexity"] > perplexity(model, TEXT)["perplexity"]


def test_a_mixture_is_the_mean_where_it_has_the_n_gram():
    one, other = make(3), make(2, [*sentences(60, seed=2)[:40], ["walrus"]])
    mixed = interpolate([one, other], [0.7, 0.3])
    assert mixed.order == 3 and set(mixed.words) == set(one.words) | {"walrus"}
    for order in (1, 2, 3):
        grams = mixed.grams(order)
        own = [np.array([model.ids.get(word, -1) for word in mixed.words])[grams] for model in (one, other)]
        parts = [np.exp(m.conditional(ids[:, :-1], ids[:, -1])) for m, ids in zip((one, other), own, strict=True)]
        np.testing.assert_allclose(np.exp(mixed.orders[order - 1].log_prob), 0.7 * parts[0] + 0.3 * parts[1])
    np.testing.assert_allclose(sums(mixed), 1, atol=1e-9)


def test_a_mixture_with_itself_is_itself():
    model = make(3)
    mixed = interpolate([model, model], [0.4, 0.6])
    assert mixed.counts == model.counts
    for ours, own in zip(mixed.orders, model.orders, strict=True):
        np.testing.assert_allclose(ours.log_prob, own.log_prob, atol=1e-9)
        np.testing.assert_allclose(ours.backoff, own.backoff, atol=1e-6)


def test_weights_are_the_likelihoods_maximum():
    draw = np.random.default_rng(0)
    log_probs = draw.normal(-3, 1.5, (2, 500))
    log_probs[0, 0], log_probs[:, 1] = -np.inf, -np.inf
    weights = mixture_weights(log_probs, 1e-9)
    probs = np.exp(np.delete(log_probs, 1, axis=1))
    best = minimize_scalar(lambda w: -np.log(w * probs[0] + (1 - w) * probs[1]).sum(), bounds=(0, 1), method="bounded")
    assert weights == pytest.approx([best.x, 1 - best.x], abs=1e-4)
    with pytest.raises(UserError, match="have none of the text's words: weights cannot be chosen on it"):
        mixture_weights(log_probs[:, 1:2])


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_a_file_holds_the_model(tmp_path, monkeypatch, name):
    monkeypatch.setattr("steps.lm.arpa.WRITTEN", 50)
    model = make(3)
    write_arpa(tmp_path / name, model)
    again = read_arpa(tmp_path / name)
    assert again.words == model.words and again.counts == model.counts
    for ours, own in zip(again.orders, model.orders, strict=True):
        assert np.array_equal(ours.prefix, own.prefix) and np.array_equal(ours.word, own.word)
        np.testing.assert_allclose(ours.log_prob, own.log_prob, atol=2e-6)
        np.testing.assert_allclose(ours.backoff, own.backoff, atol=2e-6)


ARPA = """
made by hand
\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-0.5 </s>
-99 <s> -0.25
-0.75 b -0.125
-1 a

\\2-grams:
-0.3 b b
-0.2 <s> a
-0.1 b </s>

\\end\\
"""


def test_a_file_of_other_hands(tmp_path):
    """Words in any order, n-grams not sorted, weights left out, text before the model, no <unk>."""
    (tmp_path / "lm").write_text(ARPA)
    model = read_arpa(tmp_path / "lm")
    assert entry(model, "b b") == pytest.approx((-0.3, 0)) and entry(model, "<s>")[1] == pytest.approx(-0.25)
    found = perplexity(model, [["a", "b", "b"], ["b", "c"]])
    # <s> a | a: back-off 0, b | b b | b </s>; <s>: back-off -0.25, b | c is unknown | </s>
    assert found["log_prob"] / LN10 == pytest.approx(-0.2 - 0.75 - 0.3 - 0.1 - 0.25 - 0.75 - 0.5, abs=1e-4)
    assert found["oov"] == 1 and found["perplexity_with_oov"] is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (ARPA, "", r"is empty or not in ARPA format \('\\data\\' is missing\): make it again"),
        ("ngram 1=4", "ngram 1=five", r"lm, line 4: 'ngram <order>=<count>' and then '\\1-grams:' are expected"),
        ("ngram 1=4\n", "", r"line 4: 'ngram 2=3' where the count of 1-grams is expected"),
        ("ngram 2=3", "ngram 2=4", r"line 18: a probability, 2 word\(s\) and perhaps a back-off weight are expected"),
        ("ngram 1=4", "ngram 1=3", r"line 11: '\\2-grams:' is expected after 3 n-grams, found '-1 a'"),
        ("ngram 2=3", "ngram 2=2", r"line 16: '\\end\\' is expected after 2 section\(s\)"),
        ("-0.3 b b", "-0.3 b c", r"line 14: 'c' is no unigram"),
        ("-0.3 b b", "-0.3 b </s>", r"has the 2-gram 'b </s>' twice"),
        ("-1 a", "-1 b", r"line 11: 'b' is there twice"),
        ("-1 a", "-one a", r"line 11: '-one' and 'a' are expected to be numbers"),
        ("-1 a", "1 a", r"a 1-gram has a probability above 1, or no number"),
        ("<s>", "<S>", r"has no <s>: it is no model of sentences"),
    ],
)
def test_files_that_are_wrong(tmp_path, old, new, sentence):
    (tmp_path / "lm").write_text(ARPA.replace(old, new))
    with pytest.raises(UserError, match=sentence):
        read_arpa(tmp_path / "lm")


def test_an_n_gram_without_its_first_words_is_refused(tmp_path):
    text = ARPA.replace("ngram 2=3", "ngram 2=3\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1 a b b\n\n\\end\\")
    (tmp_path / "lm").write_text(text)
    with pytest.raises(UserError, match=r"has the 3-gram 'a b b', but not its first 2 word\(s\) as one"):
        read_arpa(tmp_path / "lm")


def test_the_program_from_text_to_a_tuned_mixture(tmp_path, capsys):
    for name, lines in (("own", TEXT), ("far", sentences(250, seed=3)), ("dev", sentences(40))):
        (tmp_path / f"{name}.txt").write_text("\n".join(" ".join(line) for line in lines) + "\n\n")
    lms = [str(tmp_path / f"{name}.arpa") for name in ("own", "far")]
    for name, lm in zip(("own", "far"), lms, strict=True):
        options = ["--order", "3", "--backend", "numpy", "--out", lm]
        assert main(["train", "--text", str(tmp_path / f"{name}.txt"), *options]) == 0
    shown = capsys.readouterr()
    assert "of 250 sentences" in shown.out and "warning: 1-grams: too few to tell discounts from counts" in shown.err
    dev = ["--text", str(tmp_path / "dev.txt")]
    mixed, small = str(tmp_path / "mixed.arpa.gz"), str(tmp_path / "small.arpa")
    assert main(["mix", "--lm", *lms, *dev, "--out", mixed]) == 0
    assert main(["prune", "--lm", mixed, "--threshold", "1e-4", "--out", small]) == 0
    capsys.readouterr()
    assert show_perplexity(["--lm", *lms, mixed, small, *dev]) == 0
    own, far, both, pruned = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert both["perplexity"] <= min(own["perplexity"], far["perplexity"]) + 1e-3 < pruned["perplexity"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--out", "x"], r"Give the text: .* \(--text\), or cuts"),
        (["train", "--text", "EMPTY", "--out", "x"], r"empty holds no text: check the path"),
        (["train", "--text", "LATIN", "--out", "x"], r"latin is not text in UTF-8"),
        (["train", "--text", "MARKED", "--backend", "numpy", "--out", "x"], r"The text has <s> or </s> in it"),
        (["train", "--text", "TEXT", "--cutoffs", "0", "2", "1", "--backend", "numpy", "--out", "x"], "never fall"),
        (["train", "--text", "TEXT", "--backend", "lmplz", "--words", "TEXT", "--out", "x"], "does not take --words"),
        (["mix", "--lm", "LM", "LM", "--out", "x"], r"Give --weights, one a model, or a text"),
        (["mix", "--lm", "LM", "LM", "--weights", "0.5", "0.4", "--out", "x"], r"Weights 0.5 0.4: give 2 positive"),
        (["prune", "--lm", "nowhere", "--threshold", "1e-4", "--out", "x"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    files = {"EMPTY": "\n \n", "TEXT": "a b\n", "MARKED": "<s> a </s>\n", "LM": ARPA}
    for name, text in files.items():
        (tmp_path / name.lower()).write_text(text)
    (tmp_path / "latin").write_bytes("é\n".encode("latin-1"))
    with pytest.raises(UserError, match=sentence):
        main([word.lower() if word in {*files, "LATIN"} else word for word in words])
    assert not (tmp_path / "x").exists()


def test_tokens_of_a_lang_folder_are_words(tmp_path, monkeypatch):
    (tmp_path / "own.txt").write_text("\n".join(" ".join(line) for line in TEXT))
    text = ["--text", str(tmp_path / "own.txt")]
    monkeypatch.setattr("sys.argv", ["prepare", *text, "--type", "char", "--out", str(tmp_path / "lang")])
    prepare_lang()
    options = ["--lang", str(tmp_path / "lang"), "--order", "3", "--backend", "numpy", "--out", str(tmp_path / "lm")]
    assert main(["train", *text, *options]) == 0
    assert {"▁", "c", "t"} < set(read_arpa(tmp_path / "lm").words) and "cat" not in read_arpa(tmp_path / "lm").words
