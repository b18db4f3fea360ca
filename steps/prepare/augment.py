"""Waveform augmentation: speed, simulated rooms, noise at an SNR, volume; all from the caller's generator."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from steps.prepare.audio import SAMPLING_RATE, change_speed, read_audio, resample
from steps.prepare.config import AugmentConfig, ReverbConfig
from utils.errors import UserError
from utils.files import atomic_path, read_jsonl, require

LONG = 30.0  # seconds: of a longer file only what is needed is read
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".g722", ".sph", ".aiff", ".au"}


class WaveformAugment:
    """`augment(samples (time,), rng) -> samples (time',)`; only speed changes the length."""

    def __init__(self, config: AugmentConfig, rate: int = SAMPLING_RATE) -> None:
        self.config, self.rate = config, rate
        self.noises = [(kind, audio_files(kind.path, "augment.noise.path")) for kind in config.noise or ()]
        self.rooms = Rooms(config.reverb, rate) if config.reverb else None

    @staticmethod
    def shared(config: AugmentConfig, rate: int = SAMPLING_RATE) -> WaveformAugment:
        """The one instance of this configuration in this process (it holds noises and rooms)."""
        return _shared(config.model_dump_json(), rate)

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        speed, reverb, volume = self.config.speed, self.config.reverb, self.config.volume
        # every draw is made whether used or not: one section's probability does not shift another's numbers
        chosen = rng.random(4)
        factor = rng.choice(speed.factors) if speed else 1.0
        room, which = rng.integers(1 << 31, size=2)
        snr, place, gain = rng.random(3)
        if speed and chosen[0] < speed.probability:
            samples = change_speed(samples[None], float(factor), self.rate)[0]
        if reverb and chosen[1] < reverb.probability:
            samples = reverberate(samples, self.rooms[int(room)])
        samples = self.add_noises(samples, chosen[2], int(which), (snr, place))
        if volume and chosen[3] < volume.probability:
            samples = change_volume(samples, _within(volume.gain, gain))
        return samples.astype(np.float32, copy=False)

    def add_noises(self, samples: np.ndarray, chosen: float, which: int, first: tuple[float, float]) -> np.ndarray:
        """`samples` with the kind of noise that `chosen` (0 to 1) falls to, or none; `which` and `first` draw the rest.

        `first` is (SNR, place), each 0 to 1, of a single file; the files of a mix are drawn from the seed `which`.
        """
        for kind, files in self.noises:
            if chosen < kind.probability:
                sounds = [(which, *first)]
                if kind.mix != (1, 1):
                    rng = np.random.default_rng(which)
                    count = rng.integers(kind.mix[0], kind.mix[1] + 1)
                    sounds = [(int(rng.integers(1 << 31)), *rng.random(2)) for _ in range(count)]
                added = []
                for number, snr, place in sounds:
                    noise, start = read_noise(files[number % len(files)], self.rate, len(samples), place)
                    added.append(scale_noise(samples, noise, _within(kind.snr, snr), start))
                return sum(added, samples)
            chosen -= kind.probability
        return samples


@lru_cache(maxsize=4)
def _shared(config: str, rate: int) -> WaveformAugment:
    return WaveformAugment(AugmentConfig.model_validate_json(config), rate)


def _within(limits: tuple[float, float], fraction: float) -> float:
    return limits[0] + fraction * (limits[1] - limits[0])


def scale_noise(samples: np.ndarray, noise: np.ndarray, snr: float, place: float = 0.0) -> np.ndarray:
    """What to add to `samples`: `noise`, repeated or cut to length from `place` (0 to 1 of it), `snr` dB below them.

    The powers are means over the whole; of silence nothing is made.
    """
    start = int(place * len(noise))
    noise = np.resize(np.roll(noise, -start), len(samples))
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    wanted = float(np.mean(np.square(samples, dtype=np.float64))) / 10 ** (snr / 10)
    return noise * np.float32(np.sqrt(wanted / power) if power else 0.0)


def change_volume(samples: np.ndarray, gain: float) -> np.ndarray:
    """`samples` louder by `gain` dB, but never beyond full scale."""
    peak = float(np.abs(samples).max(initial=1e-9))
    return samples * np.float32(min(10 ** (gain / 20), max(1.0 / peak, 1.0)))


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """`samples` heard through a room's impulse response: same length, same power, the direct sound not delayed."""
    from scipy.signal import fftconvolve

    direct = int(np.abs(response).argmax())
    wet = fftconvolve(samples, response)[direct : direct + len(samples)]
    power = np.sqrt(np.mean(np.square(samples)) / max(float(np.mean(np.square(wet))), 1e-20))
    return (wet * power).astype(np.float32)


def audio_files(path: str | Path, option: str) -> list[Path]:
    """The audio files of a folder (searched below it too), manifest or single file, in a fixed order.

    `UserError`, which names the `option` that gave `path`, where there are none.
    """
    path = require(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        rows = (row.get("recording", row) for row in read_jsonl(path))  # recordings, or cuts that hold them
        files = [Path(source["source"]) for row in rows for source in row.get("sources", [])]
    else:
        files = [path]
    if not files:
        raise UserError(f"{path} holds no audio files: check {option}.")
    return files


def read_noise(path: Path, rate: int, length: int, place: float) -> tuple[np.ndarray, float]:
    """(samples, where in them to begin, 0 to 1): all of a short file, of a long one what is needed from `place` on."""
    seconds, needed = _seconds(path), length / rate
    if seconds <= max(LONG, needed):
        return _load_noise(path, rate), place
    samples, file_rate = read_audio(path, place * (seconds - needed), needed)
    return resample(samples.mean(axis=0), file_rate, rate), 0.0


@lru_cache(maxsize=1 << 16)
def _seconds(path: Path) -> float:
    """Length of a file of which a part can be read, 0 where it has to be decoded from its beginning."""
    import soundfile

    try:
        return soundfile.info(path).duration
    except soundfile.SoundFileError:
        return 0.0


@lru_cache(maxsize=512)  # of LONG seconds: at most 1 GB a process
def _load_noise(path: Path, rate: int) -> np.ndarray:
    samples, file_rate = read_audio(path)
    return resample(samples.mean(axis=0), file_rate, rate)


class Rooms:
    """Impulse responses (time,) by a drawn number: measured ones, simulated ones, or each for half of the numbers."""

    def __init__(self, config: ReverbConfig, rate: int) -> None:
        self.rate = rate
        self.measured = audio_files(config.path, "augment.reverb.path") if config.path else []
        self.simulated = room_responses(config, rate) if config.cache else []

    def __getitem__(self, number: int) -> np.ndarray:
        if self.measured and self.simulated:
            number, kind = divmod(number, 2)
        else:
            kind = 1 if self.simulated else 0
        if kind:
            return self.simulated[number % len(self.simulated)]
        number, which = divmod(number, len(self.measured))
        channels = load_response(self.measured[which], self.rate)
        return channels[number % len(channels)]


@lru_cache(maxsize=512)
def load_response(path: Path, rate: int) -> np.ndarray:
    """(channels, time) of a measured room response; `UserError` where a channel is silent or not finite."""
    samples, file_rate = read_audio(path)
    if not np.isfinite(samples).all() or not np.abs(samples).max(axis=1).all():
        raise UserError(f"{path} is no room response (a channel is silent or not finite): take it out of its folder.")
    return resample(samples, file_rate, rate)


def room_responses(config: ReverbConfig, rate: int) -> list[np.ndarray]:
    """Impulse responses (time,) of `config.rooms` random rooms, from the cache file or simulated into it."""
    settings = config.model_dump(mode="json", exclude={"path", "cache", "probability"})
    name = hashlib.sha256(json.dumps([settings, rate], sort_keys=True).encode()).hexdigest()[:12]
    path = Path(config.cache) / f"rooms-{name}.npz"
    if not path.exists():
        rng = np.random.default_rng(config.seed)
        responses = [simulate_room(rng, config, rate) for _ in range(config.rooms)]
        with atomic_path(path) as temporary, open(temporary, "wb") as out:
            np.savez(out, *responses)
    try:
        with np.load(path) as stored:
            return [stored[f"arr_{i}"] for i in range(config.rooms)]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, it is made again.") from None


def simulate_room(rng: np.random.Generator, config: ReverbConfig, rate: int) -> np.ndarray:
    """Impulse response (time,) float32 of a random shoebox room by the image source method (Allen and Berkley 1979)."""
    import pyroomacoustics

    size = rng.uniform([3.0, 3.0, 2.4], [10.0, 8.0, 4.0])
    rt60 = rng.uniform(*config.rt60)
    while True:  # a large dry room would need walls that absorb more than all: let it ring a little longer
        try:
            absorption, order = pyroomacoustics.inverse_sabine(rt60, size)
            break
        except ValueError:
            rt60 *= 1.2
    microphone = rng.uniform(0.5, size - 0.5)
    direction = rng.normal(size=3)
    mouth = microphone + direction / np.linalg.norm(direction) * rng.uniform(*config.distance)
    room = pyroomacoustics.ShoeBox(size, rate, materials=pyroomacoustics.Material(absorption), max_order=min(order, 12))
    room.add_source(np.clip(mouth, 0.2, size - 0.2))
    room.add_microphone(microphone)
    room.compute_rir()
    return np.asarray(room.rir[0][0], dtype=np.float32)
