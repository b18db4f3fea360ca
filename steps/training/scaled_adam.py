"""ScaledAdam: Adam whose steps are proportional to each parameter's size, which is itself learned.

Source: Yao et al., "Zipformer: A faster and better encoder for automatic speech recognition" (ICLR 2024), section 3.5
and appendix; the constants and the order of operations are those of icefall's `zipformer/optim.py`, to which the tests
compare trajectories. Differences: parameters of one shape live in one tensor (nothing is stacked or copied back), the
clipping threshold stays on the device (no host synchronisation at all), and a step with a non-finite gradient changes
no parameter (icefall applies the momentum of the steps before, and before step 10 the non-finite gradient itself).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

EARLY_ESTIMATES = (10, 20, 40)  # steps at which the clipping threshold is estimated before a full period has passed


class _Stack:
    """Parameters of one shape: `value` (count, *shape), of whose rows the parameters are views."""

    def __init__(self, params: list[Tensor]) -> None:
        self.params = params
        self.scalar = params[0].numel() == 1
        self.dims = list(range(1, params[0].dim() + 1))
        self.link()

    def link(self) -> None:
        """Make the parameters views of one tensor, keeping their values."""
        if len(self.params) == 1:
            self.value = self.params[0].detach().unsqueeze(0)
            return
        self.value = torch.stack([p.detach() for p in self.params])
        for row, p in zip(self.value, self.params, strict=True):
            p.data = row

    def linked(self) -> bool:
        """False once somebody moved the parameters (for instance `model.to(device)`)."""
        return (
            self.params[0].data_ptr() == self.value.data_ptr()
            and self.params[-1].data_ptr() == self.value[-1].data_ptr()
        )

    def grad(self) -> Tensor:
        """The gradients (count, *shape), zero where a parameter has none."""
        if len(self.params) == 1 and self.params[0].grad is not None:
            return self.params[0].grad.unsqueeze(0)
        return torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in self.params])

    def rms(self) -> Tensor:
        """Root mean square of each parameter, (count, 1, ...)."""
        return self.value.square().mean(dim=self.dims, keepdim=True).sqrt()


class ScaledAdam(Optimizer):
    """Scale-invariant Adam; call `step()` after `backward()`.

    Args:
      params: parameters, or groups `{"params": [...], "lr": ...}`.
      lr: step size relative to a parameter's root mean square; 0.045 is usual, with the Eden schedule.
      clipping_scale: gradients (weighted by the sizes of their parameters) are scaled down to this many times the
        median norm of the last `clipping_update_period` steps; None: no clipping.
      scalar_lr_scale: learning rate of scalars and of the sizes themselves, relative to `lr`.
      param_min_rms, param_max_rms: limits of a parameter's size; scalar_max: limit of a scalar's absolute value.
      size_update_period: steps between updates of the sizes.

    After `step()`: `norm` (the weighted gradient norm, 0-dim, before clipping), `clip` (the factor applied) and
    `finite` (0-dim bool; False: the step was skipped), all on the parameters' device and unread.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.045,
        betas: tuple[float, float] = (0.9, 0.98),
        clipping_scale: float | None = 2.0,
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        defaults = {key: value for key, value in locals().items() if key not in ("self", "params", "__class__")}
        super().__init__(params, defaults)
        self.stacks = [_stacks(group["params"]) for group in self.param_groups]
        self.norm = self.clip = self.finite = None

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update from the parameters' `.grad`; skipped, on the device, where the gradient norm is not finite."""
        if closure is not None:
            raise ValueError("ScaledAdam takes no closure: it never evaluates the model again.")
        work, square = [], None
        for group, stacks in zip(self.param_groups, self.stacks, strict=True):
            for stack in stacks:
                if not stack.linked():
                    stack.link()
            grads = [stack.grad() for stack in stacks]
            state = self.state[stacks[0].params[0]]
            if not state:
                self._start(group, stacks)
            norm = self._norm(group, stacks, grads)
            square = norm.square() if square is None else square + norm.square().to(square.device)
            work.append((group, stacks, grads, norm, state))
        self.norm = square.sqrt()
        self.finite = torch.isfinite(self.norm)
        for group, stacks, grads, norm, state in work:
            self.clip = self._clip(group, state, norm)
            for stack, grad in zip(stacks, grads, strict=True):
                self._update(group, stack, grad, state["step"])
            state["step"] += 1

    def _start(self, group: dict, stacks: list[_Stack]) -> None:
        """Fill the state; each stack's is kept with its first parameter, the group's with its first stack."""
        for stack in stacks:
            state = self.state[stack.params[0]]
            state["exp_avg_sq"] = torch.zeros_like(stack.value)
            state["delta"] = torch.zeros_like(stack.value)
            if not stack.scalar:
                rms = stack.rms()
                state["param_rms"] = rms
                state["scale_exp_avg_sq"] = torch.zeros_like(rms)
                state["scale_grads"] = rms.new_zeros(group["size_update_period"], *rms.shape)
        first = self.state[stacks[0].params[0]]
        first["step"] = 0
        first["model_norms"] = stacks[0].value.new_zeros(group["clipping_update_period"])
        first["threshold"] = stacks[0].value.new_tensor(float("inf"))

    def _norm(self, group: dict, stacks: list[_Stack], grads: list[Tensor]) -> Tensor:
        """Norm of the gradients with respect to the relative sizes of the updates, 0-dim."""
        squares = []
        for stack, grad in zip(stacks, grads, strict=True):
            rows = torch.linalg.vector_norm(grad.flatten(1) if grad.dim() > 1 else grad.unsqueeze(1), dim=1)
            sizes = group["scalar_lr_scale"] if stack.scalar else self.state[stack.params[0]]["param_rms"].flatten()
            squares.append((rows * sizes).square().sum())
        return torch.stack(squares).sum().sqrt()

    def _clip(self, group: dict, state: dict, norm: Tensor) -> Tensor:
        """The factor (0-dim, at most 1) that the gradients are scaled by; keeps the record of norms."""
        step, period = state["step"], group["clipping_update_period"]
        if group["clipping_scale"] is None or step == 0:
            return torch.ones_like(norm)
        state["model_norms"][step % period] = torch.where(torch.isfinite(norm), norm, float("inf"))
        early = step in EARLY_ESTIMATES and step < period
        if early or step % period == 0:
            count = step if early else period  # the others are still zero, and sort first
            median = state["model_norms"].sort()[0][period - count + count // 4 * 2]
            state["threshold"] = median * (group["clipping_scale"] * (2.0 if early else 1.0))
        return torch.where(self.finite, (state["threshold"] / (norm + 1e-20)).clamp(max=1.0), 1.0)

    def _update(self, group: dict, stack: _Stack, grad: Tensor, step: int) -> None:
        state, (beta1, beta2) = self.state[stack.params[0]], group["betas"]
        keep1, keep2, one = self._gates(beta1, beta2, grad.dtype)
        grad = torch.where(self.finite, grad, 0.0).mul_(self.clip)
        if not stack.scalar:
            state["scale_grads"][step % group["size_update_period"]] = (stack.value * grad).sum(
                stack.dims, keepdim=True
            )
        square = state["exp_avg_sq"].mul_(keep2).addcmul_(grad, grad, value=1 - beta2)
        correction = 1 - beta2 ** (step + 1)
        spread = (square * (1.0 / correction)).sqrt_() if correction < 0.99 else square.sqrt()
        lr = group["lr"] * (group["scalar_lr_scale"] if stack.scalar else 1.0)
        delta = grad.mul_(-lr).div_(spread.add_(group["eps"]))
        if not stack.scalar:
            self._scale(group, stack, state, delta, step)
        state["delta"].mul_(keep1).add_(delta, alpha=1 - beta1)
        stack.value.addcmul_(state["delta"], one)
        if stack.scalar:
            stack.value.clamp_(-group["scalar_max"], group["scalar_max"])

    def _gates(self, beta1: float, beta2: float, dtype: torch.dtype) -> list[Tensor]:
        """Decay of the momentum, of the variance, and the share of the step to take: in a skipped step 1, 1, 0."""
        pairs = ((beta1, 1.0), (beta2, 1.0), (1.0, 0.0))
        return [torch.where(self.finite, taken, skipped).to(dtype) for taken, skipped in pairs]

    def _scale(self, group: dict, stack: _Stack, state: dict, delta: Tensor, step: int) -> None:
        """Make `delta` relative to the parameters' sizes and, once a period, add the learned change of the sizes."""
        period, rms = group["size_update_period"], state["param_rms"]
        due = step % period == period - 1
        if due:
            rms.copy_(stack.rms())
        delta.mul_(rms.clamp(min=group["param_min_rms"]))
        if due and step > 0:
            beta = group["betas"][1] ** period
            average = state["scale_exp_avg_sq"]
            average.mul_(beta).add_(state["scale_grads"].square().mean(dim=0), alpha=1 - beta)
            correction = (1 - beta ** ((step + 1) // period)) ** 0.5
            change = state["scale_grads"].sum(dim=0) * (-group["lr"] * group["scalar_lr_scale"] * correction)
            change = change / (average.sqrt() + group["eps"])
            change.masked_fill_(rms < group["param_min_rms"], 0.0).clamp_(-0.1, 0.1)
            change = torch.minimum(change, (group["param_max_rms"] - rms) / rms)
            delta.addcmul_(stack.value, change)


def _stacks(params: list[Tensor]) -> list[_Stack]:
    """`params` grouped by type, device and shape, in a fixed order."""
    groups: dict[tuple, list[Tensor]] = {}
    for p in params:
        groups.setdefault((str(p.dtype), str(p.device), *p.shape), []).append(p)
    return [_Stack(groups[key]) for key in sorted(groups, key=str)]
