"""What makes an utterance unusable, and the reading of its audio: both happen in the same pass over the file."""

from __future__ import annotations

from math import log10, prod
from pathlib import Path

import numpy as np
from lhotse import Recording, SupervisionSegment
from lhotse.augmentation import Resample, Speed

from steps.prepare.audio import AudioError, change_speed, read_audio, resample
from steps.prepare.config import FeatureConfig

TOLERANCE = 0.025  # seconds by which decoded and declared length may differ (codecs pad); as in Lhotse


class Rejected(Exception):
    """An utterance for the quarantine: `reason` is a fixed word or two, `detail` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_text(supervision: SupervisionSegment, config: FeatureConfig) -> None:
    """`Rejected` for no text, too long, too short, or a rate of characters that nobody speaks."""
    duration = supervision.duration
    text = (supervision.text or "").strip()
    translations = (supervision.custom or {}).get("translation") or {}
    if not text and not any(translations.values()):
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


def single_file(recording: Recording) -> Path | None:
    """The path of a recording that is one audio file (which we read ourselves), else None (Lhotse reads it)."""
    if len(recording.sources) == 1 and recording.sources[0].type == "file":
        return Path(recording.sources[0].source)
    return None


def check_file(recording: Recording, config: FeatureConfig) -> None:
    """`Rejected` for what is seen without decoding: no file, no bytes, or a declared rate that is not wanted."""
    path = single_file(recording)
    if path is not None and not path.is_file():
        raise Rejected("missing file", str(path))
    if path is not None and path.stat().st_size == 0:
        raise Rejected("empty", f"{path} has no bytes")
    if recording.sampling_rate != config.sampling_rate and not config.resample:
        found = (
            f"{recording.sampling_rate} Hz in the manifest, {config.sampling_rate} Hz wanted; 'resample: true' takes it"
        )
        raise Rejected("wrong rate", found)


def read_recording(recording: Recording, config: FeatureConfig) -> np.ndarray:
    """All channels (channels, time) of a recording at `config.sampling_rate`; `Rejected` when it is not as declared."""
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
    if rate != recording.sampling_rate:
        raise Rejected("wrong rate", f"{path} has {rate} Hz, the manifest says {recording.sampling_rate} Hz")
    missing = recording.num_samples - samples.shape[1]
    if abs(missing) > TOLERANCE * rate:
        reason = "truncated" if missing > 0 else "corrupt"
        raise Rejected(reason, f"{samples.shape[1]} samples decoded, {recording.num_samples} in the manifest")
    if not np.isfinite(samples).all():
        raise Rejected("corrupt", f"{path or recording.id} holds samples that are not numbers")
    return resample(fit(samples, recording.num_samples), rate, config.sampling_rate)


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
