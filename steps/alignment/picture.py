"""An alignment over its spectrogram, and what the model thinks of each token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from steps.alignment.formats import Row
from steps.alignment.times import Clock
from utils.files import atomic_path

LONGEST = 30.0  # seconds that can still be read
WIDTH = 2.2  # inches a second
WINDOW, HOP = 0.025, 0.005  # seconds


def draw(
    path: str | Path, row: Row, samples: np.ndarray, log_probs: Tensor, clock: Clock, tokens: Sequence[str], rate: int
) -> None:
    """Write a PNG of the first `LONGEST` seconds: spectrogram of `samples (time,)` with words and their confidences
    above, tokens in their places; and below it the probabilities `log_probs (T, V)` of what is in the text."""
    duration = min(len(samples) / rate, LONGEST)
    figure = Figure(figsize=(max(6.0, WIDTH * duration), 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    size, hop = int(WINDOW * rate), int(HOP * rate)
    padding = 1e-5 * np.random.default_rng(0).standard_normal(len(samples))  # digital silence has no logarithm
    above.specgram(samples + padding, NFFT=size, Fs=rate, noverlap=size - hop, cmap="gray_r", vmin=-110)
    above.set(ylabel="Hz", ylim=(0, rate / 2))
    above.set_title(f"{row.cut.id}: {row.text[:120]}", loc="left", fontsize=9, pad=26)
    top = above.get_xaxis_transform()
    for word in row.aligned.words:
        if word.start < duration:
            colour = matplotlib.colormaps["RdYlGn"](word.score)
            above.axvspan(word.start, word.end, facecolor=colour, alpha=0.25, edgecolor="black", linewidth=0.8)
            middle = word.start + word.duration / 2
            above.text(middle, 1.01, f"{word.symbol}\n{word.score:.2f}", transform=top, ha="center", fontsize=8)
    for token in row.aligned.tokens:
        if token.start < duration:
            middle = token.start + token.duration / 2
            above.text(middle, 0.96, token.symbol, transform=top, ha="center", va="top", fontsize=7, color="navy")
    _probabilities(below, row, log_probs, clock, list(tokens))
    below.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.02), xlim=(0, duration))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def _probabilities(axes, row: Row, log_probs: Tensor, clock: Clock, tokens: list[str]) -> None:
    """A line for blank and for each token of the alignment."""
    probs = log_probs.float().exp().cpu().numpy()
    times = clock.time(0.5) + clock.frame * np.arange(len(probs))
    axes.plot(times, probs[:, 0], color="silver", linewidth=0.8)
    for symbol in dict.fromkeys(token.symbol for token in row.aligned.tokens):
        axes.plot(times, probs[:, tokens.index(symbol)], linewidth=1.0)
