"""Failures: what counts as a loop, a copy, too much text; on runs in which each kind was planted."""

from __future__ import annotations

import json

import pytest

from steps.scoring.failures import compression_ratio, copied, longest_loop
from utils.files import read_json


@pytest.mark.parametrize(
    ("text", "times", "unit"),
    [
        ("", 1, ""),
        ("a b c", 1, ""),
        ("no no no way", 3, "no"),
        ("a b a b a b a", 3, "a b"),
        ("x y z w x y z w x y z w end", 3, "x y z w"),
        ("a a b a a b a a b", 3, "a a b"),
        ("so so a a a a", 4, "a"),
    ],
)
def test_longest_loop(text, times, unit):
    assert longest_loop(text.split()) == (times, unit.split())


def test_longest_loop_is_that_of_every_run_tried():
    """Against all starts, lengths and counts, one by one."""
    import random

    rng = random.Random(0)
    for _ in range(300):
        words = rng.choices("ab", k=rng.randint(0, 12))
        most = 1
        for start in range(len(words)):
            for size in range(1, len(words)):
                times = 1
                while words[start + times * size : start + (times + 1) * size] == words[start : start + size]:
                    times += 1
                most = max(most, times) if words[start : start + size] else most
        assert longest_loop(words)[0] == most


def test_compression_ratio_tells_loops_from_speech():
    assert compression_ratio("") == 0
    assert compression_ratio("je ne sais pas quoi dire de plus, mais je le dis quand même") < 1.3
    assert compression_ratio("Hmmmmm" + "m" * 100) > 2.4


def test_copied_share():
    assert (
        copied(["el", "gato", "come", "12"], ["el", "gato", "come", "12", "peces"], ["the", "cat", "eats", "12"]) == 1.0
    )
    assert copied(["the", "the", "cat"], ["the", "dog"], []) == pytest.approx(1 / 3)
    assert copied(["un", "moment"], ["un", "moment"], ["one", "moment"]) == 0.5  # said alike in both
    assert copied([], ["a"], []) == copied(["12"], ["12"], []) == 0.0


def rows(**planted) -> list[dict]:
    """Thirty good translations of 2 s, with the outputs of `planted` utterances replaced."""
    found = []
    for number in range(30):
        row = {"id": f"u{number:02d}", "language": "es", "target": "translation.en", "duration": 2.0}
        row["ref"] = row["hyp"] = f"the number is {number} of {'long ' * (number % 3)}ones"
        row["source"] = f"el número es {number}"
        found.append({**row, **planted.get(row["id"], {})})
    return found


def test_each_kind_is_found_and_named(decode_folder, score):
    planted = {
        "u03": {"hyp": ""},
        "u04": {"hyp": "the the the THE number"},
        "u05": {"hyp": "El número, es 5!"},
        "u06": {"hyp": "quick brown foxes jump over lazy dogs while my seven wizards box " * 2},
        "u07": {"ref": "no no no no", "hyp": "no no no"},  # as often as it was said
        "u08": {"ref": "Madrid Barcelona", "hyp": "Madrid Barcelona", "source": "Madrid Barcelona"},  # names
        "u09": {"hyp": "Hm" + "m" * 30},
    }
    folder = decode_folder(target="translation.en", rows=rows(**planted))
    assert score(folder)[0] == 0
    found = read_json(folder / "failures.json")
    assert found["counts"] == {"empty": 1, "repetition": 2, "hallucination": 1, "copy": 1}
    assert [entry["id"] for entry in found["empty"]] == ["u03"]
    assert found["repetition"][0] == {
        **{"id": "u04", "repeated": "the", "times": 4, "references": ["the number is 4 of long ones"]},
        "hypothesis": "the the the THE number",
    }
    assert found["repetition"][1]["id"] == "u09" and found["repetition"][1]["compression_ratio"] > 2.4
    assert found["copy"][0]["id"] == "u05" and found["copy"][0]["copied"] == 1.0
    assert found["hallucination"][0]["id"] == "u06"
    assert found["hallucination"][0]["characters_per_second"] > found["limits"]["characters_per_second"]
    assert [entry["chrf"] for entry in found["worst"]] == sorted(entry["chrf"] for entry in found["worst"])
    assert len(found["worst"]) == 10 and {"u03", "u05", "u06"} <= {entry["id"] for entry in found["worst"]}
    listing = (folder / "errors.txt").read_text("utf-8")
    section = listing.split("FAILURES: 1 empty, 2 repetition, 1 hallucination, 1 copy\n")[1]
    assert "repetition u04 (repeated the, times 4)\nref: the number is 4 of long ones\nhyp: the the the THE" in section


def test_the_limit_is_tukeys_fence_of_the_references(decode_folder, score):
    import numpy as np

    folder = decode_folder(target="translation.en", rows=rows())
    score(folder)
    rates = [len(" ".join(row["ref"].split())) / 2 for row in rows()]
    lower, upper = np.quantile(rates, [0.25, 0.75])
    limit = read_json(folder / "failures.json")["limits"]["characters_per_second"]
    assert limit == pytest.approx(upper + 3 * (upper - lower), abs=0.01)


def test_what_cannot_be_judged_is_not_counted(decode_folder, score):
    few = [{**row, "source": None} for row in rows(u01={"hyp": "x" * 400})[:10]]
    found = read_json((decode_folder(target="translation.en", rows=few)) / "decode.json")
    assert found["utterances"] == 10
    folder = decode_folder(target="translation.en", rows=few)
    score(folder)
    failures = read_json(folder / "failures.json")
    assert failures["counts"]["hallucination"] is None and failures["counts"]["copy"] is None
    assert failures["limits"]["characters_per_second"] is None
    assert "FAILURES: 0 empty, 1 repetition, – hallucination, – copy" in (folder / "errors.txt").read_text("utf-8")


def test_text_where_nothing_was_said(decode_folder, score):
    row = {"language": "fr", "target": "text", "duration": 0.0}
    folder = decode_folder(
        rows=[{"id": "a", "ref": "", "hyp": "merci", **row}, {"id": "b", "ref": "oui", "hyp": "oui", **row}]
    )
    score(folder)
    found = read_json(folder / "failures.json")
    assert [entry["id"] for entry in found["hallucination"]] == ["a"] and found["counts"]["hallucination"] == 1
    assert found["worst"] == [{"id": "b", "wer": 0.0, "references": ["oui"], "hypothesis": "oui"}]


def test_languages_without_spaces_loop_by_characters(decode_folder, score):
    row = {"language": "fr", "target": "translation.zh", "ref": "我们走吧"}
    planted = [{"id": "a", "hyp": "我们走我们走我们走", **row}, {"id": "b", "hyp": "我们走", **row}]
    folder = decode_folder(target="translation.zh", rows=planted)
    score(folder)
    assert [entry["id"] for entry in json.loads((folder / "failures.json").read_text("utf-8"))["repetition"]] == ["a"]
