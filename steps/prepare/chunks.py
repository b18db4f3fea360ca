"""A split's work cut into chunks: each is validated, turned into features, written whole, and never done twice."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.features import Features
from lhotse.features.io import LilcomChunkyWriter

from steps.prepare.audio import AudioError, change_speed, compute_features, make_extractor
from steps.prepare.augment import WaveformAugment
from steps.prepare.config import FeatureConfig
from steps.prepare.manifests import Work, unpack
from steps.prepare.usable import (
    Rejected,
    check_file,
    check_samples,
    check_text,
    fit,
    read_recording,
    segment_fault,
    single_file,
)
from utils.files import atomic_path, read_jsonl, write_jsonl

FORMAT = 1  # part of every fingerprint: raise it when the same input should give another result


@dataclass
class Chunk:
    """About `size` utterances of whole recordings, so that no file is read twice."""

    work: Work
    archive: Path  # features; the cuts lie beside it as .jsonl
    config: FeatureConfig
    train: bool  # speed perturbation and stored augmentation apply
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.fingerprint = self.fingerprint or _fingerprint(self)

    @property
    def rows(self) -> Path:
        """The finished chunk: a line with fingerprint and seconds, then one line a cut or rejected utterance."""
        return self.archive.with_suffix(".jsonl")

    @property
    def utterances(self) -> int:
        return sum(len(supervisions) for _, supervisions in self.work)


def _fingerprint(chunk: Chunk) -> str:
    """A digest of everything the chunk's result depends on: manifests, options, and size and time of audio files and of
    the weights that a frozen encoder has."""
    digest = hashlib.sha256(json.dumps([FORMAT, chunk.train, str(chunk.archive)]).encode())
    digest.update(chunk.config.model_dump_json().encode())
    if chunk.config.encoder is not None:
        files = sorted(Path(chunk.config.encoder.path).glob("*"))
        for file in (file for file in files if file.suffix in (".safetensors", ".bin")):
            digest.update(_state(file))
        if chunk.config.encoder.init:
            digest.update(_state(chunk.config.encoder.init))
    for recording, supervisions in unpack(chunk.work):
        digest.update(json.dumps([recording, supervisions], sort_keys=True).encode())
        for source in recording.get("sources", []):
            digest.update(_state(str(source.get("source"))))
    return digest.hexdigest()


def _state(file: str | Path) -> bytes:
    """What changes when a file does."""
    try:
        stat = os.stat(file)
        return f"{stat.st_size} {stat.st_mtime_ns}".encode()
    except (OSError, ValueError):
        return b"missing"


def plan_chunks(work: Work, folder: Path, config: FeatureConfig, train: bool, size: int) -> list[Chunk]:
    """`work` in chunks of about `size` utterances, with archives `folder`/00000.lca and so on."""
    groups, count = [[]], 0
    for item in work:
        if count >= size:
            groups.append([])
            count = 0
        groups[-1].append(item)
        count += len(item[1])
    folder = folder.resolve()  # cuts name their archive absolutely, so that they can be read from any directory
    return [Chunk(group, folder / f"{i:05d}.lca", config, train) for i, group in enumerate(groups) if group]


def is_done(chunk: Chunk) -> bool:
    """Whether an earlier run finished exactly this chunk."""
    if not chunk.rows.exists() or (chunk.config.storage == "disk" and not chunk.archive.exists()):
        return False
    return next(read_jsonl(chunk.rows), {}).get("fingerprint") == chunk.fingerprint


def process_chunk(chunk: Chunk) -> tuple[str, int]:
    """Make the chunk's features, cuts and rejections, atomically; returns (name, utterances)."""
    rows: list[dict] = []
    started = time.perf_counter()
    chunk.rows.unlink(missing_ok=True)  # the rows vouch for the archive: never old rows beside a new archive
    with _writer(chunk) as writer:
        for recording, supervisions in unpack(chunk.work):
            rows += _process_recording(recording, supervisions, chunk, writer)
    about = {"fingerprint": chunk.fingerprint, "seconds": round(time.perf_counter() - started, 3)}
    write_jsonl(chunk.rows, [about, *rows])
    return chunk.archive.stem, chunk.utterances


@contextmanager
def _writer(chunk: Chunk) -> Iterator[LilcomChunkyWriter | None]:
    """Lhotse's and icefall's usual archive (lilcom in chunks), renamed into place when complete; None on the fly."""
    disk = chunk.config.storage == "disk"
    try:
        with (
            atomic_path(chunk.archive) if disk else nullcontext() as temporary,
            LilcomChunkyWriter(temporary) if disk else nullcontext() as writer,
        ):
            yield writer
    except OSError as error:
        error.filename = error.filename or str(chunk.archive)
        raise


def _process_recording(recording: dict, supervisions: list[dict], chunk: Chunk, writer) -> list[dict]:
    """Rows {"cut": ...} or {"bad": ...} of all utterances of one recording, which is read once."""
    rows, samples = [], None
    source = Recording.from_dict(recording)
    for item in supervisions:
        supervision = SupervisionSegment.from_dict(item)
        try:
            check_file(source, chunk.config)
            check_text(supervision, chunk.config)
            if samples is None:
                samples = _read_once(source, chunk.config)
            if isinstance(samples, Rejected):
                raise samples
            rows += [{"cut": cut.to_dict()} for cut in _make_cuts(source, supervision, samples, chunk, writer)]
        except (Rejected, AudioError) as problem:
            rows.append({"bad": {"id": supervision.id, "reason": problem.reason, "detail": problem.detail}})
    return rows


def _read_once(source: Recording, config: FeatureConfig) -> np.ndarray | Rejected:
    try:
        return read_recording(source, config)
    except Rejected as problem:
        return problem


def _make_cuts(
    source: Recording, supervision: SupervisionSegment, samples: np.ndarray, chunk: Chunk, writer
) -> Iterator[MonoCut]:
    """The utterance's cut, then its speed-perturbed and augmented copies; `samples` (channels, time): the recording."""
    rate, config = chunk.config.sampling_rate, chunk.config
    place = (supervision.start, supervision.duration, supervision.channel)
    if fault := segment_fault(*place, source.duration, source.channel_ids):
        raise Rejected(*fault)
    cut, channel = _plain_cut(source, supervision, rate)
    first, length = round(cut.start * rate), round(cut.duration * rate)
    samples = fit(samples[channel, first : first + length], length)
    check_samples(samples, config)
    faster = {factor: cut.perturb_speed(factor) for factor in config.speed_perturb if chunk.train}
    yield _store(cut, samples, chunk, writer)
    for factor, copy in faster.items():
        changed = fit(change_speed(samples[None], factor, rate)[0], round(copy.duration * rate))
        yield _store(copy, changed, chunk, writer)
    for number in range(config.copies if chunk.train else 0):
        copy = cut.with_id(f"{cut.id}_aug{number + 1}")
        copy.custom = {"augmented": True}  # its features are augmented, its recording is not
        rng = np.random.default_rng([config.seed, zlib.crc32(copy.id.encode())])
        yield _store(copy, WaveformAugment.shared(config.augment, rate)(samples, rng), chunk, writer)


def _plain_cut(source: Recording, supervision: SupervisionSegment, rate: int) -> tuple[MonoCut, int]:
    """(cut of one supervision, row of its channel in the recording's samples); a list of channels means its first."""
    channel = supervision.channel if isinstance(supervision.channel, int) else supervision.channel[0]
    path = single_file(source)
    if path is not None:
        source.sources[0].source = str(path.resolve())
    recording = source if source.sampling_rate == rate else source.resample(rate)
    duration = min(supervision.duration, recording.duration - supervision.start)
    inside = supervision.with_offset(-supervision.start)
    inside.duration, inside.channel = duration, channel
    cut = MonoCut(supervision.id, supervision.start, duration, channel, supervisions=[inside], recording=recording)
    return cut, source.channel_ids.index(channel)


def _store(cut: MonoCut, samples: np.ndarray, chunk: Chunk, writer) -> MonoCut:
    """`cut` with its features written (or unchanged when features are made on the fly)."""
    if writer is None:
        return cut
    values, config = compute_features(samples, chunk.config), chunk.config
    cut.features = Features(
        type=make_extractor(config).name,
        num_frames=values.shape[0],
        num_features=values.shape[1],
        frame_shift=config.frame_shift,
        sampling_rate=config.sampling_rate,
        start=cut.start,
        duration=cut.duration,
        storage_type=writer.name,
        storage_path=str(chunk.archive),  # its name once renamed
        storage_key=writer.write(cut.id, values),
        recording_id=cut.recording_id,
        channels=cut.channel,
    )
    return cut
