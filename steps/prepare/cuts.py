"""A table of cuts that stays small: the JSON lines as bytes, the durations as an array, a Lhotse cut when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from lhotse.serialization import deserialize_item

from steps.prepare.config import FeatureConfig
from utils.errors import UserError
from utils.files import read_jsonl
from utils.options import load_config


def features_beside(cuts: Path) -> FeatureConfig | None:
    """Stage 2's options, from the `features.yaml` beside a file of cuts or above; None where there is none."""
    places = (cuts.parent / "features.yaml", cuts.parent.parent / "features.yaml")
    file = next((file for file in places if file.exists()), None)
    return load_config(file, FeatureConfig) if file else None


class Cuts(Sequence):
    """Read-only sequence of Lhotse cuts with one supervision each.

    A million cuts take about 1 GB and two arrays (a list of Lhotse objects takes several times that), and processes
    that are forked share them. `durations` (cuts,) float64 seconds; `frames` (cuts,) int64, -1 where there are no
    stored features.
    """

    def __init__(self, rows: Iterable[dict], features: FeatureConfig | None = None, source: str = "cuts") -> None:
        lines, durations, frames, names, dims = [], [], [], [], set()
        for number, row in enumerate(rows, 1):
            try:
                durations.append(float(row["duration"]))
                stored = row.get("features")
                frames.append(stored["num_frames"] if stored else -1)
                dims |= {stored["num_features"]} if stored else set()
                names.append(row["id"])
                if len(row["supervisions"]) != 1:
                    raise KeyError("one supervision")
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UserError(f"{source}, entry {number}: not a cut of stage 2 (no {error}): run it again.") from None
            lines.append(json.dumps(row, ensure_ascii=False).encode())
        if len(dims) > 1:
            raise UserError(f"{source}: features of {sorted(dims)} values a frame in one file: run stage 2 again.")
        self._dims = dims
        self.source, self.ids, self._features = source, names, features
        self.durations = np.asarray(durations, dtype=np.float64)
        self.frames = np.asarray(frames, dtype=np.int64)
        self._offsets = np.cumsum([0, *map(len, lines)])
        self._bytes = b"".join(lines)

    @classmethod
    def load(cls, path: str | Path) -> Cuts:
        """The cuts of `data/<split>/cuts.jsonl.gz`; `UserError` for a missing file or a broken line."""
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path} does not exist: run stage 2 (features) first.")
        cuts = cls(read_jsonl(path), features_beside(path), str(path))
        if not len(cuts):
            raise UserError(f"{path} holds no cuts: run stage 2 (features) again.")
        return cuts

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> dict:
        """The cut as plain JSON."""
        return json.loads(self._bytes[self._offsets[index] : self._offsets[index + 1]])

    def __getitem__(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return deserialize_item(self.row(int(index) % len(self)))

    def __iter__(self) -> Iterator:
        return (self[index] for index in range(len(self)))

    def subset(self, indices: Iterable[int]) -> Cuts:
        """The cuts at `indices`, in that order."""
        return Cuts((self.row(int(index)) for index in indices), self._features, self.source)

    @cached_property
    def config(self) -> FeatureConfig:
        """Stage 2's options; `UserError` when its `features.yaml` is not beside the cuts."""
        if self._features is None:
            raise UserError(f"{self.source}: no features.yaml beside it or above: run stage 2 (features) again.")
        return self._features

    @property
    def feature_dim(self) -> int:
        """Values a frame, of stored features or as they will be computed."""
        return next(iter(self._dims)) if self._dims else self.config.feature_dim

    @property
    def stored(self) -> bool:
        """Whether every cut has features on disk."""
        return bool((self.frames >= 0).all())

    @property
    def num_frames(self) -> np.ndarray:
        """(cuts,) frames of stored features, or of 10 ms as they will be computed."""
        return np.where(self.frames >= 0, self.frames, np.floor(self.durations * 100 + 0.5).astype(np.int64))
