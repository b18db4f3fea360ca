"""Low-rank adapters through peft, and weights of pretrained modules whether or not they have adapters."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field
from torch import Tensor, nn

from utils.errors import UserError
from utils.options import Config

M = TypeVar("M", bound=nn.Module)
_BASE, _ADAPTER = ".base_layer.", ".lora_"  # where peft moves the layer that it adapts, and what it adds


class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on the linear layers whose names end in one of `targets`."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("linear_q", "linear_v")


class TransformersLoraConfig(LoraConfig):
    """The same on layers that are called as most in transformers are."""

    targets: tuple[str, ...] = ("q_proj", "v_proj")


def add_lora(module: M, config: LoraConfig | None, spared: tuple[str, ...] = (), key: str = "lora") -> M:
    """`module` with adapters (None: as it is); they and its parts called in `spared` are then all that is trained.

    Errors: `UserError` naming `key` where no layer is called as one of the targets.
    """
    if config is None:
        return module
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    about = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(config.targets)
    )
    try:
        inject_adapter_in_model(about, module)
    except ValueError:
        linear = {name.rpartition(".")[2] for name, part in module.named_modules() if isinstance(part, nn.Linear)}
        raise UserError(
            f"{key}.targets: no layer is called {' or '.join(config.targets)}: there are {', '.join(sorted(linear))}."
        ) from None
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(_ADAPTER in name or name.startswith(spared))
        if _ADAPTER in name:
            parameter.data = parameter.data.float()  # what is trained, also where it adapts a half-precision layer
    return module


def plain(name: str) -> str:
    """A parameter's name as it is without adapters."""
    return name.replace(_BASE, ".")


def adapted(name: str) -> str | None:
    """The layer that an adapter's parameter of this name belongs to; None for any other parameter."""
    layer, found, _ = name.partition(_ADAPTER)
    return layer if found else None


def load_weights(module: nn.Module, weights: dict[str, Tensor], source: str, spared: tuple[str, ...] = ()) -> None:
    """Copy `weights` into the parameters and buffers of these names, adapters or not.

    Errors: `UserError` naming `source` for a name that `module` lacks or that has another shape there, and for a
    parameter (but adapters, and parts in `spared`) that `weights` lack.
    """
    state = module.state_dict()
    places = {plain(name): name for name in state}
    for name, value in weights.items():
        if name not in places:
            raise UserError(f"{source} has '{name}', for which this model has no place: give another 'path'.")
        if state[places[name]].shape != value.shape:
            found, wanted = tuple(value.shape), tuple(state[places[name]].shape)
            raise UserError(f"{source}: '{name}' has shape {found}, here it is {wanted}: give another 'path'.")
    if missing := {plain(name) for name in pretrained_part(module, spared)} - weights.keys():
        raise UserError(f"{source} has no '{min(missing)}': use the weights that belong to its config.json.")
    module.load_state_dict({places[name]: value for name, value in weights.items()}, strict=False)


def pretrained_part(module: nn.Module, spared: tuple[str, ...] = ()) -> set[str]:
    """Names of the parameters that came with a pretrained module: all but adapters and the parts in `spared`.

    A parameter that two layers share has both their names, as in the module's state.
    """
    state = module.state_dict(keep_vars=True)
    names = {name for name, value in state.items() if isinstance(value, nn.Parameter) and _ADAPTER not in name}
    return {name for name in names if not (spared and name.startswith(spared))}
