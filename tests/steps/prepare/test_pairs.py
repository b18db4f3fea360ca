"""Parallel text: where pairs come from, what is refused, and errors made on purpose."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from steps.lang.pair_tokens import SideConfig
from steps.prepare.pairs import Noise, ParallelSection, ParallelText, read_pairs, without_copies
from tests.steps.parallel import EN, FR, write_lines, write_rows, write_supervisions
from utils.errors import UserError
from utils.options import check_config

TEXT, FRENCH = SideConfig(), SideConfig(target="translation.fr")


def pairs_of(values, source=TEXT, target=FRENCH):
    return read_pairs(check_config({"train": values}, ParallelSection, "test").train[0], source, target)


def test_every_form_gives_the_same_pairs(tmp_path):
    lines = pairs_of(write_lines(tmp_path))
    cuts = pairs_of(str(write_supervisions(tmp_path / "cuts.jsonl.gz")))
    rows = [{"source": one, "target": other, "language": "en"} for one, other in zip(EN, FR, strict=True)]
    json_lines = pairs_of({"path": str(write_rows(tmp_path / "pairs.jsonl", rows))})
    for found in (lines, cuts, json_lines):
        assert [(pair.source, pair.target, pair.language) for pair in found] == [
            (one, other, "en") for one, other in zip(EN, FR, strict=True)
        ]
    assert [cuts[0].name, lines[1].name] == ["u00", "train.en.gz:2"]


def test_what_was_recognised_stands_for_the_transcript(tmp_path):
    cuts = write_supervisions(tmp_path / "cuts.jsonl.gz")
    hyp = write_rows(tmp_path / "hyp.jsonl", [{"id": "u01", "hyp": "a man run"}, {"id": "other", "hyp": "x"}])
    found = pairs_of({"path": str(cuts), "recognised": str(hyp)})
    assert [(pair.source, pair.target) for pair in found] == [("a man run", FR[1])]
    nbest = [{"id": "u00", "nbest": [{"hyp": "a man sleep", "score": -1}, {"hyp": "", "score": -2}]}]
    found = pairs_of({"path": str(cuts), "recognised": str(write_rows(tmp_path / "nbest.jsonl", nbest))})
    assert [pair.source for pair in found] == ["a man sleep"]  # an empty one teaches nothing


def test_copies_at_other_speeds_say_the_same(tmp_path):
    found = pairs_of(str(write_supervisions(tmp_path / "cuts.jsonl.gz", copies=3)))
    assert len(found) == 60 and len(without_copies(found)) == 20


def test_case_and_punctuation_can_be_what_is_learned(tmp_path):
    lines = {"source": write_lines(tmp_path)["target"], "target": write_lines(tmp_path)["target"]}
    pair = pairs_of(lines, SideConfig(strip=True), TEXT)[15]
    assert (pair.source, pair.target) == ("l'enfant dort", "L'enfant dort.")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": "a.en"}, r"give a 'path', or a 'source' and a 'target'"),
        ({}, r"give a 'path', or"),
        ({"path": "x", "source": "a", "target": "b"}, r"give a 'path', or"),
        ({"source": "a", "target": "b", "recognised": "h"}, r"'recognised' takes the translations from the cuts"),
        ({"path": "nowhere.jsonl.gz"}, r"nowhere\.jsonl\.gz does not exist"),
        ({"source": "nowhere.en", "target": "nowhere.fr"}, r"nowhere\.en does not exist"),
        ({"path": "x", "weigth": 2}, r"unknown key 'train\.0\.weigth' \(did you mean 'weight'\?\)"),
        ({"path": "x", "weight": 0}, r"'train\.0\.weight' = 0"),
    ],
)
def test_mistakes_are_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        pairs_of(values)
    assert "\n" not in str(caught.value)


def test_what_files_lack_is_said(tmp_path):
    names = write_lines(tmp_path)
    cuts = str(write_supervisions(tmp_path / "cuts.jsonl.gz"))
    with pytest.raises(UserError, match=r"no utterance has translation\.de: there are text, translation\.fr\."):
        pairs_of(cuts, target=SideConfig(target="translation.de"))
    with gzip.open(names["target"], "at", encoding="utf-8") as out:
        out.write("Une ligne de trop.\n")
    with pytest.raises(UserError, match=r"train\.en\.gz has 20 lines, .*train\.fr\.gz has 21"):
        pairs_of(names)
    with pytest.raises(UserError, match=r"has none of the utterances of .*cuts\.jsonl\.gz"):
        pairs_of({"path": cuts, "recognised": str(write_rows(tmp_path / "h.jsonl", [{"id": "x", "hyp": "y"}]))})
    with pytest.raises(UserError, match=r"entry 1: no recognised utterance"):
        pairs_of({"path": cuts, "recognised": str(write_rows(tmp_path / "h.jsonl", [{"text": "y"}]))})
    rows = [{"source": "a", "target": "b"}, {"source": "a", "target": None}]
    with pytest.raises(UserError, match=r"entry 2: 'source' and 'target' must be texts"):
        pairs_of(str(write_rows(tmp_path / "rows.jsonl", rows)))
    empty = tmp_path / "empty.en"
    empty.write_text("\n \n")
    with pytest.raises(UserError, match=r"empty\.en .* holds no pair of texts"):
        pairs_of({"source": str(empty), "target": str(empty)})


def test_noise_has_its_rates_and_its_seed():
    noise, text = Noise(probability=1.0, words=0.2, characters=0.0), " ".join(f"w{i}" for i in range(1000))
    kept = noise(text, np.random.default_rng(1), "ab").split()
    assert set(kept) <= set(text.split()) and 0.15 < 1 - len(kept) / 1000 < 0.25
    assert kept == noise(text, np.random.default_rng(1), "ab").split()
    noise = Noise(probability=1.0, words=0.0, characters=0.2)
    changed = noise("a" * 5000, np.random.default_rng(2), "b")
    left_out, others = 5000 - len(changed), changed.count("b")
    assert 400 < left_out < 600 and 400 < others < 600
    assert Noise(probability=0.0)(text, np.random.default_rng(1), "ab") == text
    assert Noise(probability=1.0, words=1.0)("all gone", np.random.default_rng(1), "ab") == "all gone"


def test_a_path_alone_is_a_set():
    assert ParallelText.model_validate("data/cuts.jsonl.gz") == ParallelText(path="data/cuts.jsonl.gz")
