"""Files of hotwords: what is read, and what is said of mistakes."""

from __future__ import annotations

import pytest

from steps.lang.hotwords import read_hotwords, spelled_hotwords
from steps.lang.tokenizer import Tokenizer
from utils.errors import UserError

TOKENS = ["<blk>", "<sos/eos>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz:5"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "hotwords.txt"


def test_phrases_with_and_without_a_bonus(file):
    file.write_text("Asterisk\n\n  new   york :2.5\nat 5:30\n:3\nc :1e-1\n", encoding="utf-8")
    assert read_hotwords(file) == {"Asterisk": 1.0, "new york": 2.5, "at 5:30": 1.0, ":3": 1.0, "c": 0.1}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"hotwords.txt holds no phrase: give one a line"),
        ("\n \n", r"hotwords.txt holds no phrase"),
        ("good\nbad :x\n", r"hotwords.txt, line 2: ':x' is no number above zero: give 'phrase :2.5'"),
        ("bad :-1\n", r"line 1: ':-1' is no number above zero"),
        ("bad :inf\n", r"line 1: ':inf' is no number above zero"),
    ],
)
def test_mistakes(file, text, complaint):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        read_hotwords(file)


def test_phrases_that_cannot_be_spelled_are_told(file, capsys):
    file.write_text("ab\nΩ\nnaïve :2\nb a\n", encoding="utf-8")
    words, bonus, begins = spelled_hotwords(file, Tokenizer(TOKENS, [], tags=False))
    assert ["".join(TOKENS[i] for i in word) for word in words] == ["▁ab", "▁b▁a"] and bonus == [1.0, 1.0]
    assert [token for token, first in zip(TOKENS, begins, strict=True) if first] == ["▁"]
    assert "2 phrases have characters that no token has: Ω, naïve" in capsys.readouterr().err
    file.write_text("Ω\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"the tokens can spell none of its phrases \(Ω\): check their script and case"):
        spelled_hotwords(file, Tokenizer(TOKENS, [], tags=False))


def test_without_spaces_a_word_begins_anywhere(file):
    file.write_text("abc\n", encoding="utf-8")
    words, _, begins = spelled_hotwords(file, Tokenizer([t for t in TOKENS if t != "▁"], [], tags=False))
    assert words == [[3, 4, 5]] and all(begins)
