"""COMET (Rei et al., EMNLP 2020): translations judged by a trained model that reads source and reference as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from steps.scoring.hypotheses import Decoded
from steps.scoring.measures import Measure
from utils.errors import UserError


@dataclass(frozen=True)
class Comet:
    """A COMET model: `predict` gives a score an entry for entries {"src", "mt", "ref"}, about 0 (bad) to 1 (good)."""

    model: str
    package: str  # version
    predict: Callable[[Sequence[dict[str, str]]], Sequence[float]]

    def measure(self, decoded: Decoded, replicates: int = 0, seed: int = 0) -> Measure:
        """COMET times 100, the mean over utterances, of the texts as they are, against the first reference of each.

        Errors: `UserError` where an utterance's source is not known, or its score no number.
        """
        if unknown := [name for name, text in zip(decoded.ids, decoded.sources, strict=True) if text is None]:
            raise UserError(
                f"{decoded.folder / 'hyp.jsonl'} has no 'source' (what was said) for '{unknown[0]}'"
                f"{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}, which COMET needs: "
                "decode again (stage 6) with transcripts in the manifests, or leave --comet out."
            )
        texts = zip(decoded.sources, decoded.hypotheses, decoded.references, strict=True)
        scores = np.array(self.predict([{"src": s, "mt": h, "ref": refs[0]} for s, h, refs in texts]), np.float64)
        if not np.isfinite(scores).all():
            name = decoded.ids[int(np.argmin(np.isfinite(scores)))]
            raise UserError(f"--comet: {self.model} gives '{name}' of {decoded.folder} no finite score: leave it out.")
        statistics = np.stack([scores, np.ones(len(scores))], axis=1)
        drawn = f"|bs:{replicates}|seed:{seed}" if replicates else ""
        first = "" if all(len(texts) == 1 for texts in decoded.references) else "|refs:first"
        signature = f"model:{self.model}{first}{drawn}|case:mixed|scale:100|version:{self.package}"
        return Measure("comet", statistics, lambda sums: 100 * sums[0] / sums[1], signature=signature)


def load_comet(path: str | Path) -> Comet:
    """The model in a folder (`checkpoints/model.ckpt` and `hparams.yaml`) or the checkpoint itself.

    Errors: `UserError` where the package `unbabel-comet` is missing, or the model is, or does not load.
    """
    path = Path(path)
    checkpoint = path / "checkpoints" / "model.ckpt" if path.is_dir() else path
    if not checkpoint.is_file():
        raise UserError(
            f"--comet {path}: {checkpoint} does not exist; give the folder of a downloaded COMET model, "
            "with hparams.yaml and checkpoints/model.ckpt."
        )
    try:
        import torch
        from comet import load_from_checkpoint
    except ImportError as error:
        raise UserError(
            f"--comet needs the package unbabel-comet, which cannot be imported here ({error}): pip install "
            "unbabel-comet in an environment with torch 2 and transformers 4, or leave --comet out."
        ) from None
    try:
        model = load_from_checkpoint(str(checkpoint))
    except Exception as error:  # the package raises plain ones, and what torch, yaml and transformers raise
        raise UserError(f"--comet {path} does not load ({' '.join(str(error).split())}): download it again.") from None
    gpus = int(torch.cuda.is_available())

    def predict(entries: Sequence[dict[str, str]]) -> list[float]:
        return list(model.predict(list(entries), gpus=gpus, progress_bar=False).scores)

    return Comet(_name(checkpoint), _version(), predict)


def _name(checkpoint: Path) -> str:
    """What the model is called: its folder, without the hub's snapshot and cache names around it."""
    folder = checkpoint.resolve().parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    if folder.parent.name == "snapshots":  # models--Unbabel--wmt22-comet-da/snapshots/<commit>
        folder = folder.parent.parent
    return folder.name.removeprefix("models--").replace("--", "/")


def _version() -> str:
    try:
        return version("unbabel-comet")
    except PackageNotFoundError:
        return "unknown"
