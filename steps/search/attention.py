"""Searches for heads that write token by token (attention, llm): greedy and beam, batched, with a cache.

A head gives `start(encoder_out, lens) -> state` and `log_probs(tokens (N, B, U), state) -> (N, B, V)`, the state then
holding these tokens; `state.reorder(source (N, B))` and `state.keep(utterances)` follow the beams. Its `eos_id` ends a
text, which does not begin with one of its `not_first`; `positions` are the most tokens that it takes, prompt and
`speech_positions(frames)` included (None: no limit). Beam search as in ESPnet and Whisper; scores jointly with a CTC
head as in Watanabe et al. 2017 (IEEE JSTSP 11(8), section IV).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steps.search.beams import NEG_INF, top_k
from steps.search.ctc_prefix import CtcPrefixScorer
from steps.search.hypothesis import Hypothesis


@dataclass(frozen=True)
class Limits:
    """What texts may be: at most `max_length_ratio` tokens a frame of the encoder and `max_tokens`, at least
    `min_tokens`, without any `no_repeat_ngram` tokens twice (0: they may), and not beginning with `not_first`."""

    max_length_ratio: float
    max_tokens: int
    min_tokens: int = 0
    no_repeat_ngram: int = 0
    not_first: tuple[int, ...] = ()

    def longest(self, lens: Tensor) -> Tensor:
        """The most tokens that each utterance may have `(N,)`."""
        return (lens * self.max_length_ratio).ceil().long().clamp(min=1, max=self.max_tokens)

    def allow(self, log_probs: Tensor, tokens: Tensor, longest: Tensor, eos: int) -> Tensor:
        """`log_probs (N, B, V)` of what follows `tokens (N, B, length)`, -inf for what must not."""
        length, vocab = tokens.shape[2], log_probs.shape[2]
        is_end = torch.arange(vocab, device=log_probs.device) == eos
        if not length and self.not_first:
            log_probs = log_probs.index_fill(2, torch.tensor(self.not_first, device=log_probs.device), NEG_INF)
        if length < self.min_tokens:
            log_probs = log_probs.masked_fill(is_end, NEG_INF)
        if self.no_repeat_ngram:
            log_probs = log_probs.masked_fill(repeated(tokens, self.no_repeat_ngram, vocab), NEG_INF)
        return log_probs.masked_fill((longest <= length)[:, None, None] & ~is_end, NEG_INF)


def attention_greedy(
    head: nn.Module, encoder_out: Tensor, lens: Tensor, prompts: Tensor, max_length_ratio: float = 1.0, max_tokens=200
) -> list[list[Hypothesis]]:
    """The most probable token at each step. `encoder_out (N, T, D)`, `lens (N,)`, `prompts (N, P)`."""
    limits = {"max_length_ratio": max_length_ratio, "max_tokens": max_tokens}
    return attention_beam_search(head, encoder_out, lens, prompts, beam=1, length_penalty=0.0, **limits)


def attention_beam_search(
    head: nn.Module,
    encoder_out: Tensor,
    lens: Tensor,
    prompts: Tensor,
    beam: int = 4,
    nbest: int = 1,
    length_penalty: float = 1.0,
    min_tokens: int = 0,
    max_length_ratio: float = 1.0,
    max_tokens: int = 200,
    no_repeat_ngram: int = 0,
    ctc_log_probs: Tensor | None = None,
    ctc_weight: float = 0.0,
) -> list[list[Hypothesis]]:
    """The `nbest` best texts of each utterance, best first.

    `encoder_out (N, T, D)`, `lens (N,)`, `prompts (N, P)` with P at least 1. Finished hypotheses are ranked by their
    score over ((5 + length) / 6) ** length_penalty (Wu et al. 2016, arXiv:1609.08144, eq. 14); an utterance is
    finished when it has `beam` texts and no open one is better than the best of them so far (end detection).
    `no_repeat_ngram` n: no n tokens come twice; this and `min_tokens` give way where no text is left otherwise. With
    `ctc_log_probs (N, T, V)` of the same tokens, a text's score is (1 - ctc_weight) attention + ctc_weight CTC, with
    ctc_weight below 1. `score` in nats; `frames` of tokens are 0: attention has none.
    """
    limits = Limits(max_length_ratio, max_tokens, min_tokens, no_repeat_ngram, head.not_first)
    search = _Beams.start(head, encoder_out, lens, prompts, beam, limits, length_penalty)
    if ctc_log_probs is not None and ctc_weight > 0:
        search.ctc = CtcPrefixScorer(ctc_log_probs, lens, beam, ctc_weight, head.eos_id)
    while search.step():
        pass
    ranked = [_ranked(found, nbest) for found in search.found]
    if none := [place for place, hypotheses in enumerate(ranked) if not hypotheses]:
        ctc = None if ctc_log_probs is None else ctc_log_probs[none]
        free = (head, encoder_out[none], lens[none], prompts[none], beam, nbest, length_penalty)
        again = attention_beam_search(*free, 0, max_length_ratio, max_tokens, 0, ctc, ctc_weight)
        for place, hypotheses in zip(none, again, strict=True):
            ranked[place] = hypotheses
    return ranked


def _room(head: nn.Module, lens: Tensor, prompts: Tensor) -> Tensor:
    """The most tokens that fit behind the speech and the prompt of each utterance `(N,)`, at least 1."""
    if head.positions is None:
        return torch.full_like(lens, torch.iinfo(lens.dtype).max)
    spoken = torch.tensor([head.speech_positions(frames) for frames in lens.tolist()], device=lens.device)
    return (head.positions - prompts.shape[1] - spoken).clamp(min=1)


def _ranked(found: list[tuple[float, Hypothesis]], nbest: int) -> list[Hypothesis]:
    return [hypothesis for _, hypothesis in sorted(found, key=lambda pair: -pair[0])[:nbest]]


@dataclass
class _Beams:
    """Open hypotheses `(N', beam, ...)` of the unfinished utterances `place (N',)`, and all finished ones."""

    head: nn.Module
    state: object
    limits: Limits
    length_penalty: float
    place: Tensor
    longest: Tensor  # (N',)
    new: Tensor  # (N', beam, U): tokens that the state does not hold yet
    tokens: Tensor  # (N', beam, length)
    token_scores: Tensor  # (N', beam, length)
    scores: Tensor  # (N', beam), -inf: none
    found: list[list[tuple[float, Hypothesis]]]
    ctc: CtcPrefixScorer | None = None

    @classmethod
    def start(
        cls,
        head: nn.Module,
        encoder_out: Tensor,
        lens: Tensor,
        prompts: Tensor,
        beam: int,
        limits: Limits,
        length_penalty: float,
    ) -> _Beams:
        batch, device = len(lens), encoder_out.device
        prompts = prompts.to(device)
        scores = torch.full((batch, beam), NEG_INF, device=device)
        scores[:, 0] = 0.0
        empty = torch.zeros(batch, beam, 0, dtype=torch.int64, device=device)
        state = head.start(encoder_out, lens)
        return cls(
            head,
            state,
            limits,
            length_penalty,
            torch.arange(batch, device=device),
            torch.minimum(limits.longest(lens), _room(head, lens, prompts)),
            prompts[:, None].expand(-1, beam, -1),
            empty,
            empty.float(),
            scores,
            [[] for _ in range(batch)],
        )

    def step(self) -> bool:
        """One more token for every open hypothesis; False when all utterances are finished."""
        if not len(self.place):
            return False
        length, eos = self.tokens.shape[2], self.head.eos_id
        log_probs = self.head.log_probs(self.new, self.state)
        log_probs = self.limits.allow(log_probs, self.tokens, self.longest, eos)
        beam, vocab = self.scores.shape[1], log_probs.shape[2]
        combined = self.scores[..., None] + log_probs
        if self.ctc is not None:
            combined = self.ctc.combine(self.scores, log_probs)
        # twice as many as go on: as many as `beam` of them may be ends
        scores, chosen = top_k(combined.flatten(1), min(2 * beam, beam * vocab))
        source = torch.div(chosen, vocab, rounding_mode="floor")
        token = chosen - source * vocab
        token_scores = log_probs.flatten(1).gather(1, chosen)
        self._finish(scores, source, token == eos, length)
        self._go_on(scores, source, token, token_scores, eos)
        return bool(len(self.place))

    def _finish(self, scores: Tensor, source: Tensor, ended: Tensor, length: int) -> None:
        """Keep the hypotheses that end here, among the best `beam` of their utterance."""
        beam = self.scores.shape[1]
        ended = ended & (scores > NEG_INF)
        ended[:, beam:] = False
        if not ended.any():
            return
        rows, columns = ended.nonzero(as_tuple=True)
        kept = source[rows, columns]
        tokens = self.tokens[rows, kept].tolist()
        token_scores = self.token_scores[rows, kept].tolist()
        norm = ((5 + max(length, 1)) / 6) ** self.length_penalty
        table = zip(self.place[rows].tolist(), tokens, token_scores, scores[rows, columns].tolist(), strict=True)
        for place, sequence, values, score in table:
            self.found[place].append((score / norm, Hypothesis(sequence, [0] * len(sequence), score, values)))

    def _go_on(self, scores: Tensor, source: Tensor, token: Tensor, token_scores: Tensor, eos: int) -> None:
        """The best `beam` that do not end; utterances that are finished are left out."""
        beam = self.scores.shape[1]
        scores, order = top_k(scores.masked_fill(token == eos, NEG_INF), beam)
        source, token, token_scores = (x.gather(1, order) for x in (source, token, token_scores))
        index = source[..., None].expand(-1, -1, self.tokens.shape[2])
        self.tokens = torch.cat((self.tokens.gather(1, index), token[..., None]), dim=2)
        self.token_scores = torch.cat((self.token_scores.gather(1, index), token_scores[..., None]), dim=2)
        self.scores, self.new = scores, token[..., None]
        self.state.reorder(source)
        if self.ctc is not None:
            self.ctc.advance(source, token)
        open_ = self._open()
        self.scores = self.scores.masked_fill(~open_[:, None], NEG_INF)
        if 2 * int(open_.sum()) <= len(open_):  # not at every end: it copies what is kept of the others
            rows = open_.nonzero().squeeze(1)
            self.state.keep(rows)
            for name in ("place", "longest", "new", "tokens", "token_scores", "scores"):
                setattr(self, name, getattr(self, name)[rows])
            if self.ctc is not None:
                self.ctc.keep(rows)

    def _open(self) -> Tensor:
        """Which utterances can still get a text that they want `(N',)`."""
        beam, length = self.scores.shape[1], self.tokens.shape[2]
        best_open = self.scores.max(dim=1).values.tolist()
        norm = ((5 + length) / 6) ** self.length_penalty  # of today's length: that of the longest would end nothing
        keep = []
        for place, score in zip(self.place.tolist(), best_open, strict=True):
            ranks = sorted((value for value, _ in self.found[place]), reverse=True)
            keep.append(score > NEG_INF and (len(ranks) < beam or score / norm > ranks[0]))
        return torch.tensor(keep, device=self.scores.device)


def repeated(tokens: Tensor, size: int, vocab: int) -> Tensor:
    """`(N, B, vocab)` bool: tokens that would complete a run of `size` tokens that `tokens (N, B, U)` has already."""
    banned = torch.zeros(*tokens.shape[:2], vocab, dtype=torch.bool, device=tokens.device)
    length = tokens.shape[2]
    if length < size:
        return banned
    windows = tokens.unfold(2, size, 1)  # (N, B, U - size + 1, size)
    tail = tokens[..., length - size + 1 :][:, :, None]
    same = (windows[..., :-1] == tail).all(dim=3)
    hits = torch.zeros_like(banned, dtype=torch.int64).scatter_add_(2, windows[..., -1], same.long())
    return hits > 0
