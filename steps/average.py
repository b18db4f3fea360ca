"""Average a model: `python -m steps.average --exp exp/joint --epoch 30 --avg 5 --out exp/joint/avg-30-5.pt`.

The average of the model at regular steps of the last `--avg` epochs, from two checkpoints' running averages; `--plain`
takes the mean of the models at the ends of these epochs instead.
"""

from __future__ import annotations

from pathlib import Path

from steps.training.averaging import averaged_model
from utils.checkpoint import own_tensors, save_checkpoint
from utils.errors import UserError, run
from utils.files import require
from utils.options import Parser


def main() -> int:
    """The command line."""
    parser = Parser(prog="steps.average", description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True, help="model folder")
    parser.add_argument("--epoch", type=int, required=True, help="the last epoch, from 1")
    parser.add_argument("--avg", type=int, required=True, help="how many epochs")
    parser.add_argument("--plain", action="store_true", help="mean of the epochs' last models")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    args = parser.parse_args()
    require(args.exp, "stage 5 (training)")
    if not 1 <= args.avg <= args.epoch:
        raise UserError(f"--avg {args.avg} of --epoch {args.epoch}: give 1 to {args.epoch} epochs.")
    model = averaged_model(args.exp, args.epoch, args.avg, args.plain)
    save_checkpoint(args.out, {"model": own_tensors(model), "epoch": args.epoch, "averaged_epochs": args.avg})
    print(f"{args.out}: epochs {args.epoch - args.avg + 1} to {args.epoch} of {args.exp}")
    return 0


if __name__ == "__main__":
    run(main)
