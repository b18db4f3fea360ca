"""Stage 1's manifests: ids, places in recordings, texts, audio files, and what several splits have in common."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from lhotse import Recording, SupervisionSegment

from steps.prepare.checks.audio import check_audio
from steps.prepare.checks.faults import Faults, Kind
from steps.prepare.checks.words import Said
from steps.prepare.manifests import link_fault, manifest_paths, typed_rows
from steps.prepare.usable import TOLERANCE, file_fault, segment_fault
from utils.files import read_jsonl

AGAIN = "mend the corpus, then stage 1 (manifests)"
CLOSE = 0.001  # seconds that an utterance may end behind its recording, as in Lhotse's qa.py
SAMPLE = 1000  # audio files of a split whose headers are read

TWICE = Kind("recordings", "have an id that an earlier one has", "--fix keeps the first of each")
LENGTH = Kind("recordings", "have a duration that is not num_samples / sampling_rate, or none at all", AGAIN)
CHANNELS = Kind("recordings", "have no channels", AGAIN)
SILENT = Kind("recordings", "have no supervision", "--fix removes them")
MISSING = Kind("recordings", "have an audio file that is not there", "put it there, or make the manifests again")
EMPTY = Kind("recordings", "have an audio file of zero bytes", "fetch it again")
RATES = Kind("recordings", "have another sampling rate than the first", "stage 2 needs 'resample: true'", warning=True)
LINKS = {
    "duplicate id": Kind("supervisions", "have an id that an earlier one has", "--fix keeps the first of each"),
    "missing file": Kind("supervisions", "name a recording that is not there", "--fix removes them"),
}
PLACES = {
    "truncated": Kind("supervisions", "are not inside of their recording", AGAIN),
    "corrupt": Kind("supervisions", "are in a channel that their recording lacks", AGAIN),
}
OVER = Kind(
    "supervisions", "end a little behind their recording", "stage 2 clips them, and so does --fix", warning=True
)
STARTS = Kind(
    "recordings",
    "have several supervisions that begin at 0 in one channel",
    "check that their starts are given",
    warning=True,
)


class Known:
    """What supervisions need to know of their recording."""

    __slots__ = ("channels", "length", "spoken", "starts", "starts_again")

    def __init__(self, length: float, channels: tuple[int, ...]) -> None:
        self.length, self.channels, self.spoken = length, channels, False
        self.starts = 0  # channels, as bits, in which something begins at 0
        self.starts_again = False  # in one of them several do


class Common:
    """What splits should not share, by hash: recordings, audio files, speakers, texts."""

    def __init__(self, where: object, faults: Faults) -> None:
        self.where, self.faults = where, faults
        self._seen: dict[str, dict[str, set[int]]] = {}

    def note(self, noun: str, split: str, value: str | None, name: str) -> None:
        """`split` has `value`, for instance in what is called `name`; a warning where an earlier split has it too."""
        if not value:
            return
        splits, key = self._seen.setdefault(noun, {}), hash(value)
        own = splits.setdefault(split, set())
        if key in own:
            return
        own.add(key)
        for other, seen in splits.items():
            if other != split and key in seen:
                what = f"of {split} are in {other} too"
                self.faults.add(self.where, Kind(noun, what, "scores on one split profit from the other", True), name)
                return


class Split:
    """One split's manifests."""

    def __init__(self, folder: Path, name: str, faults: Faults, common: Common, full: bool, jobs: int) -> None:
        self.name, self.faults, self.common, self.full, self.jobs = name, faults, common, full, jobs
        self.recordings, self.supervisions = manifest_paths(folder, name)
        self.known: dict[str, Known] = {}
        self.unread: set[str] = set()  # recordings of which more need not be said

    def check(self) -> None:
        """All checks; nothing is decoded, and of many files only a sample is opened, unless `full`."""
        channels: dict[tuple[int, ...], tuple[int, ...]] = {}  # one tuple for all that are alike
        rate = count = 0
        for row in typed_rows(self.recordings, Recording):
            count += 1
            rate = rate or row["sampling_rate"]
            if row["sampling_rate"] != rate:
                self.faults.add(self.recordings, RATES, row["id"], f"{row['sampling_rate']} Hz, not {rate}")
            self._check_recording(row, channels)
        self.faults.total(self.recordings, "recordings", count)
        seconds = self._check_supervisions()
        for name, known in self.known.items():
            if not known.spoken:
                self.faults.add(self.recordings, SILENT, name)
            if known.starts_again:
                self.faults.add(self.supervisions, STARTS, name)
        self._check_audio()
        print(f"{self.supervisions}: {self._said} supervisions, {count} recordings, {seconds / 3600:.2f} h of speech")

    def _check_recording(self, row: dict, alike: dict) -> None:
        name, rate, samples, seconds = row["id"], row["sampling_rate"], row["num_samples"], row["duration"]
        if name in self.known:
            return self.faults.add(self.recordings, TWICE, name)
        if not (rate > 0 and samples > 0 and abs(samples / rate - seconds) <= TOLERANCE):
            found = f"{samples} samples at {rate} Hz, {seconds} s"
            self.faults.add(self.recordings, LENGTH, name, found)
            self.unread.add(name)
        of_sources = (channel for source in row["sources"] for channel in source["channels"])
        channels = tuple(row.get("channel_ids") or sorted(of_sources))
        if not channels:
            self.faults.add(self.recordings, CHANNELS, name)
        self.known[name] = Known(seconds, alike.setdefault(channels, channels))
        self.common.note("recordings", self.name, name, name)
        for source in row["sources"]:
            if source["type"] != "file":
                continue
            self.common.note("audio files", self.name, source["source"], name)
            if fault := file_fault(source["source"]):
                self.faults.add(self.recordings, MISSING if fault[0] == "missing file" else EMPTY, name, fault[1])
                self.unread.add(name)

    def _check_supervisions(self) -> float:
        """How many seconds they are."""
        seen: set[str] = set()
        said, seconds = Said(self.supervisions, self.faults), 0.0
        for row in typed_rows(self.supervisions, SupervisionSegment):
            name = row["id"]
            said.check(row)
            seconds += row["duration"]
            if fault := link_fault(row, seen, self.known):
                self.faults.add(self.supervisions, LINKS[fault[0]], name, fault[1])
            else:
                self._check_place(row, self.known[row["recording_id"]])
            seen.add(name)
            self.common.note("speakers", self.name, row.get("speaker"), name)
            self.common.note("transcripts", self.name, row.get("text"), name)
        said.finish()
        self._said = said.count
        return seconds

    def _check_place(self, row: dict, recording: Known) -> None:
        recording.spoken = True
        start, duration, channel = row["start"], row["duration"], row["channel"]
        if fault := segment_fault(start, duration, channel, recording.length, recording.channels):
            self.faults.add(self.supervisions, PLACES[fault[0]], row["id"], fault[1])
            return
        if (over := start + duration - recording.length) > CLOSE:
            self.faults.add(self.supervisions, OVER, row["id"], f"{over:.3f} s")
        if start == 0:
            bits = sum(1 << one for one in ([channel] if isinstance(channel, int) else channel))
            recording.starts_again |= bool(recording.starts & bits)
            recording.starts |= bits

    def _check_audio(self) -> None:
        every = 1 if self.full else max(len(self.known) // SAMPLE, 1)
        rows = (
            row
            for row in read_jsonl(self.recordings)
            if row["id"] not in self.unread and crc32(row["id"].encode()) % every == 0
        )
        check_audio(rows, self.recordings, self.faults, self.full, self.jobs)
