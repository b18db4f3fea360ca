"""A model with what turns its output into alignments: the head's log probabilities, priors, scripts of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steps.alignment.script import Misfit, Script, script
from steps.alignment.times import Aligned, Clock, align, scaled
from steps.lang.tables import BOUNDARY
from steps.prepare.audio import compute_features, resample
from steps.prepare.dataset import pad_features
from steps.prepare.usable import cut_samples
from steps.recogniser import Recogniser
from steps.search.alignment import needed_frames

if TYPE_CHECKING:
    from steps.alignment.pronounce import Pronouncer


class Aligner:
    """Aligns batches of features with texts; `graph` is a folder of steps.lang.graph, whose lexicon spells them.

    Errors: `UserError` for a graph of other tokens, and without k2 for any.
    """

    def __init__(self, recogniser: Recogniser, head: str, prior_scale: float, graph: str | None = None) -> None:
        self.recogniser, self.head, self.prior_scale = recogniser, head, prior_scale
        self.tokenizer = recogniser.tokenizers[head]
        self.target = recogniser.config.heads[head].target
        self.clock = Clock.of(recogniser.model.encoder, recogniser.features.frame_shift)
        self.between = " " if any(token.startswith(BOUNDARY) for token in self.tokenizer.tokens) else ""
        self.prior: Tensor | None = None
        self.pronouncer: Pronouncer | None = None
        if graph:
            from steps.alignment.pronounce import Pronouncer

            self.pronouncer, self.between = Pronouncer(graph, self.tokenizer), " "

    def log_probs(self, matrices: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """`(N, T, V)` of features (frames, dim), and the lengths `(N,)`, as the model gives them."""
        encoded, _ = self.recogniser.encode(*pad_features(list(matrices)))
        with torch.inference_mode():
            return self.recogniser.spoken(encoded, [None] * len(matrices)).log_probs(self.head), encoded.lens.cpu()

    def set_prior(self, mean: Tensor) -> None:
        """What the tokens' probabilities `(V,)` are on average, on the data that is aligned."""
        self.prior = mean.clamp(min=1e-8).log()

    def scale(self, log_probs: Tensor) -> Tensor:
        """Log probabilities `(..., V)` with their priors taken off."""
        return log_probs if self.prior is None else scaled(log_probs, self.prior, self.prior_scale)

    def script(self, text: str | None, language: str | None) -> Script | str:
        """The script of a text, or with a graph the text, whose pronunciation is chosen later; `Misfit` as `script`."""
        if self.pronouncer is not None:
            return self.pronouncer.check(text)
        return script(text, self.tokenizer, language)

    def align(self, log_probs: Tensor, lens: Tensor, scripts: Sequence[Script | str]) -> list[Aligned | Misfit]:
        """One for each row of log probabilities `(N, T, V)`, `lens (N,)`; `Misfit` where the frames are too few."""
        log_probs = self.scale(log_probs)
        found: list[Script | Misfit] = []
        for row, (wanted, length) in enumerate(zip(scripts, lens.tolist(), strict=True)):
            try:
                chosen = wanted
                if not isinstance(chosen, Script):
                    chosen = self.pronouncer.script(chosen, log_probs[row, :length])
                if (least := needed_frames(chosen.tokens)) > length:
                    raise Misfit("more tokens than frames", f"{least} frames needed, {length} there")
                found.append(chosen)
            except Misfit as misfit:
                found.append(misfit)
        fit = [row for row, script in enumerate(found) if isinstance(script, Script)]
        if not fit:
            return found
        aligned = iter(align(log_probs[fit], lens[fit], [found[row] for row in fit], self.clock))
        return [next(aligned) if isinstance(script, Script) else script for script in found]

    def of_cut(self, cut) -> tuple[np.ndarray, Tensor, Clock, Sequence[str], int]:
        """For a picture: samples (time,) of a cut, its scaled log probabilities `(T, V)`, their clock, the tokens, and
        the sampling rate."""
        features = self.recogniser.features
        samples = resample(cut_samples(cut), cut.sampling_rate, features.sampling_rate)
        log_probs, _ = self.log_probs([compute_features(samples, features)])
        return samples, self.scale(log_probs[0]), self.clock, self.tokenizer.tokens, features.sampling_rate
