"""Before the first step: what will be trained, on what, how, and whether the largest batch fits into memory."""

from __future__ import annotations

import torch
from torch import nn

from steps.nets.pretrained_parts import PartedModel, parameter_counts
from steps.prepare.dataset import Batch
from steps.training.ledger import Ledger
from steps.training.trainer import Batches
from utils.devices import autocast, is_out_of_memory, peak_memory_mb, reset_peak_memory, seed_all
from utils.errors import UserError
from utils.files import write_jsonl

SHOWN = 3  # dropped utterances that are named; the rest is in the file


def describe(model: PartedModel, batches: Batches, ledger: Ledger) -> None:
    """Say how large the model and the data are, which utterances are left out, and what computes each loss."""
    counts = parameter_counts(model)
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items() if name != "total")
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    some = f", {trained / 1e6:.2f} M of them trained" if trained < counts["total"] else ""
    ledger.say(f"parameters: {counts['total'] / 1e6:.2f} M ({parts}){some}")
    backends = ", ".join(f"{loss} by {backend}" for loss, backend in model.backends().items())
    ledger.say(f"losses: {backends}")
    data, *more = batches.summary()
    ledger.say(
        f"data: {data}, {batches.count(0)} batches an epoch"
        f" on each of {ledger.world.size} process(es), {batches.step.accumulate} a step"
    )
    ledger.say(batches.step.sentence(batches.unit))
    for sentence in more:
        ledger.say(sentence)
    if batches.dropped:
        file = ledger.folder / "log" / "dropped.jsonl"
        if ledger.world.main:
            write_jsonl(file, batches.dropped)
        named = "; ".join(f"{row['id']} ({row['detail']})" for row in batches.dropped[:SHOWN])
        ledger.say(f"dropped {len(batches.dropped)} that cannot be trained on, listed in {file}: {named}")


def probe(
    model: nn.Module, batches: Batches, precision: str, device: torch.device, ledger: Ledger, share: bool = False
) -> None:
    """Forward and backward of the largest batch, changing nothing of the model.

    With `share` a batch that does not fit is halved, and the number of batches a step doubled, until one does. Errors:
    `UserError`, in the main process, when memory runs out otherwise; all processes agree.
    """
    while True:
        batch = batches.worst()
        size = batches.size(batch)
        if not ledger.world.total([not _fits(model, batch, precision, device)])[0]:
            break
        if not share or len(batch) == 1:
            raise _too_large(batches, size, device, alone=share) if ledger.world.main else SystemExit(1)
        batches.resize(batches.step.half())
        ledger.say(f"largest batch: {size}, more than fits into the memory of {device}: all are halved")
        ledger.say(batches.step.sentence(batches.unit))
        if device.type == "cuda":
            torch.cuda.empty_cache()
        reset_peak_memory(device)
    ledger.say(f"largest batch: {size}, peak memory {peak_memory_mb(device)} MiB")


def _too_large(batches: Batches, size: str, device: torch.device, alone: bool) -> UserError:
    remedy = (
        "leave out what is so long (stage 2: max_duration), or take a smaller model"
        if alone
        else f"lower {batches.limit} and raise accumulate, or give batch_{batches.unit}, which does both"
    )
    return UserError(f"The largest batch ({size}) does not fit into the memory of {device}: {remedy}.")


def _fits(model: nn.Module, batch: Batch, precision: str, device: torch.device) -> bool:
    """Whether memory is enough for a step of `batch`."""
    model.train()
    seed_all(0)
    try:
        # the optimiser's two moments, which the first step will want beside all this
        reserve = [torch.empty_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
        with autocast(device, precision):
            losses = model(batch.to(device))
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        del reserve, losses
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
    return True
