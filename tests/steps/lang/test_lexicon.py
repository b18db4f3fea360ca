"""Lexicons and L: Kaldi's disambiguation symbols, the strings that the graph takes, files that are wrong."""

from __future__ import annotations

import math

import pytest

from steps.lang.arcs import Arcs
from steps.lang.lexicon import disambiguated, lexicon_graph, read_lexicon
from utils.errors import UserError

ENTRIES = [("a", ("x",)), ("ab", ("x", "y")), ("abba", ("x", "y", "x")), ("b", ("y",)), ("bee", ("y",)), ("c", ("z",))]
TOKENS = ["<blk>", "x", "y", "z", "SIL", "#0", "#1", "#2"]
WORDS = ["<eps>", "a", "ab", "abba", "b", "bee", "c", "#0"]


def test_symbols_are_kaldis():
    """add_lex_disambig.pl: beginnings of others, and words that sound alike."""
    found, highest = disambiguated(ENTRIES)
    assert [" ".join(tokens) for _, tokens in found] == ["x #1", "x y #1", "x y x", "y #1", "y #2", "z"]
    assert [word for word, _ in found] == [word for word, _ in ENTRIES] and highest == 2
    assert disambiguated(ENTRIES[2:3]) == (ENTRIES[2:3], 0)


def strings(arcs: Arcs, longest: int) -> dict[tuple[str, str], float]:
    """Every pair of strings that the graph takes, with tokens up to `longest`, and its score (each has one path)."""
    found: dict[tuple[str, str], float] = {}

    def visit(state: int, read: tuple[str, ...], written: tuple[str, ...], score: float) -> None:
        for row in (i for i in range(len(arcs.source)) if arcs.source[i] == state):
            total = score + float(arcs.score[row])
            if arcs.label[row] == -1:
                key = (" ".join(read), " ".join(written))
                assert key not in found
                found[key] = total
                continue
            token, word = TOKENS[arcs.label[row]], WORDS[arcs.aux[row]]
            onward = (*read, token) if arcs.label[row] else read
            if len(onward) <= longest:
                visit(int(arcs.target[row]), onward, (*written, word) if arcs.aux[row] else written, total)

    visit(0, (), (), 0.0)
    return found


def test_the_graph_takes_what_the_words_are_spelled_with():
    found = strings(lexicon_graph(ENTRIES, TOKENS, WORDS), 3)
    expected = {("", "")}
    for _ in range(3):
        expected |= {
            (f"{read} {' '.join(tokens)}".strip(), f"{written} {word}".strip())
            for read, written in expected
            for word, tokens in ENTRIES
        }
    assert set(found) == {pair for pair in expected if len(pair[0].split()) <= 3} and set(found.values()) == {0.0}


def test_silence_may_stand_around_every_word():
    found = strings(lexicon_graph(ENTRIES[5:], TOKENS, WORDS, silence="SIL", silence_prob=0.2), 3)
    yes, no = math.log(0.2), math.log(0.8)
    expected = {"": no, "SIL": yes, "z": 2 * no, "SIL z": no + yes, "z SIL": no + yes, "SIL z SIL": 2 * yes}
    expected |= {"z z": 3 * no, "z z z": 4 * no, "SIL z z": 2 * no + yes}
    expected |= {"z SIL z": 2 * no + yes, "z z SIL": 2 * no + yes}
    assert {read: pytest.approx(score) for (read, _), score in found.items()} == expected
    assert all(written.split() == ["c"] * read.split().count("z") for read, written in found)


def test_loops_read_and_write_what_a_grammar_backs_off_with():
    found = strings(lexicon_graph(ENTRIES[5:], TOKENS, WORDS, loops=True), 2)
    assert set(found) == {("", ""), *[(f"{a} {b}".strip(), f"{a} {b}".strip().replace("z", "c")) for a, b in PAIRS]}


PAIRS = [("z", ""), ("#0", ""), ("z", "z"), ("#0", "z"), ("z", "#0"), ("#0", "#0")]


def test_a_file_is_read(tmp_path):
    (tmp_path / "lexicon.txt").write_text("a x\n\nab x  y\nab x y\nab y\n")
    assert read_lexicon(tmp_path / "lexicon.txt") == [("a", ("x",)), ("ab", ("x", "y")), ("ab", ("y",))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"lexicon.txt is empty: give 'word token token \.\.\.' a line"),
        ("a x\nword\n", r"lexicon.txt, line 2: 'word' has no tokens"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, sentence):
    (tmp_path / "lexicon.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_lexicon(tmp_path / "lexicon.txt")


@pytest.mark.parametrize(
    ("entries", "options", "sentence"),
    [
        ([("d", ("x",))], {}, r"The lexicon has 'd', which words.txt lacks"),
        ([("a", ("q",))], {}, r"spells 'a' with 'q', which is no token"),
        ([("a", ("<blk>",))], {}, r"spells 'a' with '<blk>', which is no token"),
        ([("a", ("x",))], {"silence": "PAUSE"}, r"The tokens lack 'PAUSE'"),
    ],
)
def test_tables_that_do_not_fit(entries, options, sentence):
    with pytest.raises(UserError, match=sentence):
        lexicon_graph(entries, TOKENS, WORDS, **options)
