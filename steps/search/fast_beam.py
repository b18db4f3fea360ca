"""Fast beam search of a transducer over a graph, with k2 (Kang et al. 2023, "Fast and parallel decoding").

One symbol a frame: a token that the graph reads, or the blank, which stays where it is. Paths with the same last tokens
(as many as the decoder sees) at the same place of the graph are merged; the score of a place is that of its best path.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steps.objectives.backend import load_k2
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import DecodingGraph, Lattice, for_k2, widened
from steps.search.nbest import lattice_nbest, total_scores
from steps.search.spoken import Spoken
from steps.search.transducer import Predictor, symbol_log_probs
from utils.errors import UserError

if TYPE_CHECKING:
    import k2

NEVER = -1e10  # nats; k2 wants numbers


def with_end(graph: k2.Fsa, end: int) -> k2.Fsa:
    """`graph` with arcs that read the label `end` into one more state instead of its arcs into the last state.

    k2's lattices have no score on arcs into the last state, so that of `</s>` would be lost.
    """
    k2 = load_k2()
    arcs = graph.arcs.values().clone()
    last = graph.shape[0] - 1
    arcs[:, 2] = torch.where(arcs[:, 2] == -1, end, arcs[:, 2])
    ended = k2.Fsa(torch.cat((arcs, arcs.new_tensor([[last, last + 1, -1, 0]]))))
    words = graph.aux_labels
    if isinstance(words, Tensor):
        ended.aux_labels = torch.cat((words.clamp(min=0), words.new_tensor([-1])))
    else:
        rows = [words.remove_values_eq(-1), k2.RaggedTensor([[-1]], device=arcs.device)]
        ended.aux_labels = k2.ragged.cat(rows, axis=0)
    return ended


def fast_beam_fsas(
    decoder: nn.Module,
    joiner: nn.Module,
    encoder_out: Tensor,
    lens: Tensor,
    graph: k2.Fsa,
    search_beam: float = 20.0,
    max_states: int = 64,
    max_contexts: int = 8,
    temperature: float = 1.0,
    blank_penalty: float = 0.0,
) -> k2.Fsa:
    """What `graph`, made by `with_end`, allows of N utterances.

    `encoder_out (N, T, J)`, projected; `lens (N,)` on the CPU, from long to short, 1 at least. Kept at a frame are
    `max_states` pairs of a place in the graph and the last tokens, `max_contexts` different last tokens, and what is
    up to `search_beam` nats below the best. An arc is a frame; two follow that read the end.
    """
    k2, predictor, vocab = load_k2(), Predictor(decoder, joiner), int(graph.labels.max())
    if (vocab + 1) ** decoder.context_size * graph.shape[0] >= 2**63:
        raise UserError(f"fast_beam: k2 cannot tell {vocab} tokens to the power of {decoder.context_size} apart.")
    # whoever has reached the end is not to be pruned for one who has not
    graph.scores = torch.where(graph.labels == -1, -NEVER, graph.scores)
    config = k2.RnntDecodingConfig(vocab + 1, decoder.context_size, search_beam, max_states, max_contexts)
    streams = k2.RnntDecodingStreams([k2.RnntDecodingStream(graph) for _ in lens], config)
    for t in range(int(lens[0]) + 2):
        shape, contexts = streams.get_contexts()
        heard, ending = shape.row_splits(1)[[int((lens > t).sum()), int((lens >= t).sum())]].tolist()
        scores = torch.full((len(contexts), vocab + 1), NEVER, device=encoder_out.device)
        scores[heard:ending, vocab] = 0.0
        scores[ending:, 0] = 0.0
        if heard:
            frame = encoder_out[:, t].index_select(0, shape.row_ids(1)[:heard].long())
            out = predictor(_before_first(contexts[:heard].long()))
            scores[:heard, :vocab] = symbol_log_probs(joiner, frame, out, decoder.blank_id, blank_penalty, temperature)
        streams.advance(scores)
    streams.terminate_and_flush_to_streams()
    return k2.connect(streams.format_output((lens + 2).tolist()))


def _all_tokens(decoder: nn.Module, joiner: nn.Module, encoder_out: Tensor) -> DecodingGraph:
    """Every sequence of tokens of the model that is asked with projected `encoder_out (N, T, J)`."""
    predictor = Predictor(decoder, joiner)
    start = predictor(predictor.first_context((1,), encoder_out.device))
    vocab = joiner(encoder_out[:1, 0], start, project_input=False).shape[-1]
    return DecodingGraph(with_end(load_k2().trivial_graph(vocab - 1, encoder_out.device), vocab), None)


def _before_first(contexts: Tensor) -> Tensor:
    """k2's contexts `(C, context)` as decoders know them: before the tokens is one zero, and before that are -1."""
    before = contexts[:, :-1].masked_fill(contexts[:, 1:] == 0, -1)
    return torch.cat((before, contexts[:, -1:]), dim=1)


def fast_beam_lattice(
    decoder: nn.Module,
    joiner: nn.Module,
    encoder_out: Tensor,
    lens: Tensor,
    graph: DecodingGraph | None = None,
    lm_scale: float = 1.0,
    temperature: float = 1.0,
    blank_penalty: float = 0.0,
    **beams: float,
) -> Lattice:
    """The lattices of `encoder_out (N, T, D)`, `lens (N,)`, N 1 at least; `beams` are those of `fast_beam_fsas`.

    `graph`: an LG after `with_end`, whose scores count `lm_scale` times; without it, every sequence of tokens.
    """
    k2, wanted = load_k2(), lens.cpu()
    lens, order = wanted.clamp(min=1).sort(descending=True, stable=True)  # k2 takes no utterance without frames
    encoder_out = joiner.encoder_proj(encoder_out[order.to(encoder_out.device)])
    if not encoder_out.shape[1]:
        encoder_out = torch.nn.functional.pad(encoder_out, (0, 0, 0, 1))
    graph = graph or _all_tokens(decoder, joiner, encoder_out)
    scaled, options = graph.scaled(lm_scale), {"temperature": temperature, "blank_penalty": blank_penalty}

    def search(rows: Tensor, beams: dict[str, float]) -> k2.Fsa:
        return fast_beam_fsas(decoder, joiner, encoder_out[rows], lens[rows.cpu()], scaled, **beams, **options)

    beams = {"search_beam": 20.0, "max_states": 64, "max_contexts": 8, **beams}
    fsa = widened(search, torch.arange(len(lens), device=encoder_out.device), beams)
    fsa = k2.index_fsa(fsa, order.argsort().int().to(encoder_out.device))
    fsa.frames = _depths(fsa)
    fsa.tokens = torch.where(fsa.labels == scaled.labels.max(), 0, fsa.labels)
    final = fsa.labels == -1
    fsa.scores = torch.where(final, 0.0, fsa.scores)
    fsa.lm_scores = torch.where(final, 0.0, fsa.lm_scores)
    fsa.am_scores = fsa.scores - lm_scale * fsa.lm_scores
    return Lattice(fsa, graph.words, wanted.tolist())


def _depths(lattices: k2.Fsa) -> Tensor:
    """How many arcs are before each arc; all ways to it have as many."""
    ones = load_k2().Fsa(lattices.arcs.clone())
    ones.scores = torch.ones_like(lattices.scores)
    depths = ones.get_forward_scores(use_double_scores=True, log_semiring=False)
    return depths[lattices.arcs.shape().row_ids(2).long()].round().int()


def _shared_lattice(spoken: Spoken, key: str, **options: Any) -> Lattice:
    """`fast_beam_lattice` of a head, made once for all searches of a batch."""
    head, encoder_out, lens = spoken.at(key)
    name = ("fast_beam", key, *sorted(options.items()))
    return spoken.once(name, lambda: fast_beam_lattice(head.decoder, head.joiner, encoder_out, lens, **options))


def transducer_fast_beam(spoken: Spoken, key: str, **options: Any) -> list[list[Hypothesis]]:
    """The best path, one hypothesis an utterance; `options` are those of `fast_beam_lattice`."""
    if not len(spoken.encoded.lens):  # k2 takes one utterance at least
        return []
    with for_k2():
        lattice = _shared_lattice(spoken, key, **options)
        return [[hypothesis] for hypothesis in lattice.best(options.get("lm_scale", 1.0))]


def transducer_fast_beam_nbest(
    spoken: Spoken,
    key: str,
    nbest: int = 1,
    num_paths: int = 200,
    nbest_scale: float = 0.5,
    mbr_scale: float = 0.0,
    **options: Any,
) -> list[list[Hypothesis]]:
    """Texts of the lattice by their probability over all their alignments, as `steps.search.nbest.ctc_nbest`."""
    lm_scale = options.get("lm_scale", 1.0)
    if not len(spoken.encoded.lens):
        return []
    with for_k2():
        lattice = _shared_lattice(spoken, key, **options)
        found = lattice_nbest(lattice, partial(spoken.text, key), lm_scale, num_paths, nbest_scale)
        return found.ranked(total_scores(found, lm_scale), nbest, mbr_scale)
