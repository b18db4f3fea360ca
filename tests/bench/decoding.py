"""How fast are the searches? Beside icefall's functions of the same names, on the same encoder output.

    python tests/bench/decoding.py --model exp/recogniser --cuts data/dev/cuts.jsonl.gz --graph data/graph_char_3gram \\
        --icefall PATH [--ctc ctc] [--transducer transducer] [--rounds 5] [--threads 2]

The model (with a CTC and a transducer head) encodes the cuts once. Then the searches take turns on all batches, ours
and icefall's one after the other, with the same modules, graph and beams. The table has medians of the seconds, and the
share of utterances for which both write the same tokens (words, with a graph). Needs k2 and a checkout of icefall;
packages that icefall imports and these functions do not use need not be there. Prints a Markdown table.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
from torch import Tensor

from steps.decode import check_features
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import DataConfig, make_loader
from steps.recogniser import Recogniser
from steps.search.plan import Search
from utils.cpu import tune_cpu
from utils.errors import UserError, run
from utils.options import Parser, count, positive

FAST_BEAM = {"beam": 20.0, "max_contexts": 8, "max_states": 64}  # icefall's defaults for the one-state graph
HLG = {"search_beam": 20.0, "output_beam": 8.0, "min_active_states": 30, "max_active_states": 10000}
ASR = "egs/librispeech/ASR/pruned_transducer_stateless2"


def import_icefall(root: Path) -> SimpleNamespace:
    """icefall's searches; modules that are missing here and that only its other parts use are replaced by nothing."""
    if not (root / ASR).is_dir():
        raise UserError(f"{root} is no checkout of icefall: {root / ASR} does not exist.")
    sys.path[:0] = [str(root), str(root / ASR)]
    while True:
        try:
            names = ("beam_search", "icefall.decode", "icefall.utils")
            searches, lattices, utils = map(importlib.import_module, names)
            return SimpleNamespace(searches=searches, lattices=lattices, utils=utils)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("icefall"):
                raise
            sys.modules[error.name] = MagicMock()


def peers(icefall: SimpleNamespace, recogniser: Recogniser, ctc: str, transducer: str, beam: int) -> dict:
    """icefall's functions by our searches' names: from a batch as encoded to tokens or words of each utterance."""
    import k2

    head = recogniser.model.heads[transducer]
    model = torch.nn.Module()
    model.decoder, model.joiner = head.decoder, head.joiner
    trivial = k2.trivial_graph(head.decoder.vocab_size - 1)

    def transducer_search(search: Callable, **options: object) -> Callable:
        return lambda spoken: search(
            model=model,
            encoder_out=spoken.at(transducer)[1],
            encoder_out_lens=spoken.encoded.lens,
            **options,
        )

    graph = next((value for (_, option, _), value in recogniser.loaded.items() if option == "graph"), None)

    def hlg(spoken) -> list:
        log_probs, lens = recogniser.model.heads[ctc].log_probs(spoken.at(ctc)[1]), spoken.encoded.lens
        order = lens.argsort(descending=True)
        segments = torch.stack((order, torch.zeros_like(order), lens[order]), 1).int()
        lattice = icefall.lattices.get_lattice(log_probs, graph.hlg, segments, **HLG)
        best = icefall.lattices.one_best_decoding(lattice, use_double_scores=True)
        texts = icefall.utils.get_texts(best)
        return [texts[place] for place in order.argsort().tolist()]

    searches = icefall.searches
    found = {
        f"{transducer}:greedy": transducer_search(searches.greedy_search_batch),
        f"{transducer}:modified_beam": transducer_search(searches.modified_beam_search, beam=beam),
        f"{transducer}:fast_beam": transducer_search(
            searches.fast_beam_search_one_best, decoding_graph=trivial, **FAST_BEAM
        ),
    }
    return found | ({f"{ctc}:hlg": hlg} if graph else {})


def encode(recogniser: Recogniser, cuts: Cuts, max_duration: float) -> list[Callable]:
    """For each batch a function that gives it as encoded, without what searches have in common."""
    data = DataConfig(max_duration=max_duration, spec_augment=None)
    found = []
    for batch in make_loader(cuts, {}, data, train=False):
        encoded, _ = recogniser.encode(batch.features, batch.feature_lens)
        encoded = encoded.select((encoded.lens > 0).nonzero().squeeze(1).tolist())
        # k2 counts the versions of tensors, inference has none
        encoded = replace(encoded, **{f.name: _copied(getattr(encoded, f.name)) for f in fields(encoded)})
        found.append(lambda encoded=encoded: recogniser.spoken(encoded, [None] * len(encoded.lens)))
    return found


def _copied(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copied(own) for key, own in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def ours(search: Search, recogniser: Recogniser) -> Callable:
    """Our search, from a batch as encoded to tokens or words of each utterance."""
    graph = next((value for (_, option, _), value in recogniser.loaded.items() if option == "graph"), None)
    place = {word: index for index, word in enumerate(graph.words)} if graph else {}

    def call(spoken) -> list[list[int]]:
        with torch.inference_mode():
            best = [hypotheses[0] for hypotheses in search(spoken)]
        return [h.tokens if h.words is None else [place[word] for word in h.words] for h in best]

    return call


def timed(call: Callable, batches: list[Callable]) -> tuple[float, list]:
    """Seconds, and what was found, of all batches."""
    spoken, found = [make() for make in batches], []
    started = time.perf_counter()
    for batch in spoken:
        found += call(batch)
    return time.perf_counter() - started, found


def same(one: list, other: list) -> float:
    """The share of utterances that are the same."""
    pairs = zip(one, other, strict=True)
    return statistics.mean(list(a) == (b.tolist() if isinstance(b, Tensor) else list(b)) for a, b in pairs)


def main() -> int:
    """The command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder, with a CTC and a transducer head")
    parser.add_argument("--checkpoint", default="averaged.pt", help="a file of the model folder")
    parser.add_argument("--cuts", required=True, help="data/<split>/cuts.jsonl.gz")
    parser.add_argument("--graph", help="what steps.lang.graph wrote, of the CTC head's tokens")
    parser.add_argument("--icefall", type=Path, required=True, help="a checkout of icefall")
    parser.add_argument("--ctc", default="ctc", help="the CTC head")
    parser.add_argument("--transducer", default="transducer", help="the transducer head")
    parser.add_argument("--beam", type=count, default=4, help="of modified_beam")
    parser.add_argument("--max-duration", type=positive, default=200.0, help="seconds a batch")
    parser.add_argument("--rounds", type=count, default=5, help="that are counted")
    parser.add_argument("--threads", type=count, default=2, help="processor cores")
    args = parser.parse_args()
    tune_cpu()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    names = {f"{args.transducer}:{m}": {} for m in ("greedy", "modified_beam", "fast_beam")}
    names[f"{args.transducer}:modified_beam"]["beam"] = args.beam
    if args.graph:
        names[f"{args.ctc}:hlg"] = {"graph": args.graph, "confidence_scale": 0.0}  # icefall has none
    recogniser = Recogniser(args.model, names, {}, args.checkpoint, "cpu")
    cuts = Cuts.load(args.cuts)
    check_features(cuts, recogniser)
    theirs = peers(import_icefall(args.icefall), recogniser, args.ctc, args.transducer, args.beam)
    batches = encode(recogniser, cuts, args.max_duration)
    lines = ["| search | here, s | icefall, s | times as fast | same output |", "|---|---|---|---|---|"]
    for search in recogniser.searches:
        pair = ours(search, recogniser), theirs[search.name]
        rounds = [[timed(call, batches) for call in pair] for _ in range(args.rounds + 1)]
        seconds = [statistics.median(one[side][0] for one in rounds[1:]) for side in (0, 1)]
        equal = same(rounds[0][0][1], rounds[0][1][1])
        ratio = statistics.median(one[1][0] / one[0][0] for one in rounds[1:])
        lines.append(f"| {search.name} | {seconds[0]:.2f} | {seconds[1]:.2f} | {ratio:.2f} | {equal:.1%} |")
    print(f"torch {torch.__version__}, {args.threads} threads, {len(cuts)} utterances, {cuts.durations.sum():.0f} s")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    run(main)
