"""How fast are our losses beside k2's? Medians of interleaved runs, forward and backward, milliseconds.

    OMP_NUM_THREADS=1 python tests/bench/transducer_loss.py [--rounds 15] [--device cpu]

Prints a Markdown table. "ratio" is torch's time divided by k2's: below 1 ours is faster. Without k2 only ours is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from steps.nets.joiner import Joiner
from steps.objectives import transducer as ours
from steps.objectives.backend import have_k2
from steps.objectives.ctc import ctc_loss
from utils.options import Parser

# (utterances, frames, tokens, vocabulary): character and BPE sets, short and long batches
SIZES = [
    (16, 60, 20, 60),
    (32, 60, 20, 500),
    (16, 120, 60, 60),
    (32, 120, 40, 500),
    (16, 250, 60, 60),
    (32, 250, 60, 500),
]
DIM = 256


class Case:
    """One batch, and a function for each loss that computes it with a backend, forward and backward."""

    def __init__(self, size: tuple[int, int, int, int], device: str) -> None:
        batch, frames, tokens, vocab = size
        generator = torch.Generator().manual_seed(0)
        self.targets = torch.randint(1, vocab, (batch, tokens), generator=generator).to(device)
        self.lens = torch.linspace(0.8 * frames, frames, batch).long().to(device)
        self.target_lens = torch.linspace(0.6 * tokens, tokens, batch).long().to(device)
        self.frames = torch.randn(batch, frames, DIM, generator=generator).to(device)
        self.states = torch.randn(batch, tokens + 1, DIM, generator=generator).to(device)
        self.am_proj, self.lm_proj = nn.Linear(DIM, vocab).to(device), nn.Linear(DIM, vocab).to(device)
        self.joiner = Joiner(DIM, DIM, DIM, vocab).to(device)
        with torch.no_grad():
            self.am, self.lm = self.am_proj(self.frames), self.lm_proj(self.states)
            _, symbol, blank = self._simple(self.am, self.lm, "torch")
            self.ranges = self._ranges(symbol, blank, "torch")
            self.logits = self.joiner(*ours.do_prune(self.frames, self.states, self.ranges))

    def _simple(self, am: Tensor, lm: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
        return ours.simple_loss(am, lm, self.targets, self.lens, self.target_lens, 0.25, 0.0, backend=backend)

    def _ranges(self, symbol: Tensor, blank: Tensor, backend: str) -> Tensor:
        if backend == "torch":
            return ours.prune_ranges(symbol, blank, self.lens, self.target_lens, 5)
        import k2

        zero = torch.zeros_like(self.lens)
        boundary = torch.stack((zero, zero, self.target_lens, self.lens), 1)
        padded = torch.cat((symbol, symbol[:, :1] * 0), 1)
        return k2.get_rnnt_prune_ranges(padded.transpose(1, 2), blank.transpose(1, 2), boundary, 5)

    def ctc(self, backend: str) -> None:
        am = self.am.clone().requires_grad_()
        ctc_loss(am.log_softmax(2), self.lens, self.targets, self.target_lens, backend).sum().backward()

    def simple(self, backend: str) -> None:
        am, lm = self.am.clone().requires_grad_(), self.lm.clone().requires_grad_()
        self._simple(am, lm, backend)[0].sum().backward()

    def pruned(self, backend: str) -> None:
        logits = self.logits.clone().requires_grad_()
        ours.pruned_loss(
            logits, self.targets, self.ranges, self.lens, self.target_lens, backend=backend
        ).sum().backward()

    def whole(self, backend: str) -> None:
        """Everything after the encoder and the predictor: projections, both losses, pruning and the joiner."""
        frames, states = self.frames.clone().requires_grad_(), self.states.clone().requires_grad_()
        simple, symbol, blank = self._simple(self.am_proj(frames), self.lm_proj(states), backend)
        ranges = self._ranges(symbol, blank, backend)
        am, lm = self.joiner.encoder_proj(frames), self.joiner.decoder_proj(states)
        if backend == "torch":
            kept = ours.do_prune(am, lm, ranges)
        else:
            import k2

            kept = k2.do_rnnt_pruning(am, lm, ranges)
        logits = self.joiner(*kept, project_input=False)
        pruned = ours.pruned_loss(logits, self.targets, ranges, self.lens, self.target_lens, backend=backend)
        (simple + pruned).sum().backward()


def medians(
    run: Callable[[str], None],
    backends: list[str],
    rounds: int,
    device: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of `run` with each backend, taken in turns."""
    taken: dict[str, list[float]] = {backend: [] for backend in backends}
    for _ in range(rounds + 2):
        for backend in backends:
            begin = clock()
            run(backend)
            if device != "cpu":
                torch.cuda.synchronize()
            taken[backend].append(1000 * (clock() - begin))
    return {backend: statistics.median(times[2:]) for backend, times in taken.items()}


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    backends = ["k2", "torch"] if have_k2() else ["torch"]
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} thread(s), median of {args.rounds}\n")
    print(
        "| batch | frames | tokens | vocabulary | loss | k2 ms | torch ms | ratio |\n|---|---|---|---|---|---|---|---|"
    )
    for size in SIZES:
        case = Case(size, args.device)
        for name in ("ctc", "simple", "pruned", "whole"):
            times = medians(getattr(case, name), backends, args.rounds, args.device)
            other = f"{times['k2']:.1f}" if "k2" in times else "-"
            ratio = f"{times['torch'] / times['k2']:.2f}" if "k2" in times else "-"
            print("|", " | ".join(map(str, size)), f"| {name} | {other} | {times['torch']:.1f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
