"""What follows for a recipe on each preset, as a table: `python -m steps.presets conf/joint.yaml [key=value ...]`."""

from __future__ import annotations

from steps.train import read_config
from steps.training.presets import SHARED, load_preset
from steps.training.step_size import StepSize
from utils.errors import run
from utils.options import Parser

COLUMNS = ("preset", "nodes x processes", "batches a step", "{} a batch", "{} a step", "lr", "workers", "precision")


def main() -> None:
    """The command line."""
    parser = Parser(prog="steps.presets", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="YAML file of steps.train, with batch_seconds and seconds_per_gb")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values, as for steps.train")
    parser.add_argument("--preset", nargs="+", help="names or YAML files (otherwise all of egs/conf/presets)")
    args = parser.parse_intermixed_args()
    rows = []
    for name in args.preset or sorted(path.stem for path in SHARED.glob("*.yaml")):
        preset, config = load_preset(name), read_config(args.config, args.overrides, name)
        size = StepSize.of(config, preset.world)
        batches = f"{preset.world} x {size.accumulate}"
        lr, rest = f"{config.optimizer.lr:.3g}", (str(config.data.workers), config.precision)
        own = (f"{preset.nodes} x {preset.processes}", batches, f"{size.most:.0f}", f"{size.total:.0f}", lr, *rest)
        rows.append((name, *own))
    head = tuple(column.format(config.unit) for column in COLUMNS)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    run(main)
