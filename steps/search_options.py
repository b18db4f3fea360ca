"""The options of the programs that recognise: the model, and the searches, on the command line or in a YAML file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from utils.devices import PRECISIONS
from utils.errors import UserError, nearest
from utils.options import Parser, count, load_yaml, natural, positive, scale, share


class Option(NamedTuple):
    """`kind` reads a value (None: a flag, which is off when given) and says which are allowed."""

    kind: Callable[[str], Any] | None
    help: str


def _topology(text: str) -> str:
    if text not in ("standard", "modified"):
        raise argparse.ArgumentTypeError(f"{text} is neither standard nor modified")
    return text


# of all searches; a method's own defaults are in steps.search.methods
OPTIONS: dict[str, Option] = {
    "beam": Option(count, "hypotheses kept by prefix_beam, modified_beam and beam (4)"),
    "length_norm": Option(None, "modified_beam: rank by total score"),
    "blank_penalty": Option(float, "taken off a transducer's blank logit (0)"),
    "max_symbols": Option(count, "tokens a frame of a transducer's greedy search (1)"),
    "temperature": Option(positive, "of modified_beam's softmax (1)"),
    "length_penalty": Option(float, "beam of attention and llm: power of the length (1)"),
    "min_tokens": Option(natural, "beam of attention and llm: shortest text (0)"),
    "max_tokens": Option(count, "attention and llm: longest text (200)"),
    "max_length_ratio": Option(positive, "attention and llm: longest text, per frame (1)"),
    "no_repeat_ngram": Option(natural, "beam of attention and llm: no so many tokens twice (0)"),
    "ctc_head": Option(str, "beam of attention and llm, rescore: CTC head to score with"),
    "ctc_weight": Option(share, "beam of attention and llm: its share of the score (0.3)"),
    "graph": Option(str, "lattices, wfst and fast_beam: the folder that steps.lang.graph wrote"),
    "lm_scale": Option(scale, "factor of the language model's scores (lattices 1, the beams 0.3, fast_beam 0.01)"),
    "lm": Option(
        str, "prefix_beam and modified_beam: language model of the head's tokens, an ARPA file or a model folder"
    ),
    "subtract_lm": Option(str, "one to subtract: of the training text (density ratio), or a bigram (LODR)"),
    "subtract_scale": Option(scale, "factor of the one to subtract (0.2)"),
    "ilm_scale": Option(scale, "modified_beam: factor of the transducer's own language model, subtracted (0)"),
    "hotwords": Option(str, "file of words and phrases to prefer, one a line, perhaps with ' :bonus'"),
    "hotwords_scale": Option(scale, "nats a token that a hotword's bonus is times (1.5)"),
    "lattice_scale": Option(scale, "lattices: factor of the graph's scores while they are made (1)"),
    "search_beam": Option(positive, "lattices, wfst and fast_beam: nats below the best, while searching (20)"),
    "output_beam": Option(positive, "lattices: nats below the best, in the lattice (8)"),
    "max_active": Option(count, "lattices and wfst: states kept a frame (10000)"),
    "max_states": Option(count, "fast_beam: pairs of a state and the last tokens, kept a frame (64)"),
    "max_contexts": Option(count, "fast_beam: different last tokens, kept a frame (8)"),
    "rescore_graph": Option(str, "whole_lattice: a folder of steps.lang.graph, or an ARPA file, of a larger model"),
    "rescore_lm": Option(str, "rescore: language model of texts: an ARPA file of words, a folder, a hub name"),
    "confidence_scale": Option(scale, "hlg: factor of the scores that words' confidences are of, 0: none (0.1)"),
    "rescore_scale": Option(scale, "rescore: factor of its scores (0.5)"),
    "attention_head": Option(str, "rescore: attention head that scores as well"),
    "attention_scale": Option(scale, "rescore: factor of its scores (0.5)"),
    "ctc_scale": Option(scale, "rescore: factor of the scores of --ctc-head (0.5)"),
    "topology": Option(_topology, "h: standard or modified (a repeated token needs no blank between: smaller)"),
    "num_paths": Option(count, "n-best lists of lattices: paths drawn (100, fast_beam_nbest 200)"),
    "nbest_scale": Option(positive, "n-best lists of lattices: less gives more different ones (0.5)"),
    "mbr_scale": Option(scale, "nbest, rescore: above 0 take what most agree with, sharpened by this (0)"),
    "nbest": Option(count, "also write that many hypotheses of beam searches and lattices"),
}


def add_model_arguments(parser: Parser) -> None:
    """The options that say which model recognises, and on what."""
    parser.add_argument("--model", required=True, help="model folder, exp/<model>")
    parser.add_argument("--checkpoint", default="averaged.pt", help="a file of the model folder, such as epoch-3.pt")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number>")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--max-duration", type=positive, default=200.0, help="seconds a batch, padding included")


def add_arguments(parser: Parser, files_follow: bool = False, leave_out: tuple[str, ...] = ()) -> None:
    """The options of the command lines that use a `Recogniser`, but those to `leave_out`.

    Where files follow the options, every search has a `--search` of its own: it must not take a file for another one.
    """
    add_model_arguments(parser)
    group = parser.add_argument_group("searches", "each method has its own options; what is not given is its default")
    group.add_argument(
        "--search",
        action="extend",
        nargs=1 if files_follow else "+",
        default=[],
        metavar="HEAD:METHOD",
        help="such as transducer:modified_beam, or transducer:modified_beam+mine to name its folder; may be several",
    )
    group.add_argument(
        "--searches", metavar="YAML", help="searches with options of their own: 'head:method: {beam: 4}'"
    )
    for name, option in OPTIONS.items():
        if name in leave_out:
            continue
        flag = "--" + name.replace("_", "-")
        if option.kind is None:
            flag = flag.replace("--", "--no-", 1)
            group.add_argument(flag, dest=name, action="store_false", default=argparse.SUPPRESS, help=option.help)
        else:
            group.add_argument(flag, type=option.kind, default=argparse.SUPPRESS, help=option.help)


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """The searches' options that were given."""
    return {name: getattr(args, name) for name in OPTIONS if hasattr(args, name)}


def wanted_searches(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The searches that were asked for, by name, with options of their own; lists in the YAML file are refused."""
    found: dict[str, dict[str, Any]] = {name: {} for name in args.search}
    if args.searches:
        for name, options in read_searches(args.searches).items():
            several = next((key for key, values in options.items() if len(values) > 1), None)
            if several:
                raise UserError(
                    f"{args.searches}: {name}: {several} is a list: choose from it with steps.tune, or give one value."
                )
            found[name] = {key: value for key, (value,) in options.items()}
    return found


def read_searches(path: str) -> dict[str, dict[str, list]]:
    """A YAML file of searches by `<head>:<method>`: of each option the values that are to be tried, one or several.

    Errors: `UserError` naming the search and the option for a value that it cannot have.
    """
    found = {}
    for name, options in load_yaml(path).items():
        options = options if options is not None else {}
        if not isinstance(options, Mapping):
            raise UserError(f"{path}: {name} must hold its options, such as {{beam: 4}}, found {options!r}.")
        found[name] = {}
        for key, values in options.items():
            if key not in OPTIONS:
                raise UserError(f"{path}: {name}: no search has an option '{key}'{nearest(str(key), OPTIONS)}.")
            values = values if isinstance(values, list) else [values]
            if not values:
                raise UserError(f"{path}: {name}: {key} is an empty list: give the values to try.")
            found[name][key] = [_value(path, name, key, value) for value in values]
    return found


def _value(path: str, name: str, key: str, value: Any) -> Any:
    kind = OPTIONS[key].kind
    if kind is None:
        if not isinstance(value, bool):
            raise UserError(f"{path}: {name}: {key} is {value!r}: give true or false.")
        return value
    try:
        if isinstance(value, bool | dict | list | None):
            raise ValueError
        return kind(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"{path}: {name}: {key} is {value!r}: {error or 'give a number'}.") from None
