"""Train a model: `python -m steps.train conf/joint.yaml --out exp/joint [key=value ...]`, or through torchrun.

The same command again goes on from where training was left, whatever ended it, and does nothing once it is finished.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import torch

from steps.lang.tokenizer import Tokenizer
from steps.model_folder import PRETRAINED, copy_pretrained
from steps.nets.model import Model
from steps.prepare.cuts import Cuts
from steps.training.config import TrainConfig
from steps.training.data import SpeechBatches
from steps.training.folder import TrainFolder
from steps.training.initial import initialise
from steps.training.ledger import Ledger
from steps.training.nonfinite import NonFinite
from steps.training.precision import check_precision, choose_precision
from steps.training.preflight import describe, probe
from steps.training.report import about_model, write_report
from steps.training.session import Session
from steps.training.signals import StopSignal
from steps.training.trainer import Trainer
from utils.checkpoint import own_tensors, save_checkpoint
from utils.devices import choose_device, seed_all
from utils.distributed import World, join_world
from utils.errors import UserError, run
from utils.files import write_json
from utils.options import Parser, load_config


def main() -> int:
    """The command line; its status is 0, or 130 or 143 when training was interrupted and saved."""
    parser = Parser(prog="steps.train", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values, e.g. optimizer.lr=0.03")
    parser.add_argument("--out", required=True, help="model folder, exp/<model>")
    parser.add_argument("--restart", action="store_true", help="delete what an earlier training left there")
    args = parser.parse_intermixed_args()
    config = load_config(args.config, TrainConfig, args.overrides)
    world = join_world(choose_device(config.device).type == "cuda")
    try:
        return train(config, TrainFolder(args.out), world, args.restart)
    finally:
        world.close()


def train(config: TrainConfig, folder: TrainFolder, world: World, restart: bool = False) -> int:
    """Train what `config` says in `folder`; the exit status."""
    try:
        return _train(config, folder, world, restart)
    finally:
        folder.unlock()


def _train(config: TrainConfig, folder: TrainFolder, world: World, restart: bool) -> int:
    device = choose_device(config.device, world.local_rank)
    check_precision(config.precision, device)
    config, tokenizers = prepare(config, folder, world, restart)
    if world.from_main(folder.finished(config.epochs)):
        print(f"{folder.path} is finished: {config.epochs} epochs, averaged.pt is there", file=sys.stderr)
        return 0
    if not config.epochs:
        return leave(config, folder, world, device, tokenizers)
    session, stop = build(config, folder, world, device, tokenizers)
    with stop:
        finished = session.run(stop)
    if finished and world.main:
        write_report(folder.path, session, command_line())
    session.ledger.close()
    return 0 if finished else stop.status


def prepare(
    config: TrainConfig, folder: TrainFolder, world: World, restart: bool
) -> tuple[TrainConfig, dict[str, Tokenizer]]:
    """Make the folder a model folder (config, lang folders, feature options) and read the tokens back from it."""
    # a mistake is found by one process, which tells the others: one sentence, and nobody waits in vain
    feature_dim = world.on_main(lambda: _prepare_folder(config, folder, restart))
    config = config.model_copy(update={"feature_dim": feature_dim})
    return config, {name: Tokenizer.load(folder.lang(name)) for name in config.heads}


def _prepare_folder(config: TrainConfig, folder: TrainFolder, restart: bool) -> int:
    """Lock the folder and fill it; the number of values a frame."""
    features = Cuts.load(config.data.train).config
    if "feature_dim" in config.model_fields_set and config.feature_dim != features.feature_dim:
        raise UserError(
            f"feature_dim is {config.feature_dim}, but {config.data.train} has {features.feature_dim}: leave it out."
        )
    folder.lock()
    if restart:
        folder.clear()
    folder.check_config(config.model_copy(update={"feature_dim": features.feature_dim}))
    copy_pretrained(config, folder.path)
    folder.copy_inputs(features, {name: Path(head.lang) for name, head in config.heads.items()})
    return features.feature_dim


def begin(
    config: TrainConfig, folder: TrainFolder, device: torch.device, tokenizers: dict[str, Tokenizer]
) -> tuple[Model, list[str]]:
    """The model before the first step, and sentences on which parts come from other experiments."""
    seed_all(config.seed)
    sizes = {name: tokenizer.vocab_size for name, tokenizer in tokenizers.items()}
    model = Model(config, sizes, folder.path / PRETRAINED)
    # also before going on from a checkpoint, which leaves out what is not trained
    model.load_pretrained({name: tokenizer.ids for name, tokenizer in tokenizers.items()})
    begun_from = initialise(model, config.init)
    return model.to(device), begun_from


def leave(
    config: TrainConfig, folder: TrainFolder, world: World, device: torch.device, tokenizers: dict[str, Tokenizer]
) -> int:
    """The model folder of a model that is not trained (`epochs: 0`): a pretrained one as it is."""
    model, begun_from = begin(config, folder, device, tokenizers)
    print("\n".join([*begun_from, f"{folder.path}: as it begins (epochs: 0)"]), file=sys.stderr)
    if world.main:
        save_checkpoint(folder.path / "averaged.pt", {"model": own_tensors(model.state_dict()), "epoch": 0})
        write_json(folder.path / "train.json", about_model(model, config, device, command_line()))
    return 0


def build(
    config: TrainConfig, folder: TrainFolder, world: World, device: torch.device, tokenizers: dict[str, Tokenizer]
) -> tuple[Session, StopSignal]:
    """Everything ready for the first step, or for the next one after an interruption."""
    model, begun_from = begin(config, folder, device, tokenizers)
    batches = SpeechBatches(config, model, tokenizers, world)
    ledger = Ledger(folder.path, world, batches.hours, config.epochs)
    describe(model, batches, config, ledger)
    for sentence in begun_from:
        ledger.say(sentence)
    state, source, complaints = folder.newest()
    for complaint in complaints:
        ledger.say(f"warning: {complaint}")
    if state:
        precision, why = state["precision"], "as before"
    else:
        model.set_batch_count(0)
        sample = batches.sample().to(device)
        precision, why = world.from_main(choose_precision(config.precision, device, model, sample))
    ledger.say(f"device: {device}, precision: {precision} ({why})")
    if config.probe and not state:
        probe(model, batches.worst(), precision, device, ledger)
    stop = StopSignal()
    name = "nonfinite.jsonl" if world.main else f"nonfinite.{world.rank}.jsonl"
    nonfinite = NonFinite(folder.path / "log" / name, config.max_nonfinite)
    trainer = Trainer(model, batches, config, precision, device, world, nonfinite, stop)
    session = Session(config, trainer, batches, folder, ledger)
    if state:
        session.resume(state, source)
    else:
        session.save()  # a full disk shows now, and the choice of precision is kept
    return session, stop


def command_line() -> str:
    """This program's command, as the user could type it."""
    return shlex.join(["python", "-m", "steps.train", *sys.argv[1:]])


if __name__ == "__main__":
    run(main)
