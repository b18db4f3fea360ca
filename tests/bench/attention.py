"""How fast is attention on a CPU beside torch's fused kernel, and beside the formula computed in one piece?

    python tests/bench/attention.py [--rounds 9] [--precision bf16] [--threads 2]

8 heads of 64 values, as in Whisper base: self-attention of so many utterances of so many frames, without (inference)
and with (training) the backward pass. The three take turns; the table holds medians of milliseconds. torch 1.13 has no
fused kernel. Prints a Markdown table.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from steps.nets.transformer import attend
from utils.cpu import tune_cpu
from utils.devices import DTYPES
from utils.options import Parser

SIZES = ((1, 1500), (5, 1500), (3, 700), (12, 125))  # utterances, frames
HEADS, DIM = 8, 64


def one_piece(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Vaswani et al. 2017, equation 1, with the softmax in float32."""
    scores = q * DIM**-0.5 @ k.transpose(-1, -2)
    return scores.float().softmax(-1).to(v.dtype) @ v


def milliseconds(attention: Callable[..., Tensor], inputs: Tensor, train: bool) -> float:
    """Time of one forward pass, and of the backward pass."""
    q, k, v = (x.clone().transpose(1, 2).requires_grad_(train) for x in inputs)
    started = time.perf_counter()
    with torch.set_grad_enabled(train):
        y = attention(q, k, v)
        if train:
            y.backward(torch.ones_like(y))
    return 1000 * (time.perf_counter() - started)


def main() -> int:
    """The command line."""
    parser = Parser(prog="tests/bench/attention.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    tune_cpu()
    torch.set_num_threads(args.threads)
    kinds = {"ours": lambda q, k, v: attend(q, k, v, None), "one piece": one_piece}
    if hasattr(F, "scaled_dot_product_attention"):
        kinds["torch's"] = F.scaled_dot_product_attention
    print("| utterances | frames | pass |", *(f" {name} (ms) |" for name in kinds), sep="")
    print("|--:|--:|---|" + "--:|" * len(kinds))
    for utterances, frames in SIZES:
        inputs = torch.randn(3, utterances, frames, HEADS, DIM, dtype=DTYPES[args.precision])
        for train in (False, True):
            times: dict[str, list[float]] = {name: [] for name in kinds}
            for _ in range(args.rounds + 2):
                for name, attention in kinds.items():
                    times[name].append(milliseconds(attention, inputs, train))
            medians = (f" {statistics.median(values[2:]):.1f} |" for values in times.values())
            print(f"| {utterances} | {frames} | {'training' if train else 'inference'} |", *medians, sep="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
