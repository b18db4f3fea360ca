from __future__ import annotations

import pytest

from steps.lang.corpus import language_of
from steps.lang.text import bare


@pytest.mark.parametrize(
    ("name", "language"),
    [("data/train.en", "en"), ("train.mdw.gz", "mdw"), ("a/train.txt", None), ("train", None), ("x.jsonl.gz", None)],
)
def test_the_language_in_a_files_name(name, language):
    assert language_of(name) == language


def test_text_as_recognisers_write_it():
    assert bare("L'hôtel, est-il « là » ?  Oui!") == "l'hôtel est-il là oui"
