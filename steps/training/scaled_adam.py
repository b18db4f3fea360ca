"""ScaledAdam: Adam whose steps are proportional to each parameter's size, which is itself learned.

Source: Yao et al., "Zipformer: A faster and better encoder for automatic speech recognition" (ICLR 2024), section 3.5
and appendix; the constants and the order of operations are those of icefall's `zipformer/optim.py`, to which the tests
compare trajectories. Differences: parameters of one shape live in one tensor (nothing is stacked or copied back), the
clipping threshold stays on an accelerator (no host synchronisation at all), and a step with a non-finite gradient
changes neither parameters nor moments (icefall applies the momentum, and before step 10 the non-finite gradient
itself). It counts as a step of the periods, on every device, since an accelerator's host does not know of it.
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
        # reading a number is free on a CPU and makes the accelerator wait elsewhere
        self.read = all(p.device.type == "cpu" for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update from the parameters' `.grad`; skipped where the gradient norm is not finite."""
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
        plain = self.read and bool(self.finite)
        for group, stacks, grads, norm, state in work:
            self.clip = self._clip(group, state, norm)
            state.setdefault("skipped", norm.new_zeros(()))  # older checkpoints have none
            correction = self._correction(group, state)
            for stack, grad in zip(stacks, grads, strict=True):
                self._update(group, stack, grad, state["step"], correction, plain)
            state["step"] += 1
            if not plain:
                state["skipped"] += (~self.finite).to(norm)

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

    def _correction(self, group: dict, state: dict) -> float | Tensor:
        """The share of its final value that the mean square has reached (1 from 0.99 on), by the steps not skipped."""
        beta, step, skipped = group["betas"][1], state["step"], state["skipped"]
        if self.read:
            correction = 1 - beta ** (step + 1 - int(skipped))
            return correction if correction < 0.99 else 1.0
        correction = 1 - torch.pow(beta, step + 1 - skipped.double())
        return torch.where(correction < 0.99, correction, 1.0)

    def _update(
        self, group: dict, stack: _Stack, grad: Tensor, step: int, correction: float | Tensor, plain: bool
    ) -> None:
        """`plain`: the step is known to be finite, and numbers may be read."""
        state, (beta1, beta2) = self.state[stack.params[0]], group["betas"]
        factor, keep1, keep2 = 1.0, beta1, beta2
        if plain:
            factor = float(self.clip)
        else:  # a skipped step has no gradient and leaves the moments as they are
            grad = torch.where(self.finite, grad * self.clip, 0.0)
            keep1, keep2 = (torch.where(self.finite, beta, 1.0).to(grad.dtype) for beta in group["betas"])
        square = state["exp_avg_sq"].mul_(keep2).addcmul_(grad, grad, value=(1 - beta2) * factor**2)
        # delta = -lr * size * gradient / (sqrt(square / correction) + eps), with the size inside of the denominator
        lr, size, change = group["lr"] * group["scalar_lr_scale"], None, None
        if not stack.scalar:
            lr = group["lr"]
            size, change = self._sizes(group, stack, state, grad, factor, step, plain)
        spread = (square * (1 / correction if size is None else 1 / (correction * size * size))).sqrt_()
        spread.add_(group["eps"] if size is None else group["eps"] / size)
        delta = state["delta"].mul_(keep1).addcdiv_(grad, spread, value=-lr * factor * (1 - beta1))
        if change is not None:
            delta.addcmul_(stack.value, change * (1 - beta1))
        if plain:
            stack.value.add_(delta)
        else:
            stack.value.addcmul_(delta, self.finite.to(delta.dtype))
        if stack.scalar:
            stack.value.clamp_(-group["scalar_max"], group["scalar_max"])

    def _sizes(
        self, group: dict, stack: _Stack, state: dict, grad: Tensor, factor: float, step: int, plain: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The parameters' sizes (count, 1, ...) and, once a period, the relative change of these that is learned."""
        period, rms = group["size_update_period"], state["param_rms"]
        products = torch.bmm(stack.value.flatten(1).unsqueeze(1), grad.flatten(1).unsqueeze(2))
        state["scale_grads"][step % period] = products.view_as(rms) * factor
        due = step % period == period - 1
        if due:
            rms.copy_(stack.rms())
        size = rms.clamp(min=group["param_min_rms"])
        if not due or step == 0:
            return size, None
        beta = group["betas"][1] ** period
        average = state["scale_exp_avg_sq"]
        renewed = average.mul(beta).add_(state["scale_grads"].square().mean(dim=0), alpha=1 - beta)
        average.copy_(renewed if plain else torch.where(self.finite, renewed, average))
        correction = (1 - beta ** ((step + 1) // period)) ** 0.5
        change = state["scale_grads"].sum(dim=0) * (-group["lr"] * group["scalar_lr_scale"] * correction)
        change = change / (average.sqrt() + group["eps"])
        change.masked_fill_(rms < group["param_min_rms"], 0.0).clamp_(-0.1, 0.1)
        change = torch.minimum(change, (group["param_max_rms"] - rms) / rms)
        return size, change if plain else torch.where(self.finite, change, 0.0)


def _stacks(params: list[Tensor]) -> list[_Stack]:
    """`params` grouped by type, device and shape, in a fixed order."""
    groups: dict[tuple, list[Tensor]] = {}
    for p in params:
        groups.setdefault((str(p.dtype), str(p.device), *p.shape), []).append(p)
    return [_Stack(groups[key]) for key in sorted(groups, key=str)]
