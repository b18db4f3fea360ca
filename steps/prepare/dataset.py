"""Cuts to padded batches of features and token targets, for training (augmented, shuffled) and evaluation."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lhotse import CutSet
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from steps.lang.prompts import FILL
from steps.lang.targets import target_language, target_text
from steps.prepare.audio import compute_features
from steps.prepare.augment import WaveformAugment
from steps.prepare.config import AugmentConfig, SpeedConfig
from steps.prepare.cuts import Cuts
from steps.prepare.sampler import BatchPlan
from steps.prepare.specaugment import SpecAugment, SpecAugmentConfig
from steps.prepare.usable import cut_samples
from utils.errors import UserError
from utils.options import Config

PADDING = -23.025850929940457  # log(1e-10), what Lhotse and icefall pad log-mel features with


class DataConfig(Config):
    """The trainer's `data:` section."""

    max_duration: Annotated[float, Field(gt=0)] = 200.0  # seconds a batch, padding to its longest included
    max_utterances: Annotated[int, Field(ge=1)] | None = None  # a batch
    num_buckets: Annotated[int, Field(ge=1)] = 30
    pad_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0  # see `padded_length`: fewer shapes to compile kernels for
    workers: Annotated[int, Field(ge=0)] = 0  # processes that prepare batches; 0: the trainer's own
    cache: bool = False  # keep stored features in memory as float16 (58 MB an hour of speech at 80 bins)
    on_the_fly: bool = False  # compute features from the audio even where they are stored (`augment` needs it)
    augment: AugmentConfig | None = None
    spec_augment: SpecAugmentConfig | None = SpecAugmentConfig()
    seed: int = 0


@dataclass
class HeadTarget:
    """What a head learns: `target` is "text" or "translation.<lang>", `tokenizer` has `.encode(text, language)`."""

    target: str
    tokenizer: Any
    same_language: bool = False  # an utterance already in the target language is its own translation
    aligned: bool = True  # each token takes a frame (CTC, transducers), so that there cannot be more of them
    ctc: bool = False  # repeated tokens need a blank between them
    prompt: Callable[[str | None], list[int]] | None = None  # of speech in a language; None: it wants none
    positions: int | None = None  # the most tokens that it takes, prompt included (None: no limit)
    speech: Callable[[int], int] | None = None  # how many of them so many encoder frames take (None: none)
    views: int = 1  # how often it wants every utterance in a batch of training, each time masked anew


@dataclass
class Targets:
    """tokens (batch, tokens) int64, padded with zeros; lens (batch,) int64; present (batch,) bool: has this target;
    prompts (batch, prompt tokens) int64, what a decoder is given before the first token (`pad_prompts`).

    With two `views` the batch holds all utterances, and then all again in the same order, with other masks.
    """

    tokens: Tensor
    lens: Tensor
    present: Tensor
    prompts: Tensor
    views: int = 1

    def map(self, function: Callable[[Tensor], Tensor]) -> Targets:
        """With `function` of every tensor."""
        tensors = ("tokens", "lens", "present", "prompts")
        return replace(self, **{name: function(getattr(self, name)) for name in tensors})

    def repeated(self, views: int) -> Targets:
        """All utterances once for each view."""
        return replace(self.map(lambda tensor: torch.cat([tensor] * views)), views=views)


@dataclass
class Batch:
    """features (batch, frames, dim) float32; feature_lens (batch,) int64; durations (batch,) float32 seconds.

    Of text: features are tokens (batch, tokens) int64, durations numbers of tokens. Where targets have two views, so
    have features and feature_lens, but ids and durations have each utterance once.
    """

    ids: list[str]
    features: Tensor
    feature_lens: Tensor
    durations: Tensor
    targets: dict[str, Targets] = field(default_factory=dict)  # by the head's name

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def frames(self) -> int:
        """Padded frames in all: utterances times the longest."""
        return self.features.shape[0] * self.features.shape[1]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        targets = {name: target.map(function) for name, target in self.targets.items()}
        tensors = {name: function(getattr(self, name)) for name in ("features", "feature_lens", "durations")}
        return replace(self, targets=targets, **tensors)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device` (copied without waiting where the memory is pinned).

        Which utterances have a target stays on the CPU: heads choose rows by it, and would wait for the device.
        """
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        for name, target in moved.targets.items():
            target.present = self.targets[name].present
        return moved

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader."""
        return self._map(lambda tensor: tensor.pin_memory())


def padded_length(frames: int, fraction: float) -> int:
    """`frames` rounded up to a multiple of the largest power of two that is at most `fraction` of it (at least 1)."""
    step = 1 << max(0, int(frames * fraction).bit_length() - 1)
    return -(-frames // step) * step


def pad_features(features: list[np.ndarray] | list[Tensor], fraction: float = 0.0) -> tuple[Tensor, Tensor]:
    """Feature matrices (frames, dim) as one padded (batch, frames, dim) float32 and their lengths (batch,) int64."""
    lens = torch.tensor([len(matrix) for matrix in features], dtype=torch.int64)
    frames = padded_length(int(lens.max()), fraction)
    padded = torch.full((len(features), frames, features[0].shape[1]), PADDING)
    for row, matrix in zip(padded, features, strict=True):
        row[: len(matrix)] = torch.as_tensor(matrix)
    return padded, lens


def pad_targets(tokens: list[list[int] | None], prompts: list[list[int]] | None = None) -> Targets:
    """`Targets` of token lists (None where an utterance lacks this target) and of prompts."""
    lens = torch.tensor([len(row or []) for row in tokens], dtype=torch.int64)
    padded = torch.zeros(len(tokens), max(1, int(lens.max())), dtype=torch.int64)
    for row, values in zip(padded, tokens, strict=True):
        row[: len(values or [])] = torch.tensor(values or [], dtype=torch.int64)
    before = pad_prompts(prompts or [[]] * len(tokens))
    return Targets(padded, lens, torch.tensor([row is not None for row in tokens]), before)


def pad_prompts(prompts: Sequence[list[int]]) -> Tensor:
    """Prompts as `(batch, longest)` int64; shorter ones have `steps.lang.prompts.FILL` on their left."""
    longest = max(map(len, prompts))
    return torch.tensor([[FILL] * (longest - len(row)) + row for row in prompts], dtype=torch.int64)


def encode_target(supervision, head: HeadTarget) -> list[int] | None:
    """The supervision's tokens for `head`, or None when it has no such text."""
    text = target_text(supervision, head.target, head.same_language)
    return head.tokenizer.encode(text, target_language(supervision, head.target)) if text else None


def prompt_tokens(head: HeadTarget, language: str | None) -> list[int]:
    """What `head` is given before a text of speech in `language`; `UserError` where its token set lacks something."""
    return head.prompt(language) if head.prompt else []


def as_cuts(cuts: Cuts | CutSet | str | Path) -> Cuts:
    """`Cuts` of a path or a Lhotse CutSet."""
    if isinstance(cuts, (str, Path)):
        return Cuts.load(cuts)
    return cuts if isinstance(cuts, Cuts) else Cuts(cut.to_dict() for cut in cuts)


def read_features(cut, dim: int | None = None) -> np.ndarray:
    """Stored features (frames, dim) float32 of a cut; `UserError` naming the archive when they cannot be read."""
    where = f"{cut.features.storage_path}: the features of {cut.id}"
    try:
        values = cut.load_features()
    except Exception as error:  # whatever the storage back-end raises for missing, short or scrambled files
        found = str(error).partition("\n")[0]
        raise UserError(f"{where} cannot be read ({found}): run stage 2 (features) again.") from None
    if values.shape != (cut.num_frames, dim or cut.num_features):
        expected = f"{(cut.num_frames, dim or cut.num_features)} expected"
        raise UserError(f"{where} have shape {values.shape}, {expected}: run stage 2 (features) again.")
    return values


class FeatureCache:
    """All stored features of a table of cuts in one float16 array, shared by processes that are forked later."""

    def __init__(self, cuts: Cuts) -> None:
        self.offsets = np.cumsum([0, *cuts.num_frames])
        self.values: np.ndarray | None = None
        for index, cut in enumerate(cuts):
            matrix = read_features(cut)
            if self.values is None:
                self.values = np.empty((self.offsets[-1], matrix.shape[1]), dtype=np.float16)
            self.values[self.offsets[index] : self.offsets[index + 1]] = matrix

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


class EpochBatches(Dataset):
    """Batch `k` of a rank's share of an epoch, made from the `indices[k]`; `number` counts over all ranks."""

    def __init__(self, indices: list[list[int]], epoch: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices, self.epoch = indices, epoch
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Batch | UserError:
        """The batch, or the error as a value: raised in a worker it would reach the user as a page of traceback."""
        try:
            return self.make(self.indices[number], number * self.world_size + self.rank)
        except UserError as error:
            return UserError(str(error))

    def make(self, indices: list[int], number: int) -> Batch:
        """The batch of what is at `indices`, as batch `number` of the epoch."""
        raise NotImplementedError

    def largest(self, indices: list[int]) -> Batch:
        """The batch of what is at `indices`, as large as it can become."""
        return self.make(indices, 0)


class Batches(EpochBatches):
    """Batch `k` of an epoch; all randomness is a function of (seed, epoch, the batch's number over all ranks)."""

    def __init__(
        self, cuts: Cuts, heads: dict[str, HeadTarget], config: DataConfig, plan: BatchPlan, epoch: int, train: bool
    ) -> None:
        super().__init__(plan.batches(epoch), epoch, plan.rank, plan.world_size)
        self.cuts, self.heads, self.config, self.train = cuts, heads, config, train
        self.from_audio = config.on_the_fly or not cuts.stored
        if self.from_audio and cuts.config.encoder is not None:
            raise UserError(
                "data.on_the_fly: these features come from a pretrained encoder, once, in stage 2: leave it out (and "
                "make copies there), or give the trainer that encoder itself, and freeze it."
            )
        if train and config.augment and not self.from_audio:
            raise UserError("data.augment changes the audio: set data.on_the_fly: true, or leave it out.")
        self.cache = _cache_of(cuts) if config.cache and not self.from_audio else None
        masks = train and config.spec_augment and epoch + 1 >= config.spec_augment.first_epoch
        self.spec_augment = SpecAugment(config.spec_augment) if masks else None
        self.views = max((head.views for head in heads.values()), default=1) if masks else 1

    def make(self, indices: list[int], number: int) -> Batch:
        """The batch of the cuts at `indices`, augmented (in training) as batch `number` of the epoch."""
        cuts = [self.cuts[index] for index in indices]
        rng = np.random.default_rng([self.config.seed, self.epoch, number])
        matrices = [self._features(cut, index, rng) for cut, index in zip(cuts, indices, strict=True)]
        features, lens = pad_features(matrices, self.config.pad_fraction)
        if self.spec_augment:
            generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            features = self.spec_augment(features, lens, generator, self.views)
        supervisions = [cut.supervisions[0] for cut in cuts]
        targets = {
            name: pad_targets(
                [encode_target(supervision, head) for supervision in supervisions],
                [prompt_tokens(head, supervision.language) for supervision in supervisions],
            ).repeated(self.views)
            for name, head in self.heads.items()
        }
        durations = torch.tensor([cut.duration for cut in cuts], dtype=torch.float32)
        return Batch([cut.id for cut in cuts], features, lens.repeat(self.views), durations, targets)

    def largest(self, indices: list[int]) -> Batch:
        """The batch of the cuts at `indices` where each is as long as augmentation can make it."""
        if not (self.train and self.config.augment and self.config.augment.speed):
            return self.make(indices, 0)
        slowest = AugmentConfig(speed=SpeedConfig(factors=(speed_limits(self.config)[0],)))
        stretched = copy(self)
        stretched.config = self.config.model_copy(update={"augment": slowest})
        return stretched.make(indices, 0)

    def _features(self, cut, index: int, rng: np.random.Generator) -> np.ndarray:
        if self.cache is not None:
            return self.cache[index]
        if not self.from_audio:
            return read_features(cut)
        config = self.cuts.config
        samples = cut_samples(cut)
        if self.train and self.config.augment:
            samples = WaveformAugment.shared(self.config.augment, config.sampling_rate)(samples, rng)
        return compute_features(samples, config)


def _cache_of(cuts: Cuts) -> FeatureCache:
    """The table's cache, filled once and kept on it from epoch to epoch."""
    if not hasattr(cuts, "feature_cache"):
        cuts.feature_cache = FeatureCache(cuts)
    return cuts.feature_cache


class Loader:
    """Iterable over this rank's remaining `Batch`es of one epoch; `len()` is their number, `plan` their `BatchPlan`."""

    def __init__(self, batches: EpochBatches, plan: Any, start_batch: int, workers: int) -> None:
        self.batches, self.plan, self.start_batch, self.workers = batches, plan, start_batch, workers

    def __len__(self) -> int:
        return max(0, len(self.batches) - self.start_batch)

    def worst_batch(self) -> Batch:
        """The batch that needs most memory in any epoch, for a probe before the first step."""
        return self.batches.largest(self.plan.worst_batch())

    def __iter__(self) -> Iterator[Batch]:
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(self.start_batch, len(self.batches)),
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else every pass would draw from torch's own, and a resumed run differ
            worker_init_fn=_start_worker if self.workers else None,
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle


def make_loader(
    cuts: Cuts | CutSet | str | Path,
    heads: dict[str, HeadTarget],
    config: DataConfig,
    train: bool = True,
    epoch: int = 0,
    start_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Batches `start_batch`, `start_batch` + 1, ... of an epoch: the same ones whenever and however often it is called.

    In training, shuffled and augmented; else sorted (longest first), whole and unchanged. Pass the same `Cuts` every
    epoch, so that a cache is filled once.
    """
    cuts = as_cuts(cuts)
    plan = BatchPlan(
        cuts.durations,
        config.max_duration,
        config.num_buckets,
        config.seed,
        rank,
        world_size,
        config.max_utterances,
        shuffle=train,
    )
    return Loader(Batches(cuts, heads, config, plan, epoch, train), plan, start_batch, config.workers)


def speed_limits(config: DataConfig) -> tuple[float, float]:
    """The slowest and the fastest factor by which augmentation may change an utterance; 1, unchanged, is among them."""
    speed = config.augment.speed if config.augment else None
    factors = (1.0, *speed.factors) if speed and speed.probability > 0 else (1.0,)
    return min(factors), max(factors)
