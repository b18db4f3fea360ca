"""What models have in common of which others trained a part: freezing, and states without what can be read again."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

from utils.errors import UserError, nearest

M = TypeVar("M", bound="PartedModel")


class PartedModel(nn.Module):
    """Base of models that consist of `parts`, each of which may have been trained elsewhere."""

    feature_parameters = 0  # of a frozen encoder that made its features
    feature_init: str | None = None  # the checkpoint that this encoder is of

    def __init__(self) -> None:
        super().__init__()
        self.step: float = 0
        self._replaced: set[str] = set()  # pretrained parameters that have been given other values
        self._frozen: list[nn.Module] = []

    def parts(self) -> dict[str, nn.Module]:
        """The parts by the names that parameters begin with."""
        raise NotImplementedError

    def freeze(self, parts: tuple[str, ...]) -> None:
        """Do not train `parts`; `UserError` for one that is not there."""
        modules = dict(self.named_modules())
        for part in parts:
            if part not in modules:
                near = nearest(part, [name for name in modules if name.count(".") < 2])
                raise UserError(f"freeze: the model has no part '{part}'{near}.")
            modules[part].requires_grad_(False)
        self._frozen = [modules[part] for part in parts]

    def train(self: M, mode: bool = True) -> M:
        """As torch's; what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def load_pretrained(self, ids: dict[str, list[int] | None]) -> None:
        """Set what others trained to what they trained; `ids` are, by head, their ids of its tokens."""
        raise NotImplementedError

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return {f"{prefix}.{name}" for prefix, part in self.parts().items() for name in _pretrained(part)}

    def backends(self) -> dict[str, str]:
        """What computes each loss: `{"ctc.ctc": "torch", ...}`."""
        raise NotImplementedError

    def full_state(self) -> dict[str, Tensor]:
        """Every parameter and buffer."""
        return super().state_dict()

    def replace(self, state: dict[str, Tensor]) -> None:
        """Set some parameters and buffers, which `state_dict` then has, also if they were pretrained."""
        self._replaced |= state.keys()
        self.load_state_dict(state, strict=False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As torch's, without pretrained parts of which nothing is trained: they are read from where they came from."""
        state = super().state_dict(*args, **kwargs)
        for prefix, part in self.parts().items():
            names = _pretrained(part)
            if not any(part.get_parameter(name).requires_grad for name in names):
                for name in {f"{prefix}.{name}" for name in names} - self._replaced:
                    del state[name]
        return state

    def begun(self) -> dict[str, Tensor]:
        """What is trained here of that which was trained before: of pretrained parts, and what `replace` has set."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        names = (self.pretrained_names() | self._replaced) - frozen
        return {name: value for name, value in self.state_dict().items() if name in names and value.is_floating_point()}

    def set_batch_count(self, step: float) -> None:
        """Tell schedules which training step comes next."""
        self.step = step


def _pretrained(part: nn.Module) -> set[str]:
    """Names of a part's parameters that others trained; of torch's own layers, none."""
    return part.pretrained_names() if hasattr(part, "pretrained_names") else set()


def parameter_counts(model: PartedModel) -> dict[str, int]:
    """Numbers of parameters: of each part, and in all; `features`: of a frozen encoder that made the features."""
    parts = {**model.parts(), "total": model}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    if model.feature_parameters:
        counts["features"] = model.feature_parameters
        counts["total"] += model.feature_parameters
    return counts
