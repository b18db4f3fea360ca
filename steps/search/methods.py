"""The searches by the name of a head's type and of the method, with the options that each takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.search.attention import attention_beam_search, attention_greedy
from steps.search.ctc import ctc_greedy, ctc_prefix_beam
from steps.search.fast_beam import transducer_fast_beam, transducer_fast_beam_nbest
from steps.search.fusion import TokenScorer
from steps.search.hypothesis import Hypothesis
from steps.search.nbest import ctc_graph, ctc_nbest, ctc_topology
from steps.search.rescoring import RESCORED, ctc_rescore, rescoring
from steps.search.spoken import Spoken
from steps.search.transducer import InternalLm, modified_beam_search, transducer_greedy
from steps.search.wfst import ctc_wfst
from steps.search.whole_lattice import ctc_whole_lattice


@dataclass(frozen=True)
class Method:
    """`search(spoken, head's name, **options)` to lists of hypotheses, best first."""

    search: Callable[..., list[list[Hypothesis]]]
    options: dict[str, Any]  # with their defaults
    needs: tuple[str, ...] = ()  # options that must be given; of "one|another" one is enough
    files: Mapping[str, str] = field(default_factory=dict)  # options with files of a kind that their name does not say
    by_default: bool = True  # whether it is one of all methods of a head


def _with_log_probs(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, **options: Any) -> list[list[Hypothesis]]:
        return search(spoken.log_probs(key), spoken.encoded.lens, **options)

    return call


def _with_modules(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, **options: Any) -> list[list[Hypothesis]]:
        head, encoder_out, lens = spoken.at(key)
        return search(head.decoder, head.joiner, encoder_out, lens, **options)

    return call


_FUSION = {
    **{"lm": "", "lm_scale": 0.3, "subtract_lm": "", "subtract_scale": 0.2},
    **{"hotwords": "", "hotwords_scale": 1.5},
}
Scorers = list[tuple[TokenScorer, float]]


def _scorers(options: dict[str, Any]) -> tuple[Scorers, dict[str, Any]]:
    """What language models and hotwords add, and the other options."""
    signs = {"lm": 1, "subtract_lm": -1, "hotwords": 1}
    scales = {name: sign * options[name.replace("_lm", "") + "_scale"] for name, sign in signs.items()}
    scorers = [(options[name], scale) for name, scale in scales.items() if options[name] and scale]
    return scorers, {key: value for key, value in options.items() if key not in _FUSION}


def _prefix_beam(spoken: Spoken, key: str, **options: Any) -> list[list[Hypothesis]]:
    scorers, options = _scorers(options)
    return ctc_prefix_beam(spoken.log_probs(key), spoken.encoded.lens, scorers=scorers, **options)


def _modified_beam(spoken: Spoken, key: str, ilm_scale: float, **options: Any) -> list[list[Hypothesis]]:
    head, encoder_out, lens = spoken.at(key)
    scorers, options = _scorers(options)
    if ilm_scale:
        scorers.append((InternalLm(head.decoder, head.joiner), -ilm_scale))
    return modified_beam_search(head.decoder, head.joiner, encoder_out, lens, scorers=scorers, **options)


def _with_prompts(search: Callable) -> Callable:
    def call(spoken: Spoken, key: str, ctc_head: str = "", **options: Any) -> list[list[Hypothesis]]:
        if ctc_head:
            options["ctc_log_probs"] = spoken.log_probs(ctc_head)
        return search(*spoken.at(key), spoken.prompts[key], **options)

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
_BEAMS = {"lattice_scale": 1.0, "search_beam": 20.0, "output_beam": 8.0, "max_active": 10000}
_LATTICE = {**_BEAMS, "nbest": 1, "num_paths": 100, "nbest_scale": 0.5}
_GRAPH = {"graph": "", "lm_scale": 1.0, **_LATTICE}
_SOURCE = "rescore_lm|attention_head|mbr_scale"
_CTC_RESCORED = {key: value for key, value in RESCORED.items() if not key.startswith("ctc_")}
_PREFIX_BEAM = {"beam": 4, "nbest": 1, **_FUSION}
_MODIFIED_BEAM = {**_PREFIX_BEAM, "blank_penalty": 0.0, "temperature": 1.0, "length_norm": True, "ilm_scale": 0.0}
_FAST_BEAM = {
    **{"graph": "", "lm_scale": 0.01, "search_beam": 20.0, "max_states": 64, "max_contexts": 8},
    **{"blank_penalty": 0.0, "temperature": 1.0},
}
METHODS: dict[str, dict[str, Method]] = {
    "attention": _AUTOREGRESSIVE,
    "ctc": {
        "greedy": Method(_with_log_probs(ctc_greedy), {}),
        "h": Method(ctc_topology, {"topology": "", **_LATTICE}, needs=("topology",)),
        "hlg": Method(ctc_graph, {**_GRAPH, "confidence_scale": 0.1}, needs=("graph",)),
        "nbest": Method(ctc_nbest, {**_GRAPH, "mbr_scale": 0.0}, needs=("graph",)),
        "whole_lattice": Method(
            ctc_whole_lattice, {"graph": "", "rescore_graph": "", "lm_scale": 1.0, **_BEAMS}, ("graph", "rescore_graph")
        ),
        "rescore": Method(ctc_rescore, {**_GRAPH, **_CTC_RESCORED}, ("graph", _SOURCE)),
        "wfst": Method(
            _with_log_probs(ctc_wfst),
            {"graph": "", "lm_scale": 1.0, "search_beam": 20.0, "max_active": 10000},
            needs=("graph",),
            files={"graph": "HLG.fst"},
            by_default=False,
        ),
        "prefix_beam": Method(_prefix_beam, _PREFIX_BEAM),
        "prefix_rescore": Method(rescoring(_prefix_beam), {**_PREFIX_BEAM, **_CTC_RESCORED}, (_SOURCE,)),
    },
    "llm": _AUTOREGRESSIVE,
    "transducer": {
        "fast_beam": Method(transducer_fast_beam, _FAST_BEAM, files={"graph": "LG"}),
        "fast_beam_nbest": Method(
            transducer_fast_beam_nbest,
            {**_FAST_BEAM, "nbest": 1, "num_paths": 200, "nbest_scale": 0.5, "mbr_scale": 0.0},
            files={"graph": "LG"},
        ),
        "greedy": Method(_with_modules(transducer_greedy), {"max_symbols": 1, "blank_penalty": 0.0}),
        "modified_beam": Method(_modified_beam, _MODIFIED_BEAM),
        "rescore": Method(rescoring(_modified_beam), {**_MODIFIED_BEAM, **RESCORED}, (f"{_SOURCE}|ctc_head",)),
    },
}
