"""The YAML options of preparation: what makes a feature, what makes a good utterance, what augments a waveform."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from steps.pretrained.folder import ModelPath
from utils.errors import UserError
from utils.options import Config

Range = tuple[float, float]
Factor = Annotated[float, Field(gt=0.3, lt=3)]  # times as fast
Probability = Annotated[float, Field(ge=0, le=1)]


class NoiseConfig(Config):
    """Additive noise: `path` is a folder of audio files, a file, or a Lhotse recordings manifest (.jsonl[.gz])."""

    path: str
    snr: Range = (10.0, 20.0)  # dB, drawn uniformly, for each file of a mix
    probability: Probability = 0.5
    mix: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 1)  # files at once: [3, 7] is babble


class ReverbConfig(Config):
    """Rooms: measured responses in `path` (as a noise's `path`), or shoebox rooms simulated by pyroomacoustics (image
    sources) and kept in `cache`, a folder; with both, each half of the time."""

    path: str | None = None  # of a response with several channels one is drawn
    cache: str | None = None  # the file's name is a function of every value below but `probability`
    rooms: Annotated[int, Field(ge=1)] = 100
    rt60: Range = (0.15, 0.5)  # seconds
    distance: Range = (0.5, 2.0)  # metres between mouth and microphone
    seed: int = 0
    probability: Probability = 0.3

    @model_validator(mode="after")
    def some_rooms(self) -> ReverbConfig:
        if self.path is None and self.cache is None:
            raise ValueError("give 'path' (measured responses), 'cache' (a folder for simulated ones), or both")
        return self


class VolumeConfig(Config):
    """A gain drawn uniformly in decibels; samples that would clip are scaled to full scale."""

    gain: Range = (-10.0, 6.0)
    probability: Probability = 0.5


class SpeedConfig(Config):
    """One of `factors`, drawn anew each time (on the fly; stage 2's `speed_perturb` makes fixed copies instead)."""

    factors: tuple[Factor, ...] = (0.9, 1.0, 1.1)
    probability: Probability = 1.0


class AugmentConfig(Config):
    """Waveform augmentation, applied in this order; a section that is left out is off."""

    speed: SpeedConfig | None = None
    reverb: ReverbConfig | None = None
    noise: tuple[NoiseConfig, ...] | None = None  # one kind, or a list of which at most one is added at a time
    volume: VolumeConfig | None = None

    @field_validator("noise", mode="before")
    @classmethod
    def one_kind(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list | tuple) else (value,)

    @model_validator(mode="after")
    def probabilities(self) -> AugmentConfig:
        total = sum(kind.probability for kind in self.noise or ())
        if total > 1 + 1e-6:
            raise ValueError(
                f"the probabilities of the kinds of noise add up to {total:g}: at most one is added at a time"
            )
        return self


class EncoderFeatureConfig(Config):
    """A pretrained encoder whose output, a layer's, or all layers' are the features. Stage 2 adds what `path` says."""

    name: Literal["whisper", "wav2vec2", "hubert", "wavlm"]
    path: ModelPath  # a folder in transformers' layout, or a hub name
    init: str | None = None  # exp/asr/averaged.pt: the encoder as that model has it, fine-tuned for instance
    # null: its output; all: every layer's side by side, of which the model learns a mean (and so much more to store)
    layer: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    downsample: Annotated[int, Field(ge=1)] = 1  # frames of 20 ms that are averaged
    dim: int | None = None  # values a frame: follows from path and layer
    layers: int = 1  # outputs side by side in a frame: follows from path and layer
    frame_shift: float | None = None  # seconds: follows from path
    parameters: int = 0  # follows from path


class FeatureConfig(Config):
    """Stage 2: features, validation and storage. Saved as `features.yaml` beside the splits and into model folders."""

    # whisper: what Whisper's encoder wants; waveform: frames of 160 samples, for wav2vec2, hubert and wavlm;
    # encoder: what the pretrained encoder of the section `encoder` makes of them
    type: Literal["fbank", "mfcc", "whisper", "waveform", "encoder"] = "fbank"
    encoder: EncoderFeatureConfig | None = None
    sampling_rate: Annotated[int, Field(ge=4000)] = 16000
    num_mel_bins: Annotated[int, Field(ge=4, le=512)] = 80
    num_ceps: Annotated[int, Field(ge=2, le=512)] = 40  # mfcc only; at most num_mel_bins
    storage: Literal["disk", "on_the_fly"] = "disk"
    train_splits: tuple[str, ...] = ("train",)  # the splits that speed_perturb, augment and copies apply to
    speed_perturb: tuple[Factor, ...] = ()  # copies beside the original, e.g. [0.9, 1.1]
    augment: AugmentConfig | None = None  # stored augmentation: `copies` more cuts of each training utterance
    copies: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    resample: bool = False  # take recordings of another rate, resampled; otherwise they are quarantined
    min_duration: Annotated[float, Field(ge=0.03)] = 0.1  # seconds
    max_duration: float = 30.0  # seconds
    chars_per_second: Range = (0.3, 40.0)
    silence_db: float = -60.0  # an utterance whose RMS is below this (0 dB: full scale) is silent
    max_bad: Probability = 0.5  # a split with a larger share in quarantine stops the run

    @model_validator(mode="after")
    def consistent(self) -> FeatureConfig:
        if self.type == "mfcc" and self.num_ceps > self.num_mel_bins:
            raise ValueError(f"num_ceps ({self.num_ceps}) must not exceed num_mel_bins ({self.num_mel_bins})")
        if self.type in ("whisper", "waveform", "encoder") and self.sampling_rate != 16000:
            raise ValueError(f"type {self.type} is made of 16000 samples a second, not {self.sampling_rate}")
        if (self.type == "encoder") != (self.encoder is not None):
            raise ValueError("type: encoder and the section 'encoder' belong together: set both or neither")
        if self.type == "encoder" and self.storage == "on_the_fly":
            raise ValueError(
                "type: encoder computes features once, for storage: disk (on the fly, it is the trainer's encoder)"
            )
        if (self.copies > 0) != (self.augment is not None):
            raise ValueError("'copies' and 'augment' belong together: set both or neither")
        if self.storage == "on_the_fly" and self.copies:
            raise ValueError(
                "stored augmentation needs storage: disk (on the fly, the trainer's data section augments)"
            )
        if 1.0 in self.speed_perturb or len(set(self.speed_perturb)) < len(self.speed_perturb):
            raise ValueError("speed_perturb lists the copies beside the original: each factor once, and not 1.0")
        return self

    @property
    def feature_dim(self) -> int:
        """Values a frame."""
        if self.encoder is not None:
            if self.encoder.dim is None:
                raise UserError("features.yaml lacks encoder.dim, which stage 2 adds: run it again.")
            return self.encoder.dim
        return {"mfcc": self.num_ceps, "waveform": 160}.get(self.type, self.num_mel_bins)

    @property
    def frame_shift(self) -> float:
        """Seconds a frame."""
        return self.encoder.frame_shift if self.encoder is not None and self.encoder.frame_shift else 0.01
