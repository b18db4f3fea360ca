"""Averages of models: over all of training, from which the average of any of its last epochs follows, or decaying.

The first is icefall's trick: if a(n) is the mean of the first n samples of the model, the mean of the samples between m
and n is (n·a(n) - m·a(m)) / (n - m); two checkpoints give the average of every sample between them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from utils.checkpoint import average_states, load_checkpoint

State = dict[str, Tensor]


class RunningAverage:
    """The average of a model's floating-point state, in float64.

    Args:
      model: averaged from its present state on, which is not itself a sample.
      decay: None: plain mean of the samples; otherwise the weight of the past in an exponential moving average,
        corrected for its start (as Adam's moments are), so that early samples do not weigh more.
    """

    def __init__(self, model: nn.Module, decay: float | None = None) -> None:
        self.decay = decay
        self.count = 0
        self.state = {key: value.detach().double() for key, value in _floating(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the present model as one sample."""
        self.count += 1
        weight = 1 / self.count if self.decay is None else (1 - self.decay) / (1 - self.decay**self.count)
        for key, value in _floating(model).items():
            self.state[key].lerp_(value.double(), weight)

    def state_dict(self) -> dict:
        """`{"count": samples, "state": tensors, "decay": as given}`."""
        return {"count": self.count, "state": self.state, "decay": self.decay}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from `state_dict()`'s value."""
        self.count = saved["count"]
        for key, value in self.state.items():
            value.copy_(saved["state"][key])


def between(later: dict, earlier: dict | None) -> State | None:
    """The mean of the samples after `earlier` up to `later` (two `RunningAverage.state_dict()`s; None: the beginning).

    None where no sample was taken between the two.
    """
    start = earlier["count"] if earlier else 0
    if later["count"] <= start:
        return None
    if not start:
        return later["state"]
    total = later["count"] - start
    return {k: (v * later["count"] - earlier["state"][k] * start) / total for k, v in later["state"].items()}


def with_average(model: State, average: State) -> State:
    """`model`'s state with its floating-point values replaced by `average`'s, in `model`'s number formats."""
    return {key: average[key].to(value.dtype) if key in average else value for key, value in model.items()}


def toward(model: State, initial: State, weight: float) -> State:
    """`model` with `weight` of `initial` where that has a value: fine-tuned models so forget less of what they knew.

    Source: Wortsman et al. 2022, Robust fine-tuning of zero-shot models (WiSE-FT), arXiv:2109.01903, equation 1; their
    alpha is 1 - `weight`.
    """
    return {k: v.lerp(initial[k].to(v), weight) if k in initial else v for k, v in model.items()}


def averaged_model(folder: Path, epoch: int, last: int, plain: bool = False) -> State:
    """The average of the model over the `last` epochs up to `epoch`, from the `epoch-N.pt` in `folder`.

    From the running averages at both ends, or (`plain`, or where no sample fell between them) the mean of the models at
    the epochs' ends; with a decaying average, that average at the end of `epoch`. Errors: `UserError` naming the file
    that is missing.
    """
    final = load_checkpoint(folder / f"epoch-{epoch}.pt")
    later = final.get("average")
    if not plain and later and later["decay"] is not None and later["count"]:
        return with_average(final["model"], later["state"])
    if not plain and later and later["decay"] is None:
        earlier = load_checkpoint(folder / f"epoch-{epoch - last}.pt")["average"] if epoch > last else None
        if (average := between(later, earlier)) is not None:
            return with_average(final["model"], average)
    files = [folder / f"epoch-{number}.pt" for number in range(max(epoch - last, 0) + 1, epoch + 1)]
    return average_states(load_checkpoint(file)["model"] for file in files)


def _floating(model: nn.Module) -> State:
    return {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
