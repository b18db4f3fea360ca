from __future__ import annotations

import pytest

from utils.options import Parser


def parser() -> Parser:
    parser = Parser(prog="steps.x")
    parser.add_argument("--beam", type=int, default=4, help="kept hypotheses")
    parser.add_argument("--workers", type=int, default=0, help="processes")
    parser.add_argument("--tags", action="store_true", help="a token per language")
    parser.add_argument("--report", help="file to write")
    return parser


def test_help_shows_the_defaults_that_say_something():
    text = " ".join(parser().format_help().split())
    assert "kept hypotheses (default: 4)" in text and "processes (default: 0)" in text
    assert "default: None" not in text and "default: False" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--baem", "3"], "unrecognized arguments: --baem 3 (did you mean '--beam'?)"),
        (["--bea", "3"], "(did you mean '--beam'?)"),  # abbreviations would break when an option is added
        (["--beam", "x"], "argument --beam: invalid int value: 'x'"),
    ],
)
def test_wrong_options_are_one_line(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith("error: steps.x: ") and sentence in error and error.endswith("; see --help.\n")
