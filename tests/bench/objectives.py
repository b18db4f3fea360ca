"""What do LF-MMI and CR-CTC cost beside plain CTC? Medians of interleaved training steps, milliseconds.

On a CPU these are of processor time, which a shared machine does not change.

    OMP_NUM_THREADS=1 python tests/bench/objectives.py [--rounds 7] [--vocab 35] [--k2] [--device cpu]

The batch is 20 utterances of 3 s. "loss": from the encoder's output `(20, 75, 256)` on, forward and backward; "step":
with a small Zipformer under it. CR-CTC has every utterance twice. k2's denominator holds all arcs of all frames: it is
timed (one step) only with --k2.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from steps.nets.model import Model, ModelConfig
from steps.prepare.dataset import Batch, pad_targets
from tests.bench.transducer_loss import medians
from utils.options import Parser

UTTERANCES, SECONDS, TOKENS = 20, 3.0, 25
HEADS = {"ctc": {}, "CR-CTC": {"consistency": 0.2}, "mmi": {"objective": "mmi"}}
ENCODER = {"name": "zipformer", "num_encoder_layers": 1, "encoder_dim": 192, "encoder_unmasked_dim": 128}
ENCODER |= {"feedforward_dim": 384, "num_heads": 4}


class Case:
    """A batch, and a model for each objective."""

    def __init__(self, vocab: int, device: str, k2: bool) -> None:
        torch.manual_seed(0)
        lens = torch.linspace(0.8, 1.0, UTTERANCES).mul(100 * SECONDS).long()
        tokens = [torch.randint(3, vocab, (int(TOKENS * n / lens.max()),)).tolist() for n in lens]
        names, features = [str(n) for n in range(UTTERANCES)], torch.randn(UTTERANCES, int(lens.max()), 80)
        self.once = Batch(names, features, lens, lens / 100, {"ctc": pad_targets(tokens)}).to(device)
        twice = Batch(names, torch.cat((features, features)), lens.repeat(2), lens / 100)
        twice.targets = {"ctc": pad_targets(tokens).repeated(2)}
        self.twice, self.models = twice.to(device), {}
        for name, options in {**HEADS, **({"mmi k2": {"objective": "mmi", "backend": "k2"}} if k2 else {})}.items():
            head = {"name": "ctc", "lang": "", "warm_step": 0, **options}
            model = Model(ModelConfig(encoder=ENCODER, heads={"ctc": head}), {"ctc": vocab}).to(device)
            if "objective" in options:
                model.heads["ctc"].set_bigram(torch.randn(vocab, vocab).log_softmax(1))
            self.models[name] = model

    def batch(self, name: str) -> Batch:
        return self.twice if name == "CR-CTC" else self.once

    def step(self, name: str) -> None:
        self._backward(self.models[name](self.batch(name)))

    def loss(self, name: str) -> None:
        batch, model = self.batch(name), self.models[name]
        lens = model.encoder.output_lens(batch.feature_lens)
        out = torch.randn(len(lens), int(lens.max()), model.encoder.output_dim, device=lens.device, requires_grad=True)
        self._backward(model.heads["ctc"](out, lens, batch.targets["ctc"]))

    def _backward(self, losses: dict[str, Tensor]) -> None:
        torch.stack(list(losses.values())).sum().backward()


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each")
    parser.add_argument("--vocab", type=int, default=35, help="tokens")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--k2", action="store_true", help="also MMI on k2, which needs memory and patience")
    args = parser.parse_args()
    case = Case(args.vocab, args.device, args.k2)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} thread(s), {args.vocab} tokens\n")
    print("| objective | loss ms | step ms | to plain CTC |\n|---|---|---|---|")
    names = [name for name in case.models if name != "mmi k2"]
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    losses, steps = (medians(run, names, args.rounds, args.device, clock) for run in (case.loss, case.step))
    if args.k2:
        losses |= medians(case.loss, ["mmi k2"], 1, args.device, clock)
    for name, taken in losses.items():
        whole, ratio = (f"{steps[name]:.0f}", f"{steps[name] / steps['ctc']:.2f}") if name in steps else ("-", "-")
        print(f"| {name} | {taken:.1f} | {whole} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
