"""`train.json`: what a table of results says about how a model was made."""

from __future__ import annotations

import time
from pathlib import Path

from steps.training.session import Session
from utils.devices import peak_memory_mb
from utils.files import write_json
from utils.hardware import hardware


def write_report(folder: Path, session: Session, command: str) -> None:
    """Write `train.json` of a finished training; losses are per encoder frame, in nats."""
    trainer, config, progress = session.trainer, session.config, session.trainer.progress
    model, machine = trainer.model, hardware()
    values = {
        "command": command,
        "commit": f"{machine['commit']}-dirty" if machine["dirty"] else machine["commit"],
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "data_hours": round(session.batches.hours, 4),
        "speech_hours_seen": round(progress.speech / 3600, 4),
        "seconds": round(progress.seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "peak_memory_mb": peak_memory_mb(trainer.device),
        "hardware": {key: machine[key] for key in ("cpu", "cores", "threads", "gpu", "memory_gb")},
        "processes": trainer.world.size,
        "precision": trainer.precision,
        "versions": {key: machine[key] for key in ("python", "torch", "k2", "lhotse", "profile")},
        "epochs": config.epochs,
        "averaged_epochs": session.averaged,
        "steps": progress.step,
        "init": config.init,
        "final": progress.final,
        "valid": progress.valid,
        "best": {"epoch": progress.best_epoch, "loss": progress.best_loss},
        "backends": model.backends(),
        "skipped_steps": progress.skipped,
        "dropped_utterances": len(session.batches.dropped),
    }
    write_json(folder / "train.json", values)
