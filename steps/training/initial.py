"""Where training begins: parts of the model from other experiments, and learning rates of their own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from steps.nets.lora import adapted, plain
from steps.nets.pretrained_parts import PartedModel
from utils.checkpoint import load_checkpoint
from utils.errors import UserError, nearest

BELOW = ("conv1", "conv2", "pos", "feature_extractor", "feature_projection", "pos_conv_embed")  # the encoder's layers


def initialise(model: PartedModel, init: dict[str, str]) -> list[str]:
    """Load parts of `model` from checkpoints; a sentence about each.

    `init` maps a part (`encoder`, `heads.ctc`, `encoder.encoder_embed`, `all`) to `<checkpoint>`, whose part of that
    name is taken, or to `<checkpoint>:<part>`; whether a layer has adapters here, there or in both does not change its
    own weights' names. Errors: `UserError` for parts that are not there or have other shapes, and for adapters of
    layers that have none here.
    """
    said = []
    for part, source in init.items():
        file, theirs = _source(source, part)
        own = model.full_state()
        prefix = "" if part == "all" else f"{part}."
        wanted = {name: value for name, value in own.items() if name.startswith(prefix)}
        if not wanted:
            names = [name for name, _ in model.named_modules() if name.count(".") < 2]
            raise UserError(f"init: the model has no part '{part}'{nearest(part, names)}.")
        state = load_checkpoint(file)
        state = state.get("model", state)
        before = "" if theirs == "all" else f"{theirs}."
        found = {
            plain(prefix) + plain(name)[len(plain(before)) :]: value
            for name, value in state.items()
            if name.startswith(before)
        }
        _check_adapters(found, wanted, part, source)
        there = {name: found[plain(name)] for name in wanted if plain(name) in found}
        if not there:
            # encoder, heads.ctc, net.head: what most would ask for
            names = [name.split(".") for name in state]
            parts = sorted({fields[0] if fields[0] == "encoder" else ".".join(fields[:2]) for fields in names})
            near = "" if theirs in parts else nearest(theirs, parts)
            raise UserError(
                f"init: {file} has nothing for '{part}' in '{theirs}'{near}: its parts are {', '.join(parts)}."
            )
        for name, value in there.items():
            if value.shape != wanted[name].shape:
                shapes = f"{tuple(value.shape)} there and {tuple(wanted[name].shape)} here"
                raise UserError(f"init: {name} from {file} is {shapes}: give the part the same sizes.")
        model.replace(there)
        missing = [plain(name) for name in wanted if name not in there and adapted(name) is None]
        said.append(f"{part} begins as in {source}: {len(there)} tensors" + _missing(model, missing))
    return said


def _check_adapters(found: dict[str, Tensor], wanted: dict[str, Tensor], part: str, source: str) -> None:
    """`UserError` for an adapter in `found` (plain names) whose layer is among `wanted`, without one."""
    own = {plain(name) for name in wanted}
    for name in found.keys() - own:
        if (layer := adapted(name)) is not None and f"{layer}.weight" in own:
            raise UserError(
                f"init.{part}: {source} has an adapter of '{layer}', which has none here: give the part the same lora "
                "section, or a checkpoint without adapters."
            )


def _missing(model: PartedModel, names: list[str]) -> str:
    """What the log says of `names` (plain) that a checkpoint lacks; of a pretrained part it saves what was trained."""
    pretrained = {plain(name) for name in model.pretrained_names()}
    other = [name for name in names if name not in pretrained]
    said = f", {len(names) - len(other)} pretrained ones are not there and stay" if len(names) > len(other) else ""
    return said + (f", not there: {', '.join(other[:3])}{' ...' if len(other) > 3 else ''}" if other else "")


def _source(source: str, part: str) -> tuple[Path, str]:
    """(checkpoint, its part) of `<checkpoint>[:<part>]`."""
    file, _, theirs = source.partition(":")
    path = Path(file)
    if path.is_dir():
        path = path / "averaged.pt"
    if not path.exists():
        raise UserError(f"init.{part}: {path} does not exist: train that first (stage 5), or check the path.")
    return path, theirs or part


class Pace(NamedTuple):
    """What a parameter's learning rate is multiplied by, and the step before which it is zero."""

    scale: float = 1.0
    start: int = 0


def groups(
    model: nn.Module, scales: dict[str, float], decay: float, starts: dict[str, int]
) -> dict[Pace, list[nn.Parameter]]:
    """The trained parameters by the pace of their learning.

    `scales` maps parts of the model (`encoder`, `heads.ctc.ctc_output`) to factors; the longest name counts. `decay`
    below 1 multiplies once more for every layer below the top of a stack of the encoder's `layers`, as layer-wise decay
    does (Clark et al. 2020, ELECTRA, arXiv:2003.10555). `starts` maps parts to the step from which on they learn: a new
    head on a pretrained encoder would at first spoil it. Errors: `UserError` for a part that the model lacks.
    """
    names = {name for name, _ in model.named_modules()}
    for key, parts in (("lr_scale", scales), ("start_after", starts)):
        for part in parts:
            if part not in names:
                near = nearest(part, [name for name in names if name.count(".") < 2])
                raise UserError(f"{key}: the model has no part '{part}'{near}.")
    depth = len(getattr(getattr(model, "encoder", None), "layers", ()))
    if decay < 1 and not depth:
        raise UserError("layer_decay is for pretrained encoders: this one has no 'layers', give lr_scale instead.")
    found: dict[Pace, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = _of_part(name, scales, 1.0) * _layer_factor(name, depth, decay)
        found.setdefault(Pace(scale, _of_part(name, starts, 0)), []).append(parameter)
    if not found:
        raise UserError("freeze: all parts of the model are frozen: leave one to train.")
    return found


def _of_part(name: str, values: dict, default: float) -> float:
    """The value of the longest part that the parameter belongs to."""
    parts = [part for part in values if name == part or name.startswith(f"{part}.")]
    return values[max(parts, key=len)] if parts else default


def _layer_factor(name: str, depth: int, decay: float) -> float:
    if decay == 1.0 or not name.startswith("encoder."):
        return 1.0
    fields = name.split(".")
    if fields[1] == "layers":
        return decay ** (depth - 1 - int(fields[2]))
    # what lies below the layers learns slowest, what lies above as the heads
    return decay**depth if fields[1] in BELOW else 1.0
