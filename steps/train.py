"""Train a model: `python -m steps.train conf/joint.yaml --out exp/joint [key=value ...]`, or through torchrun.

The same command again goes on from where training was left, whatever ended it, and does nothing once it is finished.
"""

from __future__ import annotations

import shlex
import sys

import torch

from steps.nets.pretrained_parts import PartedModel
from steps.training import presets
from steps.training.config import TrainConfig
from steps.training.folder import TrainFolder
from steps.training.initial import initialise
from steps.training.language_model import LanguageModelTask, LmTrainConfig
from steps.training.ledger import Ledger
from steps.training.nonfinite import NonFinite
from steps.training.precision import check_precision, choose_precision
from steps.training.preflight import describe, probe
from steps.training.report import about_model, write_report
from steps.training.session import Session
from steps.training.signals import StopSignal
from steps.training.speech import SpeechTask
from steps.training.step_size import StepSize
from steps.training.trainer import Trainer
from steps.training.translation import TranslationTask, TranslationTrainConfig
from utils.checkpoint import own_tensors, save_checkpoint
from utils.devices import choose_device, seed_all
from utils.distributed import World, join_world
from utils.errors import run
from utils.files import write_json
from utils.options import Parser, check_config, load_yaml, override

AnyConfig = TrainConfig | TranslationTrainConfig | LmTrainConfig
Task = SpeechTask | TranslationTask | LanguageModelTask
TASKS: dict[type[AnyConfig], type[Task]] = {
    TrainConfig: SpeechTask,
    TranslationTrainConfig: TranslationTask,
    LmTrainConfig: LanguageModelTask,
}
KINDS = {"translator": TranslationTrainConfig, "language_model": LmTrainConfig}  # by the key that only they have


def main() -> int:
    """The command line; its status is 0, or 130 or 143 when training was interrupted and saved."""
    parser = Parser(prog="steps.train", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values, e.g. optimizer.lr=0.03")
    parser.add_argument("--out", required=True, help="model folder, exp/<model>")
    parser.add_argument("--restart", action="store_true", help="delete what an earlier training left there")
    parser.add_argument("--preset", help="the machine: a YAML file, or a name of egs/conf/presets (laptop, gpu24, ...)")
    args = parser.parse_intermixed_args()
    config = read_config(args.config, args.overrides, args.preset)
    world = join_world(choose_device(config.device).type == "cuda")
    try:
        return train(config, TrainFolder(args.out), world, args.restart)
    finally:
        world.close()


def read_config(path: str, overrides: list[str], preset: str | None = None) -> AnyConfig:
    """The YAML file with overrides: with a `translator`, a `language_model`, or with an encoder and heads.

    What follows from a preset's machine goes below the overrides.
    """
    values = override(load_yaml(path), overrides)
    config = check_config(values, config_kind(values), path)
    if preset:
        values = override(values, presets.overrides(presets.load_preset(preset), config, path, overrides))
        config = check_config(values, config_kind(values), f"{path} with preset {preset}")
    return config


def config_kind(values: dict) -> type[AnyConfig]:
    """What the keys of a YAML file describe."""
    return next((kind for key, kind in KINDS.items() if key in values), TrainConfig)


def train(config: AnyConfig, folder: TrainFolder, world: World, restart: bool = False) -> int:
    """Train what `config` says in `folder`; the exit status."""
    try:
        return _train(config, folder, world, restart)
    finally:
        folder.unlock()


def _train(config: AnyConfig, folder: TrainFolder, world: World, restart: bool) -> int:
    device = choose_device(config.device, world.local_rank)
    check_precision(config.precision, device)
    task = TASKS[type(config)](folder)
    # a mistake is found by one process, which tells the others: one sentence, and nobody waits in vain
    config = config.model_copy(update=world.on_main(lambda: task.prepare(config, restart)))
    if world.from_main(folder.finished(config.epochs)):
        print(f"{folder.path} is finished: {config.epochs} epochs, averaged.pt is there", file=sys.stderr)
        return 0
    if not config.epochs:
        return leave(task, config, folder, world, device)
    session, stop = build(task, config, folder, world, device)
    with stop:
        finished = session.run(stop)
    if finished and world.main:
        write_report(folder.path, session, command_line())
    session.ledger.close()
    return 0 if finished else stop.status


def begin(
    task: Task, config: AnyConfig, device: torch.device, state: dict | None = None
) -> tuple[PartedModel, list[str]]:
    """The model before the first step, and sentences on which parts come from other experiments.

    Where training goes on from `state`, only what that leaves out is read from elsewhere.
    """
    seed_all(config.seed)
    model = task.model(config, state)
    begun_from = [] if state else initialise(model, config.init)
    return model.to(device), begun_from


def leave(task: Task, config: AnyConfig, folder: TrainFolder, world: World, device: torch.device) -> int:
    """The model folder of a model that is not trained (`epochs: 0`): a pretrained one as it is."""
    model, begun_from = begin(task, config, device)
    print("\n".join([*begun_from, f"{folder.path}: as it begins (epochs: 0)"]), file=sys.stderr)
    if world.main:
        save_checkpoint(folder.path / "averaged.pt", {"model": own_tensors(model.state_dict()), "epoch": 0})
        write_json(folder.path / "train.json", about_model(model, config, device, command_line()))
    return 0


def build(
    task: Task, config: AnyConfig, folder: TrainFolder, world: World, device: torch.device
) -> tuple[Session, StopSignal]:
    """Everything ready for the first step, or for the next one after an interruption."""
    state, source, complaints = folder.newest()
    model, begun_from = begin(task, config, device, state)
    batches = task.batches(config, model, world)
    ledger = Ledger(folder.path, world, batches.total, config.epochs, batches.unit)
    if state:
        batches.resize(batches.step.resumed(state, source, batches.limit))
    describe(model, batches, ledger)
    for sentence in begun_from:
        ledger.say(sentence)
    for complaint in complaints:
        ledger.say(f"warning: {complaint}")
    if state:
        precision, why = state["precision"], "as before"
    else:
        if config.average.initial:
            world.on_main(lambda: folder.save_initial(model.begun()))
        model.set_batch_count(0)
        sample = batches.sample().to(device)
        precision, why = world.from_main(choose_precision(config.precision, device, model, sample))
    ledger.say(f"device: {device}, precision: {precision} ({why})")
    if config.probe and (not state or batches.step.planned != StepSize(**state["step"]).planned):
        probe(model, batches, precision, device, ledger, share=config.batch_total is not None)
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
