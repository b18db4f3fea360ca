"""The trainer's YAML: every key, its type and its default (`encoder`, `heads`: steps.nets; `data`: steps.prepare)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from steps.nets.model import ModelConfig
from steps.prepare.dataset import DataConfig
from steps.training.optimizers import OptimizerConfig, ScaledAdamConfig
from steps.training.schedules import Eden, Schedule
from utils.options import Config

Precision = Literal["auto", "float32", "bf16", "fp16"]


class AverageConfig(Config):
    """What `averaged.pt` is: the mean of the model over its last epochs, or an exponential moving average."""

    period: PositiveInt = 20  # steps between samples
    last_epochs: PositiveInt = 5  # at most half of all epochs are averaged
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # a sample, of the moving average
    initial: float = Field(0.0, ge=0, lt=1)  # weight of the model as it began, where that was trained before (WiSE-FT)

    @model_validator(mode="after")
    def one_kind(self) -> AverageConfig:
        # a saved config has every key: the default stands beside a decay there
        if self.decay is not None and self.last_epochs != type(self).model_fields["last_epochs"].default:
            raise ValueError("'decay' and 'last_epochs' are two kinds of average: set one of them")
        return self


class LoopConfig(Config):
    """Everything about training but the data and the model."""

    # what a whole step has is in `batch_<unit>`, how much of it a GB of memory holds in `<unit>_per_gb`
    unit: ClassVar[Literal["seconds", "tokens"]] = "seconds"
    limit: ClassVar[str] = "data.max_duration"  # what one process holds at once
    seed: NonNegativeInt = 42
    device: str = "auto"  # auto, cpu, cuda, cuda:<number>
    precision: Precision = "auto"  # auto: measured on a CPU
    optimizer: OptimizerConfig = ScaledAdamConfig()
    schedule: Schedule = Eden()
    # parts of the model from other experiments: {encoder: exp/asr/averaged.pt, heads.a: exp/asr/averaged.pt:heads.b},
    # of a translator {net.head: exp/mt/averaged.pt}
    init: dict[str, str] = Field(default_factory=dict)
    lr_scale: dict[str, PositiveFloat] = Field(
        default_factory=dict
    )  # parts of the model and what multiplies their learning rate
    start_after: dict[str, PositiveInt] = Field(default_factory=dict)  # parts that stay as they are for so many steps
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # once more for every layer below the encoder's top
    epochs: NonNegativeInt = 30  # 0: the model as it begins, for pretrained ones as they are
    accumulate: PositiveInt = 1  # batches a step, on each process; follows from batch_seconds where that is given
    clip_norm: PositiveFloat | None = None  # L2 norm of all gradients; ScaledAdam also clips itself
    reference_duration: PositiveFloat | None = (
        None  # seconds of speech (tokens of text) that are one step to the model's schedules
    )
    # seconds (tokens) of a step in which schedules count; a larger step is then more than one of theirs
    reference_batch: PositiveFloat | None = None
    max_nonfinite: PositiveInt = 20  # that many skipped steps in a row end training
    probe: bool = True  # try the largest batch before the first step
    save_every_steps: PositiveInt | None = None
    save_every_seconds: PositiveFloat | None = 120.0
    valid_every: PositiveInt | None = None  # steps; null: at the end of each epoch only
    keep_last: PositiveInt = 2  # epoch-N.pt kept, besides those that averaged.pt needs
    average: AverageConfig = AverageConfig()
    log_every: PositiveInt = 20  # steps

    @field_validator("init", "lr_scale", "start_after", mode="before")
    @classmethod
    def _flatten(cls, parts: Any) -> Any:
        """`init.heads.ctc=x` on the command line is a section in a section."""
        return dict(_flat(parts)) if isinstance(parts, dict) else parts

    @model_validator(mode="after")
    def _one_size(self) -> LoopConfig:
        if self.batch_total and self.accumulate != 1:
            raise ValueError(f"'accumulate' follows from 'batch_{self.unit}': set one of them")
        if self.reference_batch and not self.batch_total:
            raise ValueError(f"'reference_batch' compares with 'batch_{self.unit}': set both")
        return self

    @property
    def batch_total(self) -> float | None:
        """Seconds or tokens of a step, over all processes and accumulated batches; None: as the batches come."""
        return getattr(self, f"batch_{self.unit}", None)

    @property
    def batch_limit(self) -> float:
        """Seconds or tokens that one process may hold at once, padding included."""
        return getattr(self.data, self.limit.removeprefix("data."))

    @property
    def pace(self) -> float:
        """How many of the steps that schedules count in one step is."""
        return self.batch_total / self.reference_batch if self.batch_total and self.reference_batch else 1.0

    @property
    def averaged_epochs(self) -> int:
        """How many epochs `averaged.pt` is the mean of."""
        return min(self.average.last_epochs, max(1, self.epochs // 2))

    @property
    def kept_epochs(self) -> int:
        """How many of the newest `epoch-N.pt` are kept."""
        return max(self.keep_last, 1 if self.average.decay else self.averaged_epochs + 1)


class DataSection(DataConfig):
    """Stage 2's cuts to train on and to validate on, and how they become batches."""

    train: str  # data/train/cuts.jsonl.gz
    valid: str | None = None  # data/dev/cuts.jsonl.gz


class TrainConfig(ModelConfig, LoopConfig):
    """A YAML file for steps.train; `feature_dim` follows from the features and need not be given."""

    batch_seconds: PositiveFloat | None = None  # of a step in all; batches are as large as data.max_duration allows
    seconds_per_gb: PositiveFloat | None = None  # that a GB of memory holds in training: with a preset, max_duration
    data: DataSection


class TextLoopConfig(LoopConfig):
    """What the trainer's YAML files for text have in common."""

    unit: ClassVar[Literal["seconds", "tokens"]] = "tokens"
    limit: ClassVar[str] = "data.max_tokens"
    batch_tokens: PositiveFloat | None = None  # of a step in all; batches are as large as data.max_tokens allows
    tokens_per_gb: PositiveFloat | None = None  # that a GB of memory holds in training: with a preset, max_tokens


def _flat(section: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
