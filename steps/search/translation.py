"""Searches for translators of text: our beam search over an attention head, or the model's own generation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from steps.search.attention import attention_beam_search


@dataclass(frozen=True)
class SearchOptions:
    """How texts are searched for. Lists are ordered by log-probability over a norm of the length: of ours,
    ((5 + length) / 6) ** length_penalty (Wu et al. 2016), of transformers' models length ** length_penalty.
    """

    beam: int = 4
    nbest: int = 1
    length_penalty: float = 1.0
    min_tokens: int = 0
    max_tokens: int = 200
    max_length_ratio: float = 4.0  # tokens a token of the source; ours only
    no_repeat_ngram: int = 0


@dataclass(frozen=True)
class Written:
    """A text as tokens: its log-probability in nats, and that over the norm of its length."""

    tokens: list[int]
    score: float
    rank: float


def search(
    net: nn.Module, source: Tensor, lens: Tensor, prompts: Tensor, start: list[int], options: SearchOptions
) -> list[list[Written]]:
    """The best texts for sources `(batch, tokens)` with their `lens (batch,)`, best first.

    `prompts (batch, P)` is what our decoders are given, `start` what texts of transformers' models begin with.
    """
    if hasattr(net, "generate"):
        return _generated(net, source, lens, start, options)
    encoded = net.encode(source, lens)
    limits = {"max_length_ratio": options.max_length_ratio, "max_tokens": options.max_tokens}
    found = attention_beam_search(
        net.head,
        encoded,
        lens,
        prompts,
        options.beam,
        options.nbest,
        options.length_penalty,
        options.min_tokens,
        no_repeat_ngram=options.no_repeat_ngram,
        **limits,
    )
    return [
        [
            Written(one.tokens, one.score, one.score / ((5 + max(len(one.tokens), 1)) / 6) ** options.length_penalty)
            for one in best
        ]
        for best in found
    ]


def _generated(
    net: nn.Module, source: Tensor, lens: Tensor, start: list[int], options: SearchOptions
) -> list[list[Written]]:
    sequences, ranks, lengths = net.generate(
        source,
        lens,
        start,
        num_beams=options.beam,
        num_return_sequences=options.nbest,
        length_penalty=options.length_penalty,
        min_new_tokens=options.min_tokens,
        max_new_tokens=options.max_tokens,
        no_repeat_ngram_size=options.no_repeat_ngram,
    )
    rows = zip(sequences.tolist(), ranks.tolist(), lengths.tolist(), strict=True)
    found = [Written(tokens, rank * length**options.length_penalty, rank) for tokens, rank, length in rows]
    return [found[place : place + options.nbest] for place in range(0, len(found), options.nbest)]
