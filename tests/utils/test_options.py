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


def needy() -> Parser:
    needy = parser()
    needy.add_argument("folders", nargs="+", metavar="DIR")
    return needy


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
    refused(capsys, parser(), arguments, sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--baem=3"], "unrecognized arguments: --baem=3 (did you mean '--beam'?)"),
        (["--beam", "3"], "the following arguments are required: DIR"),
        (["--beam", "3", "--"], "the following arguments are required: DIR"),
    ],
)
def test_an_unknown_option_is_named_where_arguments_are_missing_too(capsys, arguments, sentence):
    refused(capsys, needy(), arguments, sentence)


def test_an_option_of_a_command_that_was_not_given_is_not_unknown(capsys):
    commands = Parser(prog="steps.x")
    commands.add_subparsers(dest="command", required=True).add_parser("make", prog="steps.x").add_argument("--seed")
    refused(capsys, commands, ["--seed=1"], "the following arguments are required: command")


def refused(capsys, parser: Parser, arguments: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith("error: steps.x: ") and sentence in error and error.endswith("; see --help.\n")
