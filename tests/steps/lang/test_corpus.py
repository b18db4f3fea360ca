from __future__ import annotations

import pytest
from lhotse import SupervisionSegment, SupervisionSet

from steps.lang.corpus import language_of, manifest_texts
from steps.lang.text import bare


@pytest.mark.parametrize(
    ("name", "language"),
    [("data/train.en", "en"), ("train.mdw.gz", "mdw"), ("a/train.txt", None), ("train", None), ("x.jsonl.gz", None)],
)
def test_the_language_in_a_files_name(name, language):
    assert language_of(name) == language


def test_text_as_recognisers_write_it():
    assert bare("L'hôtel, est-il « là » ?  Oui!") == "l'hôtel est-il là oui"


def test_copies_at_other_speeds_can_be_left_out(tmp_path):
    names = ["a", "a_sp0.9", "b_sp1.1", "c_sp", "a_sp1.1"]
    told = [SupervisionSegment(name, "rec", 0.0, 1.0, text=f"text of {name}", language="en") for name in names]
    SupervisionSet.from_segments(told).to_file(tmp_path / "s.jsonl.gz")
    assert len(manifest_texts([tmp_path / "s.jsonl.gz"], ["text"])) == 5
    kept = [text for text, _ in manifest_texts([tmp_path / "s.jsonl.gz"], ["text"], copies=False)]
    assert kept == ["text of a", "text of b_sp1.1", "text of c_sp"]
