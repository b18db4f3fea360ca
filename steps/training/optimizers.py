"""One optimiser step: unscale, clip, skip what is not finite, update, without reading the device if possible."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from steps.training.initial import Pace
from steps.training.scaled_adam import ScaledAdam
from utils.options import Config

Beta = Annotated[float, Field(gt=0, lt=1)]
Groups = dict[Pace, list[nn.Parameter]]
FIRST_FP16_SCALE = 2.0**13  # losses are means over frames; torch's own 2**16 costs a few skipped steps more


class ScaledAdamConfig(Config):
    """icefall's optimiser; `lr` is relative to the size of each parameter, 0.045 with Eden is usual."""

    name: Literal["scaled_adam"] = "scaled_adam"
    lr: PositiveFloat = 0.045
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    clipping_scale: PositiveFloat | None = 2.0  # times the median gradient norm of the last hundred steps; null: off

    def build(self, groups: Groups) -> ScaledAdam:
        """The optimiser of parameters by the pace of their learning."""
        params = [{"params": params, **pace._asdict()} for pace, params in groups.items()]
        return ScaledAdam(params, lr=self.lr, betas=self.betas, clipping_scale=self.clipping_scale)


class AdamWConfig(Config):
    """torch's AdamW; matrices decay, vectors and scalars (biases, scales) do not."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 0.01

    def build(self, groups: Groups) -> torch.optim.AdamW:
        """The optimiser of parameters by the pace of their learning."""
        split = [
            {"params": [p for p in params if (p.dim() > 1) == decays], "weight_decay": decay, **pace._asdict()}
            for pace, params in groups.items()
            for decays, decay in ((True, self.weight_decay), (False, 0.0))
        ]
        split = [group for group in split if group["params"]]
        # the fused kernel can skip a step on the device, and is twice as fast on a CPU; torch 1.13 has none
        fused = {"fused": True} if hasattr(torch.amp, "GradScaler") else {}
        return torch.optim.AdamW(split, lr=self.lr, betas=self.betas, eps=1e-8, **fused)


OptimizerConfig = Annotated[ScaledAdamConfig | AdamWConfig, Field(discriminator="name")]


class Updater:
    """Turns gradients into one step of `optimizer`.

    Args:
      groups: the parameters that are trained (`steps.training.initial.groups`).
      clip_norm: largest L2 norm of all gradients together, None: no limit (ScaledAdam has a limit of its own).
      precision: with `fp16` the loss has to go through `scale()`, and gradients are unscaled here.
    """

    def __init__(
        self, groups: Groups, config: OptimizerConfig, clip_norm: float | None, precision: str, device: torch.device
    ) -> None:
        self.params = [p for params in groups.values() for p in params]
        self.optimizer = config.build(groups)
        self.base_lr = config.lr
        self.clip_norm = clip_norm
        self.scaler = _scaler(device) if precision == "fp16" else None
        self.norm: Tensor | None = None

    def scale(self, loss: Tensor) -> Tensor:
        """`loss`, multiplied by the fp16 scale where there is one."""
        return self.scaler.scale(loss) if self.scaler else loss

    def step(self, lr: float, step: float = 0) -> Tensor:
        """Update with learning rate `lr` as step number `step` (from 0).

        0-dim bool, False where the gradient was not finite and nothing was changed.

        `self.norm` is the gradient norm before clipping (ScaledAdam: weighted with the parameters' sizes), 0-dim.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"] if step >= group["start"] else 0.0
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if isinstance(self.optimizer, ScaledAdam):
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.params, self.clip_norm)
            self.optimizer.step()
            self.norm, finite = self.optimizer.norm, self.optimizer.finite
        else:
            self.norm = torch.nn.utils.clip_grad_norm_(self.params, self.clip_norm or float("inf"))
            finite = torch.isfinite(self.norm)
            self._step_if(finite)
        if self.scaler:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return finite

    def _step_if(self, finite: Tensor) -> None:
        if self.optimizer.defaults.get("fused"):
            self.optimizer.grad_scale, self.optimizer.found_inf = None, (~finite).float()
            self.optimizer.step()
        elif finite:  # free on a CPU
            self.optimizer.step()

    def state_dict(self) -> dict:
        """Everything needed to go on."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict() if self.scaler else {}}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`'s value."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def _scaler(device: torch.device):
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, init_scale=FIRST_FP16_SCALE)
    return torch.cuda.amp.GradScaler(init_scale=FIRST_FP16_SCALE)
