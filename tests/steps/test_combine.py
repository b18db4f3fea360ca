"""steps.combine: minimum Bayes risk over lists written by hand, what it writes, and what it says to mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sacrebleu import sentence_bleu, sentence_chrf

from steps.combine import UTILITIES, expected, main, shares, word_accuracy
from steps.scoring.hypotheses import read_decoded
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_json, write_jsonl


def folder(path: Path, lists: dict[str, list[tuple[str, float]]], target: str = "translation.fr", **about) -> Path:
    """A decode folder whose utterances have these (text, score) lists."""
    rows = [
        {"id": name, "target": target, "ref": "le chat dort", "language": "mdw", "hyp": texts[0][0], "duration": 2.0}
        for name, texts in lists.items()
    ]
    write_jsonl(path / "hyp.jsonl", rows)
    if any(len(texts) > 1 for texts in lists.values()):
        nbest = [[{"hyp": text, "score": score} for text, score in texts] for texts in lists.values()]
        write_jsonl(path / "nbest.jsonl", [{"id": n, "nbest": x} for n, x in zip(lists, nbest, strict=True)])
    model = {"model": str(path.parent.parent), "head": "h", "method": "m", "split": "dev", "seconds": 1.0}
    write_json(path / "decode.json", {**model, "parameters": 10, "utterances": len(rows), **about})
    return path


def combined(tmp_path: Path, folders: list[Path], *options: str) -> list[str]:
    out = tmp_path / "out" / "decode" / "dev.mbr.bleu"
    assert main(["--in", *map(str, folders), "--out", str(out), *options]) == 0
    return [row["hyp"] for row in read_jsonl(out / "hyp.jsonl")]


def test_shares_are_probabilities():
    np.testing.assert_allclose(shares([-1.0, -1.0 - np.log(3)], 1.0), [0.75, 0.25])
    np.testing.assert_allclose(shares([-1.0, -1.0 - np.log(3)], 2.0), [0.9, 0.1])


def test_expected_utility_by_hand():
    # the middle one shares a word with each of the others: 0.5 * 1/2 + 0.3 * 1 + 0.2 * 1/2
    found = expected({"a b": 0.5, "a c": 0.3, "d c": 0.2}, word_accuracy)
    assert found == [("a b", pytest.approx(0.65)), ("a c", pytest.approx(0.65)), ("d c", pytest.approx(0.35))]
    assert expected({"a b": 0.4, "a c": 0.3, "d c": 0.3}, word_accuracy)[0] == ("a c", pytest.approx(0.65))


def test_utilities_are_those_of_sacrebleu():
    pair = ("le chat dort bien", "le chat dort")
    assert UTILITIES["chrf"]()(*pair) == pytest.approx(sentence_chrf(pair[0], [pair[1]]).score / 100)
    expected_bleu = sentence_bleu(pair[0], [pair[1]], smooth_method="add-k", use_effective_order=True).score / 100
    assert UTILITIES["bleu"]()(*pair) == pytest.approx(expected_bleu)
    assert UTILITIES["bleu"]()("Le Chat", "le chat") == pytest.approx(1.0)
    assert [word_accuracy("", ""), word_accuracy("a", ""), word_accuracy("a b c d", "e")] == [1.0, 0.0, 0.0]


def test_most_agree_and_weights_tell_who_counts(tmp_path):
    texts = ("il mange du pain ce soir", "le chat dort sur la table", "le chat dort sous la table")
    folders = [folder(tmp_path / f"s{i}/decode/dev.h.m", {"a": [(t, -1.0)]}) for i, t in enumerate(texts)]
    assert combined(tmp_path, folders)[0] in texts[1:]
    assert combined(tmp_path, folders, "--weights", "9", "1", "1", "--utility", "chrf") == [texts[0]]


def test_a_list_shares_its_weight_by_its_scores(tmp_path):
    lists = {"a": [("x y z", -1.0), ("p q", -1.2), ("p q", -1.2), ("p q r", -1.3)]}
    one = folder(tmp_path / "s/decode/dev.h.m", lists)
    assert combined(tmp_path, [one]) == ["p q"]  # the best alone would be the first
    assert combined(tmp_path, [one], "--scale", "50") == ["x y z"]


def test_what_is_written_can_be_scored_and_costs_each_model_once(tmp_path):
    one = folder(tmp_path / "one/decode/dev.h.m", {"a": [("le chat", -1.0)], "b": [("le chien", -1.0)]})
    two = folder(tmp_path / "two/decode/dev.h.m", {"b": [("le chat", -1.0)], "a": [("le chat dort", -1.0)]}, seconds=3)
    combined(tmp_path, [one, two, one])
    out = tmp_path / "out/decode/dev.mbr.bleu"
    about = read_json(out / "decode.json")
    assert (about["system"], about["split"], about["parameters"]) == ("combination", "dev", 20)
    assert 4 < about["seconds"] < 5 and about["rtf"] == pytest.approx(about["seconds"] / 4, rel=1e-3)
    assert len(about["stages"]) == 2
    decoded = read_decoded(out)
    assert decoded.ids == ["a", "b"] and decoded.hypotheses == ["le chat", "le chien"]
    assert json.loads((out / "nbest.jsonl").read_text().splitlines()[0])["nbest"][0]["hyp"] == "le chat"


def test_transcripts_are_chosen_by_words(tmp_path):
    lists = {"a": [("a b", -1.0)]}
    folders = [folder(tmp_path / f"s{i}/decode/dev.h.m", lists, target="text") for i in range(2)]
    combined(tmp_path, folders)
    assert read_json(tmp_path / "out/decode/dev.mbr.bleu/decode.json")["method"] == "wer"


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        ({"lists": {"b": [("x", 0.0)]}}, [], r"two.* has 1 utterances, .*one.* 1, and they are not the same: combine"),
        ({"target": "text"}, [], r"have the targets text and translation.fr: combine those of one"),
        ({}, ["--weights", "1"], r"--weights has 1 numbers for 2 folders: give one for each"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, other, options, message):
    lists = {"a": [("x", 0.0)]}
    folders = [
        folder(tmp_path / "one/decode/dev.h.m", lists),
        folder(tmp_path / "two/decode/dev.h.m", **{"lists": lists, **other}),
    ]
    with pytest.raises(UserError, match=message):
        main(["--in", *map(str, folders), "--out", str(tmp_path / "out"), *options])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*decode.json does not exist: run stage 6"):
        main(["--in", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
