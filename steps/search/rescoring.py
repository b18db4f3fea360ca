"""N-best lists rescored with whatever can score a whole text: language models, an attention decoder, a CTC head."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from steps.objectives.ctc import ctc_loss
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import DecodingGraph, for_k2
from steps.search.nbest import Candidates, shared_nbest
from steps.search.spoken import Spoken

UNKNOWN = 25.0  # nats that a word costs which a language model gives no probability
AT_ONCE = 4  # hypotheses an utterance that an attention decoder scores together
RESCORED = {  # options and their defaults
    **{"nbest": 1, "mbr_scale": 0.0, "rescore_lm": "", "rescore_scale": 0.5},
    **{"attention_head": "", "attention_scale": 0.5, "ctc_head": "", "ctc_scale": 0.5},
}


class TextScorer(Protocol):
    """A language model to which texts are strings (`steps.lm.text_scorer`).

    `score` tells of each text, all `(N,)`: ln p of its `known` words, of the `rest` (-inf where these have no
    probability), and how many these are (`unknown`).
    """

    def score(self, texts: Sequence[str], languages: Sequence[str | None] | None = None) -> Any: ...


def ctc_rescore(
    spoken: Spoken,
    key: str,
    graph: DecodingGraph,
    lm_scale: float = 1.0,
    **options: Any,
) -> list[list[Hypothesis]]:
    """N-best lists of lattices, rescored: the model's score, the graph's `lm_scale` times, and what `rescored` adds.

    The options are those of `rescored` and of `shared_nbest`.
    """
    options, lists = _own(options)
    with for_k2():
        candidates = shared_nbest(spoken, key, graph, **lists)
    scores = candidates.part("am") + lm_scale * candidates.part("lm")
    return rescored(spoken, (key, graph, *sorted(lists.items())), candidates, scores, **options)


def rescoring(search: Callable[..., list[list[Hypothesis]]]) -> Callable[..., list[list[Hypothesis]]]:
    """A beam search `search(spoken, key, ...)` whose whole beam is then rescored."""

    def call(spoken: Spoken, key: str, beam: int = 4, **options: Any) -> list[list[Hypothesis]]:
        options, first = _own(options)

        def make() -> Candidates:
            found = search(spoken, key, beam=beam, nbest=beam, **first)
            lists = [[replace(one, parts={"first": one.score}) for one in hypotheses] for hypotheses in found]
            texts = [[spoken.text(key, one) for one in hypotheses] for hypotheses in lists]
            return Candidates(lists, texts, [hypotheses[0] for hypotheses in lists])

        name = (key, search, beam, *sorted(first.items()))
        candidates = spoken.once(("nbest", *name), make)
        return rescored(spoken, name, candidates, candidates.part("first"), **options)

    return call


def _own(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `rescored` takes of the options, and the others."""
    return {k: v for k, v in options.items() if k in RESCORED}, {k: v for k, v in options.items() if k not in RESCORED}


def rescored(
    spoken: Spoken,
    name: Hashable,
    candidates: Candidates,
    scores: Tensor,
    nbest: int = 1,
    mbr_scale: float = 0.0,
    **sources: Any,
) -> list[list[Hypothesis]]:
    """The best of `candidates` after `scores (hypotheses of all,)` have got what others say, each with its scale.

    Others, `sources`, are those of `RESCORED`: a `TextScorer`, and heads whose tokens are the candidates'. They are
    asked once for all searches with candidates of this `name`.
    """
    more = {}
    for part, (option, score) in SOURCES.items():
        source, scale = sources.get(option), sources.get(f"{part}_scale")
        if source and scale:
            more[part] = spoken.once((part, source, name), partial(score, spoken, source, candidates))
            scores = scores + scale * more[part]
    return candidates.ranked(scores, nbest, mbr_scale, more)


def text_scores(spoken: Spoken, scorer: TextScorer, candidates: Candidates) -> Tensor:
    """ln p of each candidate's text, `(hypotheses of all,)`."""
    rows, texts = candidates.rows(), [text for own in candidates.texts for text in own]
    found = scorer.score(texts, [spoken.languages[row] for row in rows])
    return torch.from_numpy(np.asarray(found.known + np.maximum(found.rest, -UNKNOWN * found.unknown)))


def attention_scores(spoken: Spoken, key: str, candidates: Candidates) -> Tensor:
    """ln p that the attention head gives each candidate's tokens and their end, `(hypotheses of all,)`."""
    head, encoder_out, lens = spoken.at(key)
    rows, tokens = candidates.rows(), candidates.tokens()
    scores, step = torch.zeros(len(rows), dtype=torch.float64), AT_ONCE * max(len(lens), 1)
    order = sorted(range(len(rows)), key=lambda i: len(tokens[i]))
    for start in range(0, len(order), step):
        places = order[start : start + step]
        own = torch.tensor([rows[i] for i in places])
        padded, sizes = _padded([tokens[i] for i in places])
        here = own.to(encoder_out.device)
        heard = encoder_out[here], lens[own.to(lens.device)].clamp(min=1), spoken.prompts[key][own]
        scores[places] = head.score(*heard, padded, sizes).double().cpu()
    return scores


def ctc_scores(spoken: Spoken, key: str, candidates: Candidates) -> Tensor:
    """ln p that the CTC head gives each candidate's tokens over all alignments, `(hypotheses of all,)`."""
    log_probs, lens = spoken.log_probs(key), spoken.encoded.lens
    rows = torch.tensor(candidates.rows(), dtype=torch.int64)
    padded, sizes = _padded(candidates.tokens())
    here = rows.to(log_probs.device)
    costs = ctc_loss(log_probs[here], lens[rows.to(lens.device)], padded.to(here.device), sizes).double().cpu()
    if not padded.shape[1]:
        return -costs
    repeats = ((padded[:, 1:] == padded[:, :-1]) & (torch.arange(1, padded.shape[1]) < sizes[:, None])).sum(1)
    fits = sizes + repeats <= lens.cpu()[rows]  # the cost of what does not is 0
    return torch.where(fits, -costs, -UNKNOWN * sizes)


# part of the score -> the option that says who gives it, and how
SOURCES: dict[str, tuple[str, Callable[[Spoken, Any, Candidates], Tensor]]] = {
    "rescore": ("rescore_lm", text_scores),
    "attention": ("attention_head", attention_scores),
    "ctc": ("ctc_head", ctc_scores),
}


def _padded(tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Texts as `(N, U)` and their lengths `(N,)`."""
    sizes = torch.tensor([len(own) for own in tokens])
    padded = torch.zeros(len(tokens), max(map(len, tokens), default=0), dtype=torch.int64)
    for row, own in zip(padded, tokens, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.int64)
    return padded, sizes
