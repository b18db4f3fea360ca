"""The measures against independent computation: textbook edit distance, sacrebleu's own corpus scores."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from steps.scoring import measures as scoring
from steps.scoring.bootstrap import interval, paired_p_value, resampled_sums
from steps.scoring.hypotheses import Decoded
from steps.scoring.listing import error_listing, marked, translation_listing
from steps.scoring.measures import error_measures, translation_measures, word_alignments
from steps.scoring.text import TextRules, without_punctuation
from utils.errors import UserError

WORDS = ["a", "b", "c", "d", "*", "(x->", "⁇", "l'été", "по-русски", "привет", "the"]


CASED = ["The", "the", "cat", "Cat", "sat", "on", "a", "mat", ",", ".", "isn't", "it"]


def decoded(references, hypotheses, target="text", languages=None) -> Decoded:
    ids = [f"u{number:05d}" for number in range(len(references))]
    several = [(texts,) if isinstance(texts, str) else texts for texts in references]
    return Decoded(
        **{"folder": Path("exp/m/decode/test.ctc.greedy"), "about": {}, "target": target, "ids": ids},
        **{"languages": languages or ["fr"] * len(ids), "references": several, "hypotheses": hypotheses},
        **{"without_reference": 0, "same_language": 0, "subsets": {}},
        **{"sources": [None] * len(ids), "durations": [None] * len(ids)},
    )


def random_pairs(count: int, seed: int = 0, words=WORDS) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    sentences = [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(2 * count)]
    return sentences[:count], sentences[count:]


def levenshtein(reference, hypothesis) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (expected != found))
    return row[-1]


def test_word_and_character_errors_are_the_edit_distance():
    run = decoded(*random_pairs(200))
    wer, cer = error_measures(run, word_alignments(run))
    for index, (reference, hypothesis) in enumerate(zip(run.single_references, run.hypotheses, strict=True)):
        for measure, split in ((wer, str.split), (cer, lambda text: list(text.replace(" ", "")))):
            insertions, deletions, substitutions, expected, found = measure.statistics[index]
            assert insertions + deletions + substitutions == levenshtein(split(reference), split(hypothesis))
            assert (expected, found) == (len(split(reference)), len(split(hypothesis)))
            assert expected - deletions + insertions == found
    total = sum(levenshtein(r.split(), h.split()) for r, h in zip(run.single_references, run.hypotheses, strict=True))
    words = sum(len(r.split()) for r in run.single_references)
    assert wer.score(wer.statistics.sum(axis=0)) == pytest.approx(100 * total / words)


def test_error_rate_without_reference_words_is_undefined():
    run = decoded(["", ""], ["a b", ""])
    wer, cer = error_measures(run, word_alignments(run))
    assert wer.statistics.sum(axis=0).tolist() == [2, 0, 0, 0, 2]
    assert wer.score(wer.statistics.sum(axis=0)) is None and cer.score(cer.statistics.sum(axis=0)) is None


@pytest.mark.parametrize("lowercase", [False, True])
def test_translation_scores_and_signatures_are_sacrebleus(lowercase):
    references, hypotheses = random_pairs(60, words=CASED)
    run = decoded(references, hypotheses, "translation.en")
    ours = translation_measures(run, TextRules(lowercase=lowercase), 0, 1)
    peers = [BLEU(lowercase=lowercase), CHRF(lowercase=lowercase), TER()]
    for measure, peer in zip(ours, peers, strict=True):
        assert measure.score(measure.statistics.sum(axis=0)) == pytest.approx(
            peer.corpus_score(hypotheses, [references]).score, abs=1e-9
        )
        assert measure.signature == peer.get_signature().format()
    assert [measure.name for measure in ours] == ["bleu", "chrf", "ter"]


@pytest.mark.parametrize("fewest", [3, 1])
def test_several_references_are_sacrebleus(fewest):
    rng = random.Random(3)
    hypotheses, _ = random_pairs(40, words=CASED)
    references = [tuple(random_pairs(rng.randint(fewest, 3), seed, CASED)[0]) for seed in range(40)]
    run = decoded(references, hypotheses, "translation.en")
    streams = [[texts[k] if k < len(texts) else None for texts in references] for k in range(3)]
    for measure, peer in zip(translation_measures(run, TextRules(), 0, 1), [BLEU(), CHRF(), TER()], strict=True):
        expected = peer.corpus_score(hypotheses, streams).score
        assert measure.score(measure.statistics.sum(axis=0)) == pytest.approx(expected, abs=1e-9)
        assert measure.signature == peer.get_signature().format()
        assert f"nrefs:{3 if fewest == 3 else 'var'}" in measure.signature
    lines = list(translation_listing(run, measure))
    assert sum(line.startswith("ref: ") for line in lines) == sum(map(len, references))


def test_error_rates_take_one_reference():
    with pytest.raises(UserError, match=r"has several references an utterance: WER and CER take one"):
        word_alignments(decoded([("a", "b")], ["a"]))


def test_intervals_and_signatures_are_sacrebleus(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "77")
    references, hypotheses = random_pairs(50, words=["the", "cat", "sat", "on", "a", "mat"])
    run = decoded(references, hypotheses, "translation.en")
    for measure, peer in zip(translation_measures(run, TextRules(), 300, 77), [BLEU(), CHRF(), TER()], strict=True):
        expected = peer.corpus_score(hypotheses, [references], n_bootstrap=300)
        scores = np.array([measure.score(row) for row in resampled_sums(measure.statistics, 300, 77)])
        low, high = interval(scores)
        assert scores.mean() == pytest.approx(expected._mean, abs=1e-3)
        assert (high - low) / 2 == pytest.approx(expected._ci, abs=1e-3)
        assert measure.signature == peer.get_signature().format() and "bs:300|seed:77" in measure.signature


def test_many_processes_give_the_same(monkeypatch):
    run = decoded(*random_pairs(50), "translation.en")
    alone = translation_measures(run, TextRules(), 0, 1)
    monkeypatch.setattr(scoring, "_POOL_FROM", 10)
    monkeypatch.setattr(scoring.os, "cpu_count", lambda: 2)
    for one, many in zip(alone, translation_measures(run, TextRules(), 0, 1), strict=True):
        assert np.array_equal(one.statistics, many.statistics)


def test_language_decides_the_tokenizer():
    run = decoded(["我们走吧"], ["我们走"], "translation.zh")
    assert "tok:zh" in translation_measures(run, TextRules(), 0, 1)[0].signature


def test_resampled_sums_in_chunks_are_those_of_plain_indexing(monkeypatch):
    statistics = np.random.default_rng(0).integers(0, 9, (37, 3)).astype(float)
    drawn = np.random.default_rng(5).choice(37, size=(11, 37), replace=True)
    expected = statistics[drawn].sum(axis=1)
    assert np.array_equal(resampled_sums(statistics, 11, 5), expected)
    monkeypatch.setattr("steps.scoring.bootstrap._CHUNK", 100)  # two rows at a time
    assert np.array_equal(resampled_sums(statistics, 11, 5), expected)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Error counts of 60 utterances drawn 300 times: the 95 % interval holds the true rate in about 95 % of them."""
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(300):
        errors = rng.binomial(10, 0.3, 60)
        sums = resampled_sums(np.stack([errors, np.full(60, 10)], axis=1).astype(float), 200, trial)
        low, high = interval(sums[:, 0] / sums[:, 1])
        inside += low <= 0.3 <= high
    assert 0.90 <= inside / 300 <= 0.99


def test_paired_p_value():
    rng = np.random.default_rng(0)
    base = rng.normal(30, 2, 1000)
    same = paired_p_value(base, base, 0.0)
    noise = paired_p_value(base, base + rng.normal(0.5, 1, 1000), 0.5)
    clear = paired_p_value(base, base + rng.normal(5, 1, 1000), 5.0)
    assert same == 1.0 and 0.5 < noise < 0.75 and clear == pytest.approx(1 / 1001)
    assert paired_p_value(base + 5, base, -5.0) == paired_p_value(base, base + 5, 5.0)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a x c", "a (b->x) c"),
        ("a b", "", "(a b->*)"),
        ("", "a b", "(*->a b)"),
        ("", "", ""),
        ("a * b", "a b", "a (*->*) b"),  # a literal star deleted
        ("a b c d", "x y c d e", "(a b->x y) c d (*->e)"),
    ],
)
def test_marks(reference, hypothesis, expected):
    run = decoded([reference], [hypothesis])
    assert marked(word_alignments(run)[0]) == expected


def test_error_listing():
    references = ["the cat sat", "the dog sat down", "a", "yes"]
    run = decoded(references, ["the cat sat", "a dog sat", "a a big a", "yes"])
    alignments = word_alignments(run)
    lines = list(error_listing(run, alignments, error_measures(run, alignments)[0]))
    assert lines[0] == "%WER 55.56 [ 5 / 9, 3 ins, 1 del, 1 sub ]"
    assert lines[1].endswith("over 9 reference words (7 correct)")
    start = lines.index("PER-UTT DETAILS: corr or (ref->hyp), worst first")
    assert [line.split(":\t")[0] for line in lines[start + 1 : start + 5]] == ["u00002", "u00001", "u00000", "u00003"]
    assert lines[start + 2] == "u00001:\t(the->a) dog sat (down->*)"
    assert lines[lines.index("SUBSTITUTIONS: count ref -> hyp") + 1] == "1\tthe -> a"
    assert lines[lines.index("DELETIONS: count ref") + 1] == "1\tdown"
    assert lines[lines.index("INSERTIONS: count hyp") + 1] == "2\ta"
    words = lines[lines.index("PER-WORD STATS: word corr tot_errs count_in_ref count_in_hyp") + 1 :]
    assert words[0] == "a\t1 3 1 4" and "the\t1 1 2 1" in words and "sat\t2 0 2 2" in words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", "Hello world"),
        ("l'été — «rendez-vous» -oui- 'non'", "l'été rendez-vous oui non"),
        ("3,5 % (or 10€)", "3 5 or 10"),
        ("हिन्दी ठीक है।", "हिन्दी ठीक है"),
        ("ca⁇e", "ca⁇e"),
    ],
)
def test_without_punctuation(text, expected):
    assert " ".join(without_punctuation(text).split()) == expected


def test_text_rules_are_applied_and_described():
    rules = TextRules(lowercase=True, remove_punctuation=True)
    assert rules(" L'E\u0301te\u0301,  là ") == "l'été là"
    assert TextRules()("A,  b") == "A, b"
    assert rules.describe(["a b"])["references"] == {"casing": "lower", "punctuation": "none"}
    plain = TextRules().describe(["A b", "c."])
    assert plain["casing"] == "as it is" and plain["references"] == {"casing": "mixed", "punctuation": "present"}
    assert TextRules().describe(["AB", "C"])["references"]["casing"] == "upper"
