"""The searches by the name of a head's type and of the method, with the options that each takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from steps.search.attention import attention_beam_search, attention_greedy
from steps.search.ctc import ctc_greedy, ctc_prefix_beam
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import DecodingGraph, ctc_hlg
from steps.search.transducer import modified_beam_search, transducer_greedy
from utils.errors import UserError, nearest


@dataclass(frozen=True)
class Spoken:
    """What a search works on: the model's heads, the encoder's output (`steps.nets.speech.Encoded`), for decoders that
    want one the prompt of each utterance `(N, P)`, and graphs by the names that searches have for them."""

    heads: Mapping[str, nn.Module]
    encoded: Any
    prompts: Tensor | None = None
    graphs: Mapping[str, DecodingGraph] = field(default_factory=dict)

    def at(self, key: str) -> tuple[nn.Module, Tensor, Tensor]:
        """A head, what it reads `(N, T, D)`, and the lengths `(N,)`."""
        head = self.heads[key]
        return head, self.encoded.at(head.config.layer), self.encoded.lens

    def log_probs(self, key: str) -> Tensor:
        """`(N, T, V)` of a CTC head."""
        head, encoder_out, _ = self.at(key)
        return head.log_probs(encoder_out)


@dataclass(frozen=True)
class Method:
    """`search(spoken, head's name, **options)` to lists of hypotheses, best first."""

    search: Callable[..., list[list[Hypothesis]]]
    options: dict[str, Any]  # with their defaults
    needs: str = ""  # the option that must be given


def _with_log_probs(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, **options: Any) -> list[list[Hypothesis]]:
        return search(spoken.log_probs(key), spoken.encoded.lens, **options)

    return call


def _with_graph(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, graph: str, **options: Any) -> list[list[Hypothesis]]:
        return search(spoken.log_probs(key), spoken.encoded.lens, spoken.graphs[graph], **options)

    return call


def _with_modules(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, **options: Any) -> list[list[Hypothesis]]:
        head, encoder_out, lens = spoken.at(key)
        return search(head.decoder, head.joiner, encoder_out, lens, **options)

    return call


def _with_prompts(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, ctc_head: str = "", **options: Any) -> list[list[Hypothesis]]:
        if ctc_head:
            options["ctc_log_probs"] = spoken.log_probs(ctc_head)
        return search(*spoken.at(key), spoken.prompts, **options)

    return call


_ATTENTION = {"max_length_ratio": 1.0, "max_tokens": 200}
_AUTOREGRESSIVE = {
    "greedy": Method(_with_prompts(attention_greedy), _ATTENTION),
    "beam": Method(
        _with_prompts(attention_beam_search),
        {
            "beam": 4,
            "nbest": 1,
            "length_penalty": 1.0,
            "min_tokens": 0,
            "no_repeat_ngram": 0,
            "ctc_head": "",
            "ctc_weight": 0.3,
            **_ATTENTION,
        },
    ),
}
METHODS: dict[str, dict[str, Method]] = {
    "attention": _AUTOREGRESSIVE,
    "ctc": {
        "greedy": Method(_with_log_probs(ctc_greedy), {}),
        "hlg": Method(
            _with_graph(ctc_hlg),
            {"graph": "", "lm_scale": 1.0, "search_beam": 20.0, "output_beam": 8.0, "max_active": 10000},
            needs="graph",
        ),
        "prefix_beam": Method(_with_log_probs(ctc_prefix_beam), {"beam": 4, "nbest": 1}),
    },
    "llm": _AUTOREGRESSIVE,
    "transducer": {
        "greedy": Method(_with_modules(transducer_greedy), {"max_symbols": 1, "blank_penalty": 0.0}),
        "modified_beam": Method(
            _with_modules(modified_beam_search),
            {"beam": 4, "nbest": 1, "blank_penalty": 0.0, "temperature": 1.0, "length_norm": True},
        ),
    },
}


@dataclass(frozen=True)
class Search:
    """One method on one head of a model, with the options it runs with."""

    head: str
    method: str
    options: dict[str, Any]
    call: Callable[..., list[list[Hypothesis]]]

    @property
    def name(self) -> str:
        """`<head>:<method>`, as on the command line."""
        return f"{self.head}:{self.method}"

    def __call__(self, spoken: Spoken) -> list[list[Hypothesis]]:
        return self.call(spoken, self.head, **self.options)


def plan_searches(names: Iterable[str], heads: dict[str, str], options: dict[str, Any], model: str) -> list[Search]:
    """The searches called `<head>:<method>`; without names, every method of every head that has all it needs.

    `heads` maps a model's heads to their types; `options` are those given by the user; `model` is named in errors.
    Errors: `UserError` for unknown heads and methods, and for options that none of the searches takes.
    """
    names = list(dict.fromkeys(names)) or [
        f"{head}:{name}"
        for head in heads
        for name, method in METHODS[heads[head]].items()
        if not method.needs or options.get(method.needs)
    ]
    searches = []
    for name in names:
        head, _, method = name.partition(":")
        known = METHODS[_known_head(head, heads, model)]
        if method not in known:
            wrong = f", not '{method}'{nearest(method, known)}" if method else ""
            choices = " or ".join(f"{head}:{choice}" for choice in known)
            raise UserError(f"--search {name}: give {choices}{wrong}.")
        if (needed := known[method].needs) and not options.get(needed):
            raise UserError(f"--search {name} wants --{needed}: give it, or another search.")
        defaults = known[method].options
        chosen = {**defaults, **{key: value for key, value in options.items() if key in defaults}}
        searches.append(Search(head, method, chosen, known[method].search))
    _check_options(searches, options, heads)
    return searches


def _known_head(head: str, heads: dict[str, str], model: str) -> str:
    if head not in heads:
        there = ", ".join(heads)
        raise UserError(f"--search: {model} has no head '{head}'{nearest(head, heads)}; its heads: {there}.")
    return heads[head]


def _check_options(searches: list[Search], options: dict[str, Any], heads: dict[str, str]) -> None:
    for key in options:
        if not any(key in search.options for search in searches):
            takers = [f"{t}:{m}" for t, methods in METHODS.items() for m in methods if key in methods[m].options]
            raise UserError(
                f"--{key.replace('_', '-')} does nothing for {', '.join(s.name for s in searches)}: "
                f"it is an option of {', '.join(takers)}."
            )
    for search in searches:
        if search.options.get("nbest", 1) > search.options.get("beam", 1):
            raise UserError(f"--nbest {search.options['nbest']} is more than --beam {search.options['beam']} can hold.")
        if (ctc := search.options.get("ctc_head")) and heads.get(ctc) != "ctc":
            raise UserError(f"--ctc-head {ctc}: the model has no CTC head of that name{nearest(ctc, heads)}.")
