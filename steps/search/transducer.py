"""Searches for a transducer head (Graves 2012) with a stateless decoder: greedy, and modified beam search.

`decoder.lookup()` maps the last `decoder.context_size` tokens `(N, context)` to `(N, D)` (-1 stands before the first
token); it knows its `blank_id`; `joiner` has `encoder_proj`, `decoder_proj` and, called with `project_input=False`,
maps their sum to logits `(..., V)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from steps.search.beams import NEG_INF, Prefixes, Trace, top_k
from steps.search.fusion import Fused, State, TokenScorer
from steps.search.hypothesis import Hypothesis, emitted, from_frames

_STEPS_BETWEEN_LOOKS = 16  # steps between two looks (each waits for the device) whether greedy search has finished


def transducer_greedy(
    decoder: nn.Module,
    joiner: nn.Module,
    encoder_out: Tensor,
    lens: Tensor,
    max_symbols: int = 1,
    blank_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """The path that takes the most probable symbol at each step, one hypothesis per utterance.

    `encoder_out (N, T, D)`, `lens (N,)`. A blank moves to the next frame, and so do `max_symbols` tokens at one
    frame, in which case no blank is counted in the `score`. `blank_penalty` (nats) is taken off the blank's logit.
    """
    lens, order = lens.cpu().sort(descending=True, stable=True)
    encoder_out = encoder_out[order.to(encoder_out.device)]
    if max_symbols == 1:
        found = _greedy_by_frame(Predictor(decoder, joiner), encoder_out, lens, blank_penalty)
        return [found[i] for i in order.argsort().tolist()]
    state = _Greedy.start(decoder, joiner, encoder_out, lens)
    longest = int(lens.max()) if len(lens) else 0
    for step in range(longest * max_symbols):
        if step >= longest and (step - longest) % _STEPS_BETWEEN_LOOKS == 0 and state.finished():
            break
        state.step(int((lens * max_symbols > step).sum()), max_symbols, blank_penalty)
    found = state.hypotheses()
    return [found[i] for i in order.argsort().tolist()]


def _greedy_by_frame(
    predictor: Predictor, encoder_out: Tensor, lens: Tensor, blank_penalty: float
) -> list[list[Hypothesis]]:
    """At most one token a frame, so that all utterances are at the same one; `lens (N,)` on the CPU, longest first."""
    joiner, blank, device = predictor.joiner, predictor.decoder.blank_id, encoder_out.device
    encoder_out = joiner.encoder_proj(encoder_out)
    context = predictor.first_context(lens.shape, device)
    out = predictor(context)
    tokens = torch.full(encoder_out.shape[:2], -1, dtype=torch.int64, device=device)
    scores = torch.zeros(encoder_out.shape[:2], device=device)
    batches = (lens > torch.arange(encoder_out.shape[1])[:, None]).sum(dim=1).tolist()
    for t, batch in enumerate(batches):
        if not batch:
            break
        log_probs = symbol_log_probs(joiner, encoder_out[:batch, t], out[:batch], blank, blank_penalty)
        scores[:batch, t], best = log_probs.max(dim=1)
        tokens[:batch, t] = best
        out, context = predictor.advance(out[:batch], context[:batch], best, best != blank)
    return from_frames(tokens.masked_fill(tokens == blank, -1), scores, scores.sum(dim=1))


@dataclass
class _Greedy:
    """N utterances, each at its own frame; all but the trace's entries are `(N, ...)`."""

    predictor: Predictor
    encoder_out: Tensor  # projected
    lens: Tensor
    context: Tensor
    decoder_out: Tensor  # projected
    frame: Tensor  # where each utterance is
    symbols: Tensor  # tokens emitted at that frame
    score: Tensor
    trace: list[tuple[Tensor, Tensor, Tensor]]  # per step: token or -1, its log probability, its frame

    @classmethod
    def start(cls, decoder: nn.Module, joiner: nn.Module, encoder_out: Tensor, lens: Tensor) -> _Greedy:
        encoder_out, lens = joiner.encoder_proj(encoder_out), lens.to(encoder_out.device)
        predictor = Predictor(decoder, joiner)
        context = predictor.first_context(lens.shape, lens.device)
        zeros, score = torch.zeros_like(lens), torch.zeros(lens.shape, device=lens.device)
        nothing = (zeros - 1, score.clone(), zeros.clone())  # a first step for all, even those without a frame
        out = predictor(context)
        return cls(predictor, encoder_out, lens, context, out, zeros, zeros.clone(), score, [nothing])

    def finished(self) -> bool:
        return not bool((self.frame < self.lens).any())

    def step(self, batch: int, max_symbols: int, blank_penalty: float) -> None:
        """One symbol for each of the first `batch` utterances (the others are at their end)."""
        blank, lens, out = self.predictor.decoder.blank_id, self.lens[:batch], self.decoder_out[:batch]
        frame = self.frame[:batch].clone()
        rows = torch.arange(batch, device=lens.device)
        encoder_out = self.encoder_out[rows, frame.clamp(max=self.encoder_out.shape[1] - 1)]
        log_probs = symbol_log_probs(self.predictor.joiner, encoder_out, out, blank, blank_penalty)
        best_score, best = log_probs.max(dim=1)
        active = frame < lens
        emits = active & (best != blank)
        symbols = torch.where(emits, self.symbols[:batch] + 1, 0)
        moves = active & (~emits | (symbols >= max_symbols))
        self.score[:batch] += best_score.masked_fill(~active, 0.0)
        self.frame[:batch] += moves
        self.symbols[:batch] = symbols.masked_fill(moves, 0)
        self.decoder_out, self.context = self.predictor.advance(out, self.context[:batch], best, emits)
        self.trace.append((best.masked_fill(~emits, -1), best_score, frame))

    def hypotheses(self) -> list[list[Hypothesis]]:
        tokens, scores, frames = (
            pad_sequence(list(kind), padding_value=-1).cpu().numpy() for kind in zip(*self.trace, strict=True)
        )
        result = []
        for n, total in enumerate(self.score.cpu().tolist()):
            hypothesis = emitted(tokens[n], scores[n], total)
            hypothesis.frames = frames[n][hypothesis.frames].tolist()  # these were steps
            result.append([hypothesis])
        return result


def modified_beam_search(
    decoder: nn.Module,
    joiner: nn.Module,
    encoder_out: Tensor,
    lens: Tensor,
    beam: int = 4,
    nbest: int = 1,
    temperature: float = 1.0,
    blank_penalty: float = 0.0,
    length_norm: bool = True,
    scorers: Sequence[tuple[TokenScorer, float]] = (),
) -> list[list[Hypothesis]]:
    """Beam search with one symbol per frame, a token or the blank (Kang et al. 2023, "Fast and parallel decoding").

    `encoder_out (N, T, D)`, `lens (N,)`. Paths with the same tokens are one hypothesis with their summed
    probability, before the beam is pruned. Logits are divided by `temperature` after `blank_penalty` (nats) was
    taken off the blank's. `length_norm` ranks the final hypotheses by score per token (the decoder's initial context
    counts, as in icefall); `score` itself is the total. Up to `nbest` per utterance, best first. `scorers` with their
    scales add to the scores of tokens, and to that of the end (`steps.search.fusion`).
    """
    lens, order = lens.cpu().sort(descending=True, stable=True)
    encoder_out = joiner.encoder_proj(encoder_out[order.to(encoder_out.device)])
    state = _start(Predictor(decoder, joiner), len(lens), beam, encoder_out.device, scorers)
    scores, trace = state.ended(), Trace()
    for t in range(int(lens.max()) if len(lens) else 0):
        active = int((lens > t).sum())
        state = state.head(active)
        frame = encoder_out[:active, t].unsqueeze(1).expand(-1, beam, -1)
        log_probs = symbol_log_probs(joiner, frame, state.decoder_out, decoder.blank_id, blank_penalty, temperature)
        state = _step(state, log_probs, trace)
        scores[:active] = state.ended()
    scores, slots = top_k(scores, beam)
    found = trace.hypotheses(scores, slots)
    if length_norm:
        for hypotheses in found:
            hypotheses.sort(key=lambda h: -h.score / (len(h.tokens) + decoder.context_size))
    return [found[i][:nbest] for i in order.argsort().tolist()]


@dataclass
class _Beams:
    """The hypotheses of N utterances; all `(N, beam, ...)`."""

    predictor: Predictor
    prefixes: Prefixes
    scores: Tensor  # log probability, -inf: no hypothesis
    context: Tensor
    decoder_out: Tensor  # projected
    fused: Fused | None = None

    def head(self, batch: int) -> _Beams:
        tensors = (self.scores, self.context, self.decoder_out)
        fused = self.fused and self.fused.head(batch)
        return _Beams(self.predictor, self.prefixes.head(batch), *(x[:batch] for x in tensors), fused)

    def ended(self) -> Tensor:
        """The scores `(N, beam)` if the texts end here."""
        return self.scores.clone() if self.fused is None else self.scores + self.fused.ends


def _start(
    predictor: Predictor,
    batch: int,
    beam: int,
    device: torch.device,
    scorers: Sequence[tuple[TokenScorer, float]],
) -> _Beams:
    context = predictor.first_context((batch, beam), device)
    scores = torch.full((batch, beam), NEG_INF, device=device)
    scores[:, :1] = 0.0
    prefixes = Prefixes.start(batch, beam, predictor.decoder.blank_id, device)
    fused = Fused.start(scorers, batch, beam, predictor.decoder.blank_id) if scorers else None
    return _Beams(predictor, prefixes, scores, context, predictor(context), fused)


def _step(state: _Beams, log_probs: Tensor, trace: Trace) -> _Beams:
    """The beams after one more frame, `log_probs (N, beam, V)`."""
    blank = state.predictor.decoder.blank_id
    batch, beam, vocab = log_probs.shape
    prefixes, last = state.prefixes, state.prefixes.last
    scores = log_probs + state.scores.unsqueeze(2)
    if state.fused is not None:
        scores = scores + state.fused.scores
    log_probs, scores = log_probs.flatten(1), scores.flatten(1)
    # A prefix that is another one plus a token is reached from that one too: add that path to the blank's.
    found, source = prefixes.continuations()
    blanks = torch.arange(beam, device=last.device).expand(batch, beam) * vocab + blank
    entries = torch.where(found, source * vocab + last, blanks)
    stay, entry = scores.gather(1, blanks), scores.gather(1, entries)
    moved = found & (entry > stay)
    scores.scatter_(1, entries, NEG_INF).scatter_(1, blanks, torch.where(found, torch.logaddexp(stay, entry), stay))

    scores, chosen = top_k(scores, beam)
    came_from = torch.div(chosen, vocab, rounding_mode="floor")
    token = chosen - came_from * vocab
    # Of a sum of two paths the likelier one says when the last token was emitted.
    stays, arrives = token == blank, moved.gather(1, came_from)
    token = torch.where(stays, torch.where(arrives, last.gather(1, came_from), -1), token)
    came_from = torch.where(stays & arrives, source.gather(1, came_from), came_from)
    trace.append(came_from, token, log_probs.gather(1, came_from * vocab + token.clamp(min=0)))
    extended = token >= 0
    prefixes = prefixes.advance(came_from, token, extended, scores > NEG_INF)
    context, out = (x.gather(1, came_from.unsqueeze(2).expand_as(x)) for x in (state.context, state.decoder_out))
    out, context = state.predictor.advance(out, context, token, extended)
    fused = state.fused and state.fused.advance(came_from, token, extended)
    return _Beams(state.predictor, prefixes, scores, context, out, fused)


class Predictor:
    """The decoder's projected outputs `(..., J)` for contexts `(..., context)` of last tokens."""

    def __init__(self, decoder: nn.Module, joiner: nn.Module) -> None:
        self.decoder, self.joiner, self.lookup = decoder, joiner, decoder.lookup()

    def first_context(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """The context before the first token, `(*shape, context)`."""
        context = torch.full((*shape, self.decoder.context_size), -1, dtype=torch.int64, device=device)
        context[..., -1] = self.decoder.blank_id
        return context

    def __call__(self, context: Tensor) -> Tensor:
        return self.joiner.decoder_proj(self.lookup(context.flatten(0, -2))).unflatten(0, context.shape[:-1])

    def advance(self, out: Tensor, context: Tensor, token: Tensor, emits: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and contexts, changed in place, after each of `emits (...)` has had its `token (...)` appended."""
        if out.device.type != "cpu":  # to look which have changed would make the host wait
            shifted = torch.cat([context[..., 1:], token.unsqueeze(-1)], dim=-1)
            context.copy_(torch.where(emits.unsqueeze(-1), shifted, context))
            return self(context), context
        rows = emits.nonzero(as_tuple=True)
        if len(rows[0]):
            moved = torch.cat([context[rows][:, 1:], token[rows].unsqueeze(-1)], dim=-1)
            context[rows], out[rows] = moved, self(moved).to(out.dtype)
        return out, context


class InternalLm:
    """A `TokenScorer`: what a transducer believes of texts without hearing, its joiner without the encoder and without
    the blank (Meng et al. 2021, arXiv:2011.01991)."""

    end_id = 0  # it knows no end: a token that is worth nothing

    def __init__(self, decoder: nn.Module, joiner: nn.Module) -> None:
        self.predictor = Predictor(decoder, joiner)

    def begin(self, rows: int) -> tuple[Tensor, State]:
        context = self.predictor.first_context((rows,), next(self.predictor.decoder.parameters()).device)
        return self._log_probs(context), (context,)

    def extend(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        context = torch.cat((state[0][:, 1:], tokens[:, None]), dim=1)
        return self._log_probs(context), (context,)

    def _log_probs(self, context: Tensor) -> Tensor:
        out, blank = self.predictor(context), self.predictor.decoder.blank_id
        return symbol_log_probs(self.predictor.joiner, torch.zeros_like(out), out, blank, float("inf"))


def symbol_log_probs(
    joiner: nn.Module,
    encoder_out: Tensor,
    decoder_out: Tensor,
    blank: int,
    blank_penalty: float,
    temperature: float = 1,
) -> Tensor:
    """Log probabilities `(..., V)` in float32 from projected encoder and decoder outputs `(..., J)`."""
    logits = joiner(encoder_out, decoder_out, project_input=False).float()
    if blank_penalty:
        logits[..., blank] -= blank_penalty
    return (logits if temperature == 1 else logits / temperature).log_softmax(dim=-1)
