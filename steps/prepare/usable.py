"""What makes an utterance unusable, and the reading of its audio: both happen in the same pass over the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from math import log10, prod
from pathlib import Path

import numpy as np
from lhotse import Recording, SupervisionSegment
from lhotse.augmentation import Resample, Speed

from steps.prepare.audio import AudioError, change_speed, read_audio, resample
from steps.prepare.config import FeatureConfig

TOLERANCE = 0.025  # seconds by which decoded and declared length may differ (codecs pad); as in Lhotse
Fault = tuple[str, str]  # a fixed word or two, and what was found


class Rejected(Exception):
    """An utterance for the quarantine: `reason` is a fixed word or two, `detail` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_text(supervision: SupervisionSegment, config: FeatureConfig) -> None:
    """`Rejected` for no text, too long, too short, or a rate of characters that nobody speaks."""
    duration = supervision.duration
    text = (supervision.text or "").strip()
    if not any(texts_of(supervision.text, supervision.custom)):
        raise Rejected("no text", "neither a transcript nor a translation")
    if duration > config.max_duration:
        raise Rejected("too long", f"{duration:.2f} s, max_duration is {config.max_duration:g} s")
    if duration < config.min_duration:
        raise Rejected("too short", f"{duration:.3f} s, min_duration is {config.min_duration:g} s")
    low, high = config.chars_per_second
    rate = len(text) / duration
    if text and not low <= rate <= high:
        found = f"{len(text)} characters in {duration:.2f} s are {rate:.2f} a second, expected {low:g} to {high:g}"
        raise Rejected("implausible characters per second", found)


def texts_of(text: str | None, custom: dict | None) -> list[str]:
    """The transcript and the translations of a supervision, without those that are empty or blank."""
    translations = (custom or {}).get("translation") or {}
    return [line for line in (text, *translations.values()) if line and line.strip()]


def segment_fault(
    start: float, duration: float, channel: int | list[int], length: float, channels: Sequence[int]
) -> Fault | None:
    """What is wrong with an utterance's place (seconds) in a recording of `length` seconds that has `channels`."""
    if not (duration > 0 and start >= 0):
        return "truncated", f"the utterance begins at {start:.2f} s and takes {duration:.2f} s"
    if start + duration > length + TOLERANCE:
        return "truncated", f"the utterance ends at {start + duration:.2f} s, the recording at {length:.2f} s"
    wanted = {channel} if isinstance(channel, int) else {*channel}
    if not wanted <= {*channels}:
        return "corrupt", f"the utterance is in channel {channel}, the recording has {list(channels)}"
    return None


def file_fault(path: str | Path) -> Fault | None:
    """What is wrong with a file that is seen without opening it: not there, or no bytes."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return "missing file", str(path)
    if not stat.S_ISREG(found.st_mode):
        return "missing file", str(path)
    return None if found.st_size else ("empty", f"{path} has no bytes")


def audio_fault(path: Path | str, rate: int, samples: int, recording: Recording) -> Fault | None:
    """Where a file's sampling rate and samples (of a channel) are not those of the manifest."""
    if rate != recording.sampling_rate:
        return "wrong rate", f"{path} has {rate} Hz, the manifest says {recording.sampling_rate} Hz"
    missing = recording.num_samples - samples
    if abs(missing) > TOLERANCE * rate:
        found = f"{samples} samples in {path}, {recording.num_samples} in the manifest"
        return "truncated" if missing > 0 else "corrupt", found
    return None


def single_file(recording: Recording) -> Path | None:
    """The path of a recording that is one audio file (which we read ourselves), else None (Lhotse reads it)."""
    if len(recording.sources) == 1 and recording.sources[0].type == "file":
        return Path(recording.sources[0].source)
    return None


def check_file(recording: Recording, config: FeatureConfig) -> None:
    """`Rejected` for what is seen without decoding: no file, no bytes, or a declared rate that is not wanted."""
    path = single_file(recording)
    if path is not None and (fault := file_fault(path)):
        raise Rejected(*fault)
    if recording.sampling_rate != config.sampling_rate and not config.resample:
        found = (
            f"{recording.sampling_rate} Hz in the manifest, {config.sampling_rate} Hz wanted; 'resample: true' takes it"
        )
        raise Rejected("wrong rate", found)


def read_recording(recording: Recording, config: FeatureConfig) -> np.ndarray:
    """All channels (channels, time) of a recording at `config.sampling_rate`; `Rejected` when it is not as declared."""
    return resample(read_declared(recording), recording.sampling_rate, config.sampling_rate)


def read_declared(recording: Recording) -> np.ndarray:
    """All channels (channels, time) of a recording at its own rate; `Rejected` when it is not as declared."""
    path = single_file(recording)
    if path is None or recording.transforms:
        try:
            samples, rate = recording.load_audio(), recording.sampling_rate
        except Exception as error:  # any of Lhotse's many audio back-ends
            raise Rejected("corrupt", " ".join(str(error).split())[:300]) from None
    else:
        try:
            samples, rate = read_audio(path)
        except AudioError as error:
            raise Rejected(error.reason, f"{path}: {error.detail}") from None
    if fault := audio_fault(path or recording.id, rate, samples.shape[1], recording):
        raise Rejected(*fault)
    if not np.isfinite(samples).all():
        raise Rejected("corrupt", f"{path or recording.id} holds samples that are not numbers")
    return fit(samples, recording.num_samples)


def fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Samples (..., time) cut, or mirrored at the end, to `length`: at most `TOLERANCE` is ever missing."""
    missing = length - samples.shape[-1]
    if missing <= 0:
        return samples[..., :length]
    return np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, missing)], mode="symmetric")


def check_samples(samples: np.ndarray, config: FeatureConfig) -> None:
    """`Rejected` when the mono samples (time,) of an utterance are silence."""
    level = 10 * log10(float(np.mean(np.square(samples, dtype=np.float64))) + 1e-20)
    if level < config.silence_db:
        raise Rejected("silent", f"{level:.1f} dB of full scale, silence_db is {config.silence_db:g}")


def cut_samples(cut) -> np.ndarray:
    """Mono samples (time,) of a cut for on-the-fly features, with its speed and rate changes; `AudioError` if unusable.

    Only the cut's part of the file is read, so utterances of an hour's recording cost no more than short files.
    """
    recording, changes = cut.recording, cut.recording.transforms or []
    path = single_file(recording)
    if path is None or any(not isinstance(change, (Speed, Resample)) for change in changes):
        return cut.load_audio()[0]
    factor = prod(change.factor for change in changes if isinstance(change, Speed))
    samples, rate = read_audio(path, cut.start * factor, cut.duration * factor)
    samples = samples[cut.channel if samples.shape[0] > 1 else 0]
    for change in changes:
        if isinstance(change, Resample):
            samples, rate = resample(samples, rate, change.target_sampling_rate), change.target_sampling_rate
        else:
            samples = change_speed(samples, change.factor, rate)
    if rate != recording.sampling_rate:
        raise AudioError("wrong rate", path, f"{rate} Hz, the cut says {recording.sampling_rate} Hz")
    length = round(cut.duration * rate)
    if length - len(samples) > TOLERANCE * rate:
        raise AudioError("truncated", path, f"{len(samples)} samples, the cut says {length}: run stage 2 again")
    return fit(samples, length)
