"""Stage 2's cuts: one supervision each, inside of the recording, features where and as they should be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from lhotse.serialization import deserialize_item
from lhotse.utils import compute_num_frames

from steps.prepare.audio import AudioError
from steps.prepare.checks.audio import in_threads
from steps.prepare.checks.faults import Faults, Kind
from steps.prepare.checks.words import Said
from steps.prepare.config import FeatureConfig
from steps.prepare.cuts import features_beside
from steps.prepare.usable import Fault, cut_samples, file_fault, segment_fault
from utils.errors import UserError
from utils.files import read_jsonl, require

MADE_BY = "stage 2 (features)"
AGAIN = "run stage 2 again"
OTHER = Kind("cuts", "are not cuts of one utterance in one channel, as stage 2 writes them", AGAIN)
TWICE = Kind("cuts", "have an id that an earlier one has", "--fix keeps the first of each")
SEVERAL = Kind("cuts", "have not exactly one supervision", AGAIN)
OUTSIDE = Kind("cuts", "are not inside of their recording", AGAIN)
WORDS = Kind("cuts", "have a supervision that is not inside of them", AGAIN)
NONE = Kind("cuts", "have no stored features, though features.yaml says 'storage: disk'", AGAIN)
FRAMES = Kind("cuts", "have another number of frames than their duration", AGAIN)
SHAPE = Kind("cuts", "have features of another kind than features.yaml says", AGAIN)
STALE = Kind("cuts", "name an archive that was moved to the folder of the cuts", "--fix rewrites its path")
GONE = Kind("cuts", "name an archive that is not there", "put it there, or run stage 2 again")
SHORT = Kind("cuts", "have features behind the end of their archive", f"it was cut off: delete it and {AGAIN}")
AUDIO = Kind("cuts", "have an audio file that is not there or has no bytes", "put it there, or run stage 2 again")
READ = {
    "corrupt": Kind("cuts", "have features that cannot be read or are not what the cut says", AGAIN),
    "not finite": Kind("cuts", "have features that are not finite numbers", AGAIN),
    "audio": Kind("cuts", "have audio that cannot be read or is not what the cut says", AGAIN),
}


class Archives:
    """Feature archives by path, each looked at once: where they are now, and their sizes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, tuple[str, int]] = {}

    def find(self, path: str) -> tuple[str, int]:
        """(path, bytes): below `folder` if it is not where it says; -1 bytes where there is none."""
        if path not in self._found:
            beside = (path, *(str((self.folder / name / Path(path).name).resolve()) for name in ("feats", ".")))
            there = [name for name in beside if os.path.exists(name)]
            self._found[path] = (there[0], os.path.getsize(there[0])) if there else (path, -1)
        return self._found[path]


class CutFile:
    """One file of cuts."""

    def __init__(self, path: Path, faults: Faults, full: bool, jobs: int) -> None:
        self.path, self.faults, self.full, self.jobs = require(path, MADE_BY), faults, full, jobs
        self.config: FeatureConfig | None = features_beside(path)
        self.archives, self.good = Archives(path.parent), set()  # audio files that are there, by hash
        self.bad: set[str] = set()  # cuts that need not be read

    def check(self) -> None:
        """All checks; with `full` also what is in the archives (or, on the fly, in the audio files)."""
        if self.config is None:
            with self.faults.caught():
                raise UserError(f"{self.path}: no features.yaml beside it or above: run stage 2 (features) again.")
        seen, said, seconds, number = set(), Said(self.path, self.faults), 0.0, 0
        for number, row in enumerate(read_jsonl(self.path), 1):
            try:
                self._check_row(row, seen, said)
                seconds += row["duration"]
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                self._add(OTHER, f"entry {number}", f"{type(error).__name__} {error}")
        if not number:
            raise UserError(f"{self.path} holds no cuts: run {MADE_BY} again.")
        self.faults.total(self.path, "cuts", number)
        said.finish()
        if self.full:
            rows = (row for row in read_jsonl(self.path) if row.get("id") not in self.bad)
            for row, (reason, detail) in in_threads(content_fault, rows, self.jobs):
                self._add(READ[reason], row["id"], detail)
        print(f"{self.path}: {number} cuts, {seconds / 3600:.2f} h")

    def _add(self, kind: Kind, name: str, detail: str = "") -> None:
        self.faults.add(self.path, kind, name, detail)

    def _check_row(self, row: dict, seen: set[str], said: Said) -> None:
        name = row["id"]
        if row["type"] != "MonoCut":
            self.bad.add(name)
            return self._add(OTHER, name, row["type"])
        if name in seen:
            self._add(TWICE, name)
        seen.add(name)
        if len(row["supervisions"]) != 1:
            return self._add(SEVERAL, name, f"{len(row['supervisions'])}")
        (spoken,), recording = row["supervisions"], row["recording"]
        said.check(spoken)
        place = (row["start"], row["duration"], row["channel"])
        if fault := segment_fault(*place, recording["duration"], recording.get("channel_ids") or [row["channel"]]):
            self._add(OUTSIDE, name, fault[1])
        inside = (spoken["start"], spoken["duration"], spoken["channel"])
        if fault := segment_fault(*inside, row["duration"], [row["channel"]]):
            self._add(WORDS, name, fault[1])
        if row.get("features"):
            self._check_features(name, row["features"], row["duration"])
        elif self.config is not None and self.config.storage == "disk":
            self._add(NONE, name)
        else:
            self._check_audio(name, recording["sources"])

    def _check_features(self, name: str, stored: dict, duration: float) -> None:
        shift, rate = stored["frame_shift"], stored["sampling_rate"]
        wanted = max(compute_num_frames(duration, shift, rate), 1)
        if stored["num_frames"] != wanted:
            self._add(FRAMES, name, f"{stored['num_frames']} frames of {shift:g} s, {duration:.3f} s are {wanted}")
        if config := self.config:
            kind = (stored["num_features"], shift, rate)
            if kind != (config.feature_dim, config.frame_shift, config.sampling_rate):
                self._add(SHAPE, name, "{} values a frame of {:g} s at {} Hz".format(*kind))
        path, size = self.archives.find(stored["storage_path"])
        if size >= 0 and path != stored["storage_path"]:
            self._add(STALE, name, path)
        elif size < 0:
            self._add(GONE, name, path)
        elif stored["storage_type"] == "lilcom_chunky" and sum(map(int, stored["storage_key"].split(","))) > size:
            self._add(SHORT, name, f"{path} has {size} bytes")
        else:
            return
        self.bad.add(name)

    def _check_audio(self, name: str, sources: list[dict]) -> None:
        for path in (source["source"] for source in sources if source["type"] == "file"):
            if hash(path) in self.good:
                continue
            if fault := file_fault(path):
                self._add(AUDIO, name, fault[1])
                self.bad.add(name)
            else:
                self.good.add(hash(path))


def content_fault(row: dict) -> Fault | None:
    """What is wrong with a cut's stored features or, where it has none, its audio."""
    try:
        cut = deserialize_item(row)
        if not cut.has_features:
            values = cut_samples(cut)
            return None if np.isfinite(values).all() else ("audio", "samples that are not numbers")
        values, wanted = cut.load_features(), (cut.features.num_frames, cut.features.num_features)
    except AudioError as error:
        return "audio", str(error).rstrip(".")
    except Exception as error:  # of lilcom and of Lhotse's many back-ends
        return "corrupt", " ".join(f"{type(error).__name__} {error}".split())[:200]
    if values.shape != wanted:
        return "corrupt", f"{values.shape[0]} frames of {values.shape[1]} values, not {wanted[0]} of {wanted[1]}"
    return None if np.isfinite(values).all() else ("not finite", cut.features.storage_path)
