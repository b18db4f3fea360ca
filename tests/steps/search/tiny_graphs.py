"""Tiny graphs, all that they allow counted out, and model outputs for searches to work on."""

from __future__ import annotations

import itertools
from functools import cache
from types import SimpleNamespace

import numpy as np
import torch

from steps.lang.hlg import compose_hlg, compose_lg
from steps.lang.lexicon import BACKOFF, disambiguated, lexicon_graph
from steps.lang.tables import word_table
from steps.lm.grammar import grammar
from steps.lm.kneser_ney import estimate, vocabulary
from steps.nets.speech import Encoded
from steps.search.lattice import DecodingGraph
from steps.search.spoken import Spoken

ENTRIES = [("a", ("x",)), ("ab", ("x", "y")), ("b", ("y",)), ("bee", ("y",)), ("aa", ("x", "x"))]
TEXT = [["a", "b"], ["ab"], ["ab", "a"], ["bee", "a"], ["b", "b"], ["aa", "b"], ["a"], ["a", "bee", "ab"]]
TOKENS = ["<blk>", "x", "y"]


def language_model(order: int):
    """An n-gram model of this order."""
    return estimate(TEXT, order, vocabulary(TEXT)).model


def parts(order: int):
    """The arcs of L and of G, the words, and how many `#` there are, over an n-gram model of this order."""
    words = word_table(vocabulary(TEXT))
    spelled, highest = disambiguated(ENTRIES)
    table = [*TOKENS, *(f"#{i}" for i in range(highest + 1))]
    g, _ = grammar(language_model(order), words)
    return lexicon_graph(spelled, table, words, loops=True), g, words, highest + 1


def graphs(order: int):
    """LG, the arcs of its G, and the words, over an n-gram model of this order."""
    lexicon, g, words, _ = parts(order)
    return compose_lg(lexicon.to_k2(), g.to_k2(acceptor=True), len(TOKENS), words.index(BACKOFF)), g, words


def decoding_graph(order: int) -> DecodingGraph:
    """HLG over an n-gram model of this order."""
    lg, _, words = graphs(order)
    return DecodingGraph(compose_hlg(lg, len(TOKENS)), words)


def sentence_scores(g, words: list[str], longest: int) -> dict[tuple[int, ...], float]:
    """The best path of G for every sentence of up to `longest` words."""
    spoken = [words.index(word) for word, _ in ENTRIES]
    backoff, end = words.index(BACKOFF), int(g.target.max())

    leaving: dict[int, list[tuple[int, int, float]]] = {}
    for source, *arc in zip(g.source.tolist(), g.label.tolist(), g.target.tolist(), g.score.tolist(), strict=True):
        leaving.setdefault(source, []).append(tuple(arc))

    @cache
    def best(state: int, rest: tuple[int, ...]) -> float:
        found = [-np.inf]
        for label, target, score in leaving.get(state, []):
            if label == backoff:
                found.append(score + best(target, rest))
            elif label == -1 and not rest and target == end:
                found.append(score)
            elif rest and label == rest[0]:
                found.append(score + best(target, rest[1:]))
        return max(found)

    sentences = itertools.chain(*(itertools.product(spoken, repeat=n) for n in range(longest + 1)))
    return {sentence: best(0, sentence) for sentence in sentences}


def acoustic_scores(log_probs, length: int) -> dict[tuple[int, ...], float]:
    """The best alignment of every sequence of tokens with the first `length` of the frames `(frames, tokens)`."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=length):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token)
        score = sum(float(log_probs[t, token]) for t, token in enumerate(path))
        found[tokens] = max(found.get(tokens, -np.inf), score)
    return found


def sentence_tokens(sentence: tuple[int, ...], words: list[str]) -> tuple[int, ...]:
    """The tokens of these words."""
    spelled = {words.index(word): tuple(TOKENS.index(t) for t in tokens) for word, tokens in ENTRIES}
    return tuple(token for word in sentence for token in spelled[word])


def all_paths(graph: DecodingGraph, log_probs, length: int) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """Every way through the graph in `length` of the frames: (model's, graph's score) by the words that it writes."""
    hlg = graph.hlg
    ragged = not isinstance(hlg.aux_labels, torch.Tensor)
    written = hlg.aux_labels.tolist() if ragged else [[word] for word in hlg.aux_labels.tolist()]
    leaving: dict[int, list] = {}
    for (source, target, label, _), words, score in zip(
        hlg.arcs.values().tolist(), written, hlg.lm_scores.tolist(), strict=True
    ):
        words = tuple(graph.words[word] for word in words if word > 0)
        leaving.setdefault(source, []).append((target, label, words, score))
    frames = log_probs.tolist()
    reached = [(0, (), 0.0, 0.0)]
    for frame in range(length + 1):
        after = []
        for state, said, am, lm in reached:
            for target, label, words, score in leaving.get(state, []):
                if (label == -1) == (frame == length):
                    heard = 0.0 if label == -1 else frames[frame][label]
                    after.append((target, said + words, am + heard, lm + score))
        reached = after
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for _, said, am, lm in reached:
        found.setdefault(said, []).append((am, lm))
    return found


def heard(log_probs, lens, languages=()) -> Spoken:
    """A batch whose CTC head's output is `log_probs (N, T, V)`."""
    head = torch.nn.Module()
    head.config = SimpleNamespace(layer=None)
    head.log_probs = lambda encoder_out: encoder_out
    decode = {"ctc": lambda tokens: "".join(TOKENS[token] for token in tokens)}
    return Spoken({"ctc": head}, Encoded(log_probs, lens), decoders=decode, languages=languages)
