"""Alignment of a recording of any length with its text: encoded in overlapping chunks, aligned as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from torch import Tensor
from tqdm import tqdm

from steps.alignment.aligner import Aligner
from steps.alignment.formats import Row
from steps.alignment.script import Misfit, Script
from steps.alignment.times import align, scaled
from steps.prepare.audio import compute_features, load_audio, read_audio
from steps.search.alignment import Gaps
from utils.errors import UserError

OVERLAP = 2.0  # seconds on each side of a chunk that are encoded and thrown away
STRANGE = 2.0  # nats a frame that anything else may be below the most probable token, where a blank could stand
LEFT_OUT = 3.0  # nats a token that it costs to leave words out
DOUBTFUL = 0.3  # confidence below which words are listed
SILENT = 2.0  # seconds between words that are listed


def align_recording(
    aligner: Aligner, path: str, text: str, language: str | None, chunk: float, max_duration: float
) -> Row:
    """The recording as one cut with its text and where its words are.

    Memory is that of the samples, of a number for each frame and each token that the text has, and of the square root
    of the trellis. Errors: `UserError` for a file that is no audio and for a text that cannot be aligned.
    """
    samples = load_audio(path, aligner.recogniser.features.sampling_rate)
    try:
        script = aligner.script(text, language)
    except Misfit as misfit:
        raise UserError(f"{path}: the text cannot be aligned ({misfit}).") from None
    columns = sorted({0, *script.tokens})
    log_probs = _log_probs(aligner, samples, columns, chunk, max_duration)
    if not len(log_probs):
        raise UserError(f"{path}: the audio is too short to align.")
    local = replace(script, tokens=[columns.index(token) for token in script.tokens])
    lens = torch.tensor([len(log_probs)])
    (aligned,) = align(log_probs[None], lens, [local], aligner.clock, gaps_of(script, log_probs.device))
    return Row(_cut(path, script, language), " ".join(text.split()), aligned, aligner.between)


def _log_probs(aligner: Aligner, samples: np.ndarray, columns: list[int], chunk: float, max_duration: float) -> Tensor:
    """`(T, columns + 1)` without their priors; the last is all tokens that are not among `columns`."""
    parts, total, frames = [], 0.0, 0
    for log_probs in _chunks(aligner, samples, chunk, max_duration):
        probs = log_probs.exp()
        total, frames = total + probs.sum(dim=0, dtype=torch.float64), frames + len(probs)
        rest = (1.0 - probs[:, columns].sum(dim=1, keepdim=True)).clamp(min=1e-8).log()
        parts.append(torch.cat((log_probs[:, columns], rest), dim=1))
    if not frames:
        return torch.zeros(0, len(columns) + 1)
    mean = (total / frames).float()
    prior = torch.cat((mean[columns], (1.0 - mean[columns].sum(dim=0, keepdim=True)))).clamp(min=1e-8).log()
    return scaled(torch.cat(parts), prior, aligner.prior_scale)


def _chunks(aligner: Aligner, samples: np.ndarray, chunk: float, max_duration: float) -> Iterator[Tensor]:
    """Log probabilities `(T', V)` of one stretch of frames after the other."""
    features, clock = aligner.recogniser.features, aligner.clock
    frame = round(clock.frame * features.sampling_rate)
    own, around = max(1, round(chunk / clock.frame)), round(OVERLAP / clock.frame)
    least = features.sampling_rate // 10
    begins = list(range(0, max(1, len(samples) // frame), own))
    together = max(1, int(max_duration / (chunk + 2 * OVERLAP)))
    with tqdm(total=len(begins), unit="chunk", disable=None if len(begins) > 1 else True) as progress:
        for first in range(0, len(begins), together):
            group = begins[first : first + together]
            cuts = [samples[max(begin - around, 0) * frame : (begin + own + around) * frame] for begin in group]
            kept = [(begin, cut) for begin, cut in zip(group, cuts, strict=True) if len(cut) >= least]
            if kept:
                log_probs, lens = aligner.log_probs([compute_features(cut, features) for _, cut in kept])
                for (begin, _), row, length in zip(kept, log_probs, lens.tolist(), strict=True):
                    skip = min(begin, around)
                    last = length if begin == begins[-1] else skip + own
                    yield row[skip : min(last, length)]
            progress.update(len(group))


def gaps_of(script: Script, device: torch.device | str) -> Gaps:
    """Before each word and behind the last, something else may be said, and words may be left out from there."""
    places = torch.tensor([*script.starts, len(script.tokens)], device=device)[None]
    return Gaps(2 * places, LEFT_OUT * places.float(), STRANGE)


def _cut(path: str, script: Script, language: str | None) -> MonoCut:
    """The file as a cut with one supervision."""
    name = Path(path).stem
    samples, rate = read_audio(path)
    channels, length = samples.shape
    recording = Recording(name, [AudioSource("file", list(range(channels)), path)], rate, length, length / rate)
    segment = SupervisionSegment(name, name, 0.0, recording.duration, text=" ".join(script.words), language=language)
    return MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[segment])


def doubtful(row: Row) -> list[dict]:
    """Stretches to look at: words that were not found, words of low confidence, and long gaps between words.

    `{"reason", "start", "end", "words"}`, seconds from the beginning.
    """
    found, words = [], iter(row.aligned.words)
    missing, ends = set(row.aligned.missing), [0.0]
    every = row.text.split() if row.between else []
    clock = []  # (word, kind, start, end) of every word of the text, in order
    for place in range(len(row.aligned.words) + len(missing)):
        if place in missing:
            clock.append((every[place] if every else "", "words that are not said", ends[-1], ends[-1]))
        else:
            word = next(words)
            clock.append((word.symbol, "low confidence" if word.score < DOUBTFUL else "", word.start, word.end))
            ends.append(word.end)
    for kind, run in groupby(clock, key=lambda entry: entry[1]):
        if kind:
            run = list(run)
            said = [entry[0] for entry in run]
            found.append({"reason": kind, "start": run[0][2], "end": run[-1][3], "words": said})
    spans = [(0.0, 0.0), *((word.start, word.end) for word in row.aligned.words), (row.cut.duration,) * 2]
    for (_, end), (start, _) in pairwise(spans):
        if start - end > SILENT:
            found.append({"reason": "nothing of the text", "start": end, "end": start, "words": []})
    return sorted(found, key=lambda entry: (entry["start"], entry["end"]))
