"""`train.json`: what a table of results says about how a model was made."""

from __future__ import annotations

from pathlib import Path

import torch

from steps.nets.pretrained_parts import PartedModel
from steps.training.config import LoopConfig
from steps.training.session import Session
from utils.devices import peak_memory_mb
from utils.files import write_json
from utils.hardware import provenance


def about_model(model: PartedModel, config: LoopConfig, device: torch.device, command: str) -> dict:
    """What is known of a model before its first step: command, code, machine, parameters."""
    made = {"features": model.feature_init} if model.feature_init else {}
    return {
        **provenance(command),
        "parameters": sum(p.numel() for p in model.parameters()) + model.feature_parameters,
        "parameters_trained": sum(p.numel() for p in model.parameters() if p.requires_grad) if config.epochs else 0,
        "peak_memory_mb": peak_memory_mb(device),
        "epochs": config.epochs,
        "init": config.init | made,
    }


def write_report(folder: Path, session: Session, command: str) -> None:
    """Write `train.json` of a finished training; losses are per encoder frame, in nats."""
    trainer, progress = session.trainer, session.trainer.progress
    values = {
        **about_model(trainer.model, session.config, trainer.device, command),
        **session.batches.amounts(progress.speech),
        "seconds": round(progress.seconds, 1),
        "processes": trainer.world.size,
        "step": session.batches.step._asdict() | {"total": session.batches.step.total, "unit": session.batches.unit},
        "precision": trainer.precision,
        "averaged_epochs": session.averaged,
        "steps": progress.step,
        "final": progress.final,
        "valid": progress.valid,
        "best": {"epoch": progress.best_epoch, "loss": progress.best_loss},
        "backends": trainer.model.backends(),
        "skipped_steps": progress.skipped,
        "dropped_utterances": len(session.batches.dropped),
    }
    write_json(folder / "train.json", values)
