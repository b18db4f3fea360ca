"""Confidences of words against what is right: measures by theory, the program on decode folders."""

from __future__ import annotations

import json

import numpy as np
import pytest

from steps.scoring.calibration import calibration, judged, main
from utils.errors import UserError


def row(name: str, ref: str | None, words: list[tuple[str, float]]) -> dict:
    hyp = " ".join(word for word, _ in words)
    return {"id": name, "ref": ref, "hyp": hyp, "words": [[word, 0.0, 0.1, confidence] for word, confidence in words]}


ROWS = [
    row("a", "one two three", [("one", 0.9), ("too", 0.3), ("three", 0.8)]),
    row("b", "four", [("for", 0.2), ("four", 0.7)]),  # an insertion
    row("c", "five six", [("six", 0.95)]),  # a deletion
    row("d", None, [("what", 0.5)]),
]


def test_right_and_wrong_words():
    confidences, right = judged(ROWS, "x")
    assert confidences.tolist() == [0.9, 0.3, 0.8, 0.2, 0.7, 0.95]
    assert right.tolist() == [True, False, True, False, True, True]


def test_measures_of_confidences_that_are_true():
    """Words that are right as often as they say: no calibration error, and NCE is what the information is worth."""
    rng = np.random.default_rng(0)
    confidences = rng.choice([0.15, 0.55, 0.95], size=200_000)
    right = rng.random(len(confidences)) < confidences
    found = calibration(confidences, right)

    def entropy(p: float) -> float:
        return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))

    expected = 1 - np.mean([entropy(p) for p in (0.15, 0.55, 0.95)]) / entropy(0.55)
    assert found["ece"] < 0.005 and found["nce"] == pytest.approx(expected, abs=0.005)
    pairs = [(a, b) for a in (0.15, 0.55, 0.95) for b in (0.15, 0.55, 0.95)]
    above = sum(a * (1 - b) * ((a > b) + 0.5 * (a == b)) for a, b in pairs)
    assert found["auc"] == pytest.approx(above / sum(a * (1 - b) for a, b in pairs), abs=0.005)


def test_measures_of_confidences_that_say_nothing():
    right = np.arange(1000) % 4 > 0
    found = calibration(np.full(1000, 0.75), right)
    assert (found["ece"], found["nce"], found["auc"]) == (0.0, 0.0, 0.5)
    over = calibration(np.ones(1000), right)
    assert (
        over["ece"] == 0.25 and over["nce"] < -1 and over["bins"] == [{"words": 1000, "confidence": 1.0, "right": 0.75}]
    )
    assert calibration(np.ones(3), np.ones(3, bool))["nce"] is None


def test_the_program(tmp_path, capsys):
    for name in ("dev.ctc.greedy", "dev.ctc.prefix_beam"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hyp.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert [entry["words"] for entry in found.values()] == [6, 6] and "auc 1.0" in capsys.readouterr().out
    assert (tmp_path / "out" / "reliability.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"id": "a", "ref": "no", "hyp": "no"}], "'a' has no confidences of its words: decode again"),
        ([row("a", "no", [])], "no word was recognised"),
    ],
)
def test_what_cannot_be_judged(rows, sentence):
    with pytest.raises(UserError, match=sentence):
        judged(rows, "exp")
