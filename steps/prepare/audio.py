"""Audio files in, 16 kHz mono samples and features out; no torchaudio, and one sentence for a file that is none."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
import torch

from steps.prepare.config import FeatureConfig
from utils.errors import UserError

SAMPLING_RATE = 16000


class AudioError(UserError):
    """A file that cannot be used as audio; `reason` is one of the quarantine's words."""

    def __init__(self, reason: str, path: str | Path, detail: str) -> None:
        super().__init__(f"{path}: {detail}.")
        self.reason, self.path, self.detail = reason, str(path), detail

    def __reduce__(self):
        return AudioError, (self.reason, self.path, self.detail)


def read_audio(path: str | Path, start: float = 0.0, duration: float | None = None) -> tuple[np.ndarray, int]:
    """Samples (channels, time) float32 in [-1, 1] and the sampling rate of any file that libsndfile or PyAV reads.

    `start` and `duration` in seconds select a part. `AudioError` (a `UserError`) for a missing, empty or corrupt file.
    """
    import soundfile

    path = Path(path)
    if path.is_dir():
        raise AudioError("missing file", path, "a folder, not a file: give the files in it")
    if not path.is_file():
        raise AudioError("missing file", path, "no such file")
    if path.stat().st_size == 0:
        raise AudioError("empty", path, "the file has no bytes")
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            file.seek(min(round(start * rate), max(file.frames, 0)))
            count = -1 if duration is None else round(duration * rate)
            samples = np.ascontiguousarray(file.read(count, dtype="float32", always_2d=True).T)
    except (soundfile.SoundFileError, RuntimeError):
        samples, rate = _read_av(path)
        first = round(start * rate)
        samples = samples[:, first : None if duration is None else first + round(duration * rate)]
    if samples.shape[1] == 0:
        raise AudioError("empty", path, "no samples" + (f" after {start:.2f} s" if start else ""))
    return samples, rate


def _read_av(path: Path) -> tuple[np.ndarray, int]:
    """`read_audio` of a whole file with FFmpeg's decoders (G.722, MP3, AAC, video containers ...)."""
    import av

    blocks, rate = [], 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError("corrupt", path, "no audio stream in it")
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(audio=0):
                rate = frame.sample_rate
                blocks += [part.to_ndarray() for part in resampler.resample(frame)]
            blocks += [part.to_ndarray() for part in resampler.resample(None)] if blocks else []
    except av.FFmpegError as error:
        raise AudioError("corrupt", path, f"not audio that libsndfile or FFmpeg reads ({error.strerror})") from None
    if not blocks:
        raise AudioError("empty", path, "no samples")
    return np.concatenate(blocks, axis=1).astype(np.float32, copy=False), rate


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Samples (..., time) at `new_rate`, through SciPy's polyphase low-pass (Kaiser window)."""
    if rate == new_rate:
        return samples
    from scipy.signal import resample_poly

    common = gcd(rate, new_rate)
    return resample_poly(samples, new_rate // common, rate // common, axis=-1).astype(np.float32, copy=False)


def change_speed(samples: np.ndarray, factor: float, rate: int = SAMPLING_RATE) -> np.ndarray:
    """Samples (..., time) played `factor` times as fast (pitch moves too), exactly as Lhotse's `perturb_speed`."""
    from lhotse.augmentation import Speed

    return samples if factor == 1.0 else Speed(factor)(np.ascontiguousarray(samples), rate)


def load_audio(path: str | Path, rate: int = SAMPLING_RATE) -> np.ndarray:
    """Mono float32 samples (time,) at `rate` of any audio or video file; channels are averaged.

    `AudioError` as `read_audio`'s, and for samples that are not finite numbers.
    """
    samples, file_rate = read_audio(path)
    if not np.isfinite(samples).all():
        raise AudioError("corrupt", path, "it holds samples that are not numbers (NaN or infinite): convert it again")
    return resample(samples.mean(axis=0), file_rate, rate)


def make_extractor(config: FeatureConfig):
    """Lhotse's extractor (as icefall's recipes use it: Kaldi's frames, no dither, `snip_edges` off), or another one."""
    if config.encoder is not None:
        from steps.prepare.encoder_features import encoder_extractor  # it is made of the others

        return encoder_extractor(config.encoder.model_dump_json())
    return _extractor(config.type, config.sampling_rate, config.num_mel_bins, config.num_ceps)


@lru_cache(maxsize=8)
def _extractor(kind: str, rate: int, num_mel_bins: int, num_ceps: int):
    from lhotse import Fbank, FbankConfig, Mfcc, MfccConfig

    if kind == "whisper":
        return WhisperFeatures(num_mel_bins)
    if kind == "waveform":
        return WaveformFrames()
    if kind == "fbank":
        return Fbank(FbankConfig(sampling_rate=rate, num_mel_bins=num_mel_bins))
    return Mfcc(MfccConfig(sampling_rate=rate, num_mel_bins=num_mel_bins, num_ceps=num_ceps))


def whole_frames(samples: np.ndarray) -> np.ndarray:
    """Samples (time,) at 16 kHz cut, or continued with zeros, to whole frames of 10 ms, rounded as Lhotse does."""
    length = (len(samples) + 80) // 160 * 160
    return np.pad(samples[:length], (0, max(length - len(samples), 0)))


class WaveformFrames:
    """The samples themselves, 160 a frame of 10 ms, in units of 16 bits: so lilcom stores them without a loss, in
    about two bytes each."""

    name = "waveform"

    def extract(self, samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Samples (time,) at 16 kHz to (time / 160, 160) float32, the quotient rounded as Lhotse does."""
        return (32768 * whole_frames(samples)).clip(-65504, 65504).reshape(-1, 160)  # what float16 (a cache) holds


class WhisperFeatures:
    """Whisper's log-mel features (Radford et al. 2022, section 2.2), as openai/whisper's `log_mel_spectrogram`.

    Frames of 10 ms, the loudest value of the utterance less 8 (in powers of ten) is the floor; no padding to 30 s.
    """

    name = "whisper"

    def __init__(self, num_mel_bins: int) -> None:
        from transformers.audio_utils import mel_filter_bank

        filters = mel_filter_bank(201, num_mel_bins, 0.0, 8000.0, SAMPLING_RATE, norm="slaney", mel_scale="slaney")
        self.filters = torch.from_numpy(filters).float()
        self.window = torch.hann_window(400)

    def extract(self, samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Samples (time,) at 16 kHz to (time / 160, num_mel_bins) float32, the quotient rounded as Lhotse does."""
        audio = torch.from_numpy(whole_frames(samples))
        spectrum = torch.stft(audio, 400, 160, window=self.window, return_complex=True)[:, :-1].abs().square()
        mel = (spectrum.T @ self.filters).clamp(min=1e-10).log10()
        return ((torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).numpy()


def compute_features(samples: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Features (frames, dim) float32 of mono `samples` (time,) at `config.sampling_rate`: what stage 2 stores.

    One utterance at a time: a padded batch is not faster on the CPU and would change the last frames.
    `AudioError` for less than one window (25 ms), of which there is no frame to make.
    """
    if len(samples) < 0.025 * config.sampling_rate:
        raise AudioError("too short", "audio", f"{len(samples)} samples are less than one window of 25 ms")
    with torch.inference_mode():
        return make_extractor(config).extract(np.ascontiguousarray(samples, dtype=np.float32), config.sampling_rate)
