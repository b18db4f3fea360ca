"""Searches as the user asks for them: a method of a head, its options, and the name of what it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steps.search.hypothesis import Hypothesis
from steps.search.methods import METHODS, Method
from steps.search.spoken import Spoken
from utils.errors import UserError, nearest

HEAD_OPTIONS = {"ctc_head": "ctc", "attention_head": "attention"}  # options that name another head, of this type


# options that scale what others bring
SCALES = {
    "lm_scale": ("lm", "graph"),
    "subtract_scale": ("subtract_lm",),
    "hotwords_scale": ("hotwords",),
    "rescore_scale": ("rescore_lm",),
    "attention_scale": ("attention_head",),
    "ctc_scale": ("ctc_head",),
    "ctc_weight": ("ctc_head",),
}


@dataclass(frozen=True)
class Search:
    """One method on one head of a model, with the options it runs with; `label` is the method with what the user
    calls this use of it, such as `modified_beam+lm`."""

    head: str
    label: str
    options: dict[str, Any]
    method: Method

    @property
    def name(self) -> str:
        """`<head>:<label>`, as on the command line."""
        return f"{self.head}:{self.label}"

    def others(self) -> dict[str, str]:
        """The other heads that it uses, by option."""
        return {option: self.options[option] for option in HEAD_OPTIONS if self.options.get(option)}

    def place(self, option: str) -> tuple[str, str, Any]:
        """Where what an option's file holds is kept: head, kind of file, file."""
        return self.head, self.method.files.get(option, option), self.options[option]

    def __call__(self, spoken: Spoken) -> list[list[Hypothesis]]:
        """Hypotheses of each utterance, best first; options that name files are replaced by what these hold."""
        options = {key: spoken.loaded.get(self.place(key), value) for key, value in self.options.items()}
        return self.method.search(spoken, self.head, **options)


def plan_searches(
    names: Iterable[str] | Mapping[str, Mapping[str, Any]], heads: dict[str, str], options: dict[str, Any], model: str
) -> list[Search]:
    """The searches called `<head>:<method>` or `<head>:<method>+<any word>`, which may have options of their own;
    without names, every method of every head that has all it needs, and the files that it may have.

    `heads` maps a model's heads to their types; `options` are those given by the user for all; `model` is named in
    errors. Errors: `UserError` for unknown heads and methods, and for options that none of the searches takes.
    """
    own = dict(names) if isinstance(names, Mapping) else {name: {} for name in names}
    own = own or {
        f"{head}:{name}": {}
        for head in heads
        for name, method in METHODS[heads[head]].items()
        if method.by_default and not _lacking(method, options) and all(options.get(key) for key in method.files)
    }
    searches = []
    for name, extra in own.items():
        head, _, label = name.partition(":")
        known = METHODS[_known_head(head, heads, model)]
        method = label.partition("+")[0]
        if method not in known:
            wrong = f", not '{method}'{nearest(method, known)}" if method else ""
            choices = " or ".join(f"{head}:{choice}" for choice in known)
            raise UserError(f"--search {name}: give {choices}{wrong}.")
        _check_options([(name, known[method])], extra)
        given = {**options, **extra}
        for needed in _lacking(known[method], given):
            wanted = " or ".join(f"--{_option(key)}" for key in needed.split("|"))
            raise UserError(f"--search {name} wants {wanted}: give it, or another search.")
        defaults = known[method].options
        chosen = {**defaults, **{key: value for key, value in given.items() if key in defaults}}
        searches.append(Search(head, label, chosen, known[method]))
        _check_scales(searches[-1:], extra)
    _check_options([(search.name, search.method) for search in searches], options)
    _check_scales(searches, options)
    for search in searches:
        _check_values(search, heads)
    return searches


def _check_scales(searches: list[Search], given: Iterable[str]) -> None:
    """`UserError` for a scale of what none of these searches has."""
    for key in given:
        sources = SCALES.get(key, ())
        used = any(key in search.options and any(map(search.options.get, sources)) for search in searches)
        if sources and not used:
            wanted = " or ".join(f"--{_option(source)}" for source in sources)
            names = ", ".join(search.name for search in searches)
            raise UserError(f"--{_option(key)} does nothing for {names} without {wanted}: give it, or leave it out.")


def _option(key: str) -> str:
    return key.replace("_", "-")


def _lacking(method: Method, options: Mapping[str, Any]) -> list[str]:
    """What a method needs and these options do not have."""
    return [needed for needed in method.needs if not any(options.get(key) for key in needed.split("|"))]


def _known_head(head: str, heads: dict[str, str], model: str) -> str:
    if head not in heads:
        there = ", ".join(heads)
        raise UserError(f"--search: {model} has no head '{head}'{nearest(head, heads)}; its heads: {there}.")
    return heads[head]


def _check_options(searches: list[tuple[str, Method]], options: Mapping[str, Any]) -> None:
    """`UserError` for an option that none of the methods of these names has."""
    for key in options:
        if not any(key in method.options for _, method in searches):
            takers = [f"{t}:{m}" for t, methods in METHODS.items() for m in methods if key in methods[m].options]
            raise UserError(
                f"--{_option(key)} does nothing for {', '.join(name for name, _ in searches)}: "
                + (f"it is an option of {', '.join(takers)}." if takers else "no search has such an option.")
            )


def _check_values(search: Search, heads: dict[str, str]) -> None:
    if search.options.get("nbest", 1) > search.options.get("beam", 1 << 30):
        raise UserError(f"--nbest {search.options['nbest']} is more than --beam {search.options['beam']} can hold.")
    for option, kind in HEAD_OPTIONS.items():
        if (other := search.options.get(option)) and heads.get(other) != kind:
            called = "CTC" if kind == "ctc" else kind
            wrong = f"the model has no {called} head of that name{nearest(other, heads)}"
            raise UserError(f"--{_option(option)} {other}: {wrong}.")
