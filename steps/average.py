"""Average a model: `python -m steps.average --exp exp/joint --epoch 30 --avg 5 --out exp/joint/avg-30-5.pt`.

The average of the model at regular steps of the last `--avg` epochs, from two checkpoints' running averages; `--plain`
takes the mean of the models at the ends of these epochs instead. `--initial 0.25` mixes in so much of the model that
training began with, where its config has `average.initial`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from steps.training.averaging import State, averaged_model, toward
from steps.training.folder import TrainFolder
from utils.checkpoint import own_tensors, save_checkpoint
from utils.errors import UserError, run
from utils.files import require
from utils.options import Parser, share


def main() -> int:
    """The command line."""
    parser = Parser(prog="steps.average", description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True, help="model folder")
    parser.add_argument("--epoch", type=int, required=True, help="the last epoch, from 1")
    parser.add_argument("--avg", type=int, required=True, help="how many epochs")
    parser.add_argument("--plain", action="store_true", help="mean of the epochs' last models")
    parser.add_argument("--initial", type=share, default=0.0, help="weight of the model that training began with (0)")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    args = parser.parse_args()
    require(args.exp, "stage 5 (training)")
    model = average(args.exp, args.epoch, args.avg, args.plain)
    if args.initial:
        model = toward(model, TrainFolder(args.exp).initial(), args.initial)
    save_checkpoint(args.out, {"model": own_tensors(model), "epoch": args.epoch, "averaged_epochs": args.avg})
    print(f"{args.out}: epochs {args.epoch - args.avg + 1} to {args.epoch} of {args.exp}")
    return 0


def average(folder: Path, epoch: int, last: int, plain: bool) -> State:
    """`averaged_model`; where an `epoch-N.pt` is missing, the `UserError` says which averages those left allow."""
    kept = set(TrainFolder(folder).epochs())
    if not kept:
        raise UserError(f"{folder} holds no epoch-N.pt: run stage 5 (training), or give the folder of a model.")
    there = f"{folder} has only {_files(kept)}, as training deletes older ones"
    if epoch not in kept:
        raise UserError(f"--epoch {epoch}: {there}: give --epoch {_choice(kept)}.")
    if not 1 <= last <= epoch:
        raise UserError(f"--avg {last} of --epoch {epoch}: give 1 to {epoch} epochs.")
    missing = needed(epoch, last, plain) - kept
    try:
        return averaged_model(folder, epoch, last, plain)
    except UserError:
        if not missing:
            raise
    allowed = [n for n in range(1, epoch + 1) if needed(epoch, n, plain) <= kept]
    instead = f"--avg {_choice(allowed)}" + (", or --plain" if needed(epoch, last, True) <= kept else "")
    raise UserError(f"--epoch {epoch} --avg {last} needs {_files(missing)}, but {there}: give {instead}.")


def needed(epoch: int, last: int, plain: bool) -> set[int]:
    """The epochs whose files an average takes: all of them, or the two ends of a running average."""
    return set(range(epoch - last + 1, epoch + 1)) if plain else {epoch, epoch - last} - {0}


def _files(epochs: Iterable[int]) -> str:
    return ", ".join(f"epoch-{epoch}.pt" for epoch in sorted(epochs))


def _choice(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


if __name__ == "__main__":
    run(main)
