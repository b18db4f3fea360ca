"""How fast does a Zipformer with CTC and pruned transducer train? Times real time, and beside icefall's.

    python tests/bench/zipformer.py [--sizes 5.7M 23.4M] [--rounds 5] [--threads 2] [--icefall PATH] [--untuned]

A step is forward, losses, backward and AdamW on a batch of synthetic utterances of 10 to 15 s, 500 tokens in the
vocabulary, schedules as after 10,000 steps. The models take turns; the table holds medians. On a machine that does
other things too, `--threads 1 --clock processor` disturbs the measurement least. With `--icefall`, a checkout of
icefall (needs k2): its model gets the same batch, and first both are given the same parameters and must have the same
loss. `--untuned` leaves out `utils.cpu.tune_cpu`, which also speeds up icefall. Prints a Markdown table.
"""

from __future__ import annotations

import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from steps.nets.encoder import ZipformerConfig
from steps.nets.icefall import prefixes, rename
from steps.nets.model import Model, ModelConfig
from steps.prepare.dataset import Batch, Targets
from utils.cpu import tune_cpu
from utils.errors import UserError, run
from utils.options import Parser

SIZES = {
    "5.7M": {
        "encoder_dim": (128, 160, 160, 160, 160, 160),
        "encoder_unmasked_dim": 128,
        "feedforward_dim": 384,
        "num_encoder_layers": 1,
        "num_heads": 4,
    },
    "23.4M": {
        "encoder_dim": (192, 256, 256, 256, 256, 256),
        "encoder_unmasked_dim": 192,
        "feedforward_dim": (512, 768, 768, 768, 768, 768),
        "num_encoder_layers": 2,
        "num_heads": (4, 4, 4, 8, 4, 4),
    },
}
VOCAB, STEP = 500, 10_000


def make_batch(utterances: int) -> Batch:
    """Noise of 10 to 15 s, four tokens a second."""
    generator = torch.Generator().manual_seed(0)
    lens = torch.linspace(1500, 1000, utterances).long()
    features = torch.randn(utterances, 1500, 80, generator=generator)
    token_lens = lens // 25
    tokens = torch.randint(3, VOCAB, (utterances, 60), generator=generator)
    tokens *= torch.arange(60) < token_lens.unsqueeze(1)
    targets = Targets(
        tokens, token_lens, torch.ones(utterances, dtype=torch.bool), torch.ones(utterances, 1, dtype=torch.int64)
    )
    ids = [str(n) for n in range(utterances)]
    return Batch(ids, features, lens, lens / 100, {"ctc": targets, "transducer": targets})


def our_model(size: str) -> Model:
    """Encoder, CTC and transducer heads."""
    heads = {"ctc": {"lang": "", "weight": 0.2}, "transducer": {"lang": ""}}
    config = ModelConfig(encoder=ZipformerConfig(**SIZES[size]), heads=heads)
    model = Model(config, dict.fromkeys(heads, VOCAB))
    model.set_batch_count(STEP)
    return model


def icefall_model(root: Path, config: ZipformerConfig) -> torch.nn.Module:
    """icefall's model of the same sizes."""
    folder = root / "egs/librispeech/ASR/zipformer"
    if not folder.is_dir():
        raise UserError(f"{root} is no checkout of icefall: {folder} does not exist.")
    sys.path.insert(0, str(folder))
    sys.modules.update(icefall_utils())
    from decoder import Decoder
    from joiner import Joiner
    from model import AsrModel
    from scaling import ScheduledFloat
    from subsampling import Conv2dSubsampling
    from zipformer import Zipformer2

    names = "encoder_dim num_encoder_layers encoder_unmasked_dim query_head_dim pos_head_dim value_head_dim num_heads"
    sizes = {name: config.per_stack(name) for name in (*names.split(), "feedforward_dim", "cnn_module_kernel")}
    dropout = ScheduledFloat((0.0, 0.3), (20000.0, 0.1))
    embed = Conv2dSubsampling(80, sizes["encoder_dim"][0], dropout=dropout)
    factors = config.downsampling_factor
    encoder = Zipformer2(2, factors, **sizes, pos_dim=config.pos_dim, dropout=dropout, warmup_batches=4000.0)
    dim = max(sizes["encoder_dim"])
    heads = Decoder(VOCAB, 512, 0, 2), Joiner(dim, 512, 512, VOCAB)
    model = AsrModel(embed, encoder, *heads, encoder_dim=dim, vocab_size=VOCAB, use_ctc=True)
    for module in model.modules():
        if isinstance(module, ScheduledFloat):
            module.batch_count = STEP
    return model


def icefall_utils() -> dict[str, types.ModuleType]:
    """The functions that icefall's model takes from its package, whose import wants many others."""
    import k2

    utils = types.ModuleType("icefall.utils")
    utils.torch_autocast = lambda device_type="cpu", **options: torch.autocast("cpu", **options)
    utils.make_pad_mask = lambda lens, *_: torch.arange(int(lens.max())) >= lens.unsqueeze(1)
    utils.add_sos = lambda ragged, sos_id: k2.RaggedTensor([[sos_id, *row] for row in ragged.tolist()])
    utils.time_warp = None  # not used without consistency regularisation
    return {"icefall": types.ModuleType("icefall"), "icefall.utils": utils}


def our_loss(model: Model, batch: Batch) -> Tensor:
    """CTC 0.2, simple 0.5, pruned 1: a scalar."""
    return sum(model(batch).values())


def icefall_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """The same with icefall's model."""
    import k2

    targets = batch.targets["ctc"]
    tokens = [row[:n].tolist() for row, n in zip(targets.tokens, targets.lens, strict=True)]
    simple, pruned, ctc, *_ = model(batch.features, batch.feature_lens, k2.RaggedTensor(tokens), 5, 0.0, 0.25)
    return 0.2 * ctc + 0.5 * simple + pruned


def check_same_loss(ours: Model, theirs: torch.nn.Module, batch: Batch) -> str:
    """Give ours the parameters of theirs and compare the losses in evaluation mode."""
    ours.load_state_dict(rename(theirs.state_dict(), prefixes(ours))[0])
    with torch.no_grad():
        # one utterance: there, padding has an effect
        one = Batch(batch.ids[:1], batch.features[:1], batch.feature_lens[:1], batch.durations[:1], {})
        one.targets = {
            key: Targets(t.tokens[:1], t.lens[:1], t.present[:1], t.prompts[:1]) for key, t in batch.targets.items()
        }
        losses = float(our_loss(ours.eval(), one)), float(icefall_loss(theirs.eval(), one))
    if abs(losses[0] - losses[1]) > 1e-3 * losses[1]:
        raise UserError(f"The losses of the same parameters differ: {losses[0]:.3f} here, {losses[1]:.3f} in icefall.")
    return f"same parameters, one utterance: loss {losses[0]:.2f} here, {losses[1]:.2f} in icefall"


def stepper(
    model: torch.nn.Module, loss: Callable, batch: Batch, bf16: bool, clock: Callable[[], float]
) -> Callable[[], float]:
    """A function that makes one training step and returns how many times faster than real time it was."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model.train()

    def step() -> float:
        start = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss(model, batch)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(batch.durations.sum()) / (clock() - start)

    return step


def main() -> int:
    """The command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="models")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each model that are counted")
    parser.add_argument("--threads", type=int, default=2, help="processor cores")
    parser.add_argument("--clock", default="wall", choices=["wall", "processor"], help="which time to measure")
    parser.add_argument("--utterances", type=int, default=8, help="in a batch")
    parser.add_argument("--icefall", type=Path, help="a checkout of icefall")
    parser.add_argument("--untuned", action="store_true", help="without utils.cpu.tune_cpu")
    args = parser.parse_args()
    if not args.untuned:
        tune_cpu()
    torch.set_num_threads(args.threads)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    batch = make_batch(args.utterances)
    lines = ["| parameters | model | median | runs |", "|---|---|---|---|"]
    for size in args.sizes:
        torch.manual_seed(0)
        ours = our_model(size)
        steps = {}
        if args.icefall:
            theirs = icefall_model(args.icefall, ours.config.encoder)
            print(check_same_loss(ours, theirs, batch), file=sys.stderr)
            steps["icefall, float32"] = stepper(theirs, icefall_loss, batch, False, clock)
        steps["float32"] = stepper(ours, our_loss, batch, False, clock)
        steps["bf16"] = stepper(ours, our_loss, batch, True, clock)
        speeds = [{name: step() for name, step in steps.items()} for _ in range(args.rounds + 1)][1:]
        count = sum(parameter.numel() for parameter in ours.parameters()) / 1e6
        for name in steps:
            values = [speed[name] for speed in speeds]
            runs = " ".join(f"{value:.1f}" for value in values)
            lines.append(f"| {count:.1f} M | {name} | {statistics.median(values):.1f} | {runs} |")
    print(f"torch {torch.__version__}, {args.threads} threads, times real time")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    run(main)
