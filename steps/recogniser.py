"""A model folder ready to recognise: features in, hypotheses and texts out. What decode and transcribe share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steps.model_folder import load_model, load_model_config
from steps.nets.pretrained_parts import parameter_counts
from steps.nets.speech import Encoded
from steps.prepare.config import FeatureConfig
from steps.prepare.dataset import pad_prompts
from steps.search.hypothesis import Hypothesis
from steps.search.plan import Search, plan_searches
from steps.search.spoken import Spoken
from steps.search_files import LOADERS
from steps.training.data import head_prompt
from steps.words import timed_words
from utils.devices import (
    autocast,
    choose_device,
    inference_precision,
    is_out_of_memory,
    peak_memory_mb,
    reset_peak_memory,
)
from utils.errors import UserError
from utils.files import require
from utils.fingerprint import digest
from utils.options import load_config


class Recogniser:
    """A model with the searches to run on it.

    `names` are `<head>:<method>` (none: every method of every head), perhaps with options of their own, `options` those
    that were given for all.
    Errors: `UserError` for what is missing, damaged or misspelt; the searches are checked before the model is loaded.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
        options: dict[str, Any] | None = None,
        checkpoint: str = "averaged.pt",
        device: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.folder, self.checkpoint = Path(folder), checkpoint
        self.device = choose_device(device)
        self.precision = inference_precision(precision, self.device)
        heads = {key: head.name for key, head in load_model_config(folder).heads.items()}
        self.searches = plan_searches(names, heads, options or {}, str(folder))
        self.model, self.tokenizers, self.config = load_model(folder, checkpoint, self.device)
        self._check_finite()
        self.seconds_per_frame = self.features.frame_shift * self.model.encoder.subsampling_factor
        self._check_tokens()
        self.peak_memory_mb = 0  # of the last call of `encode` or `search`, with all that is loaded
        self.loaded: dict[tuple[str, str, str], Any] = {}
        for search in self.searches:
            for key in map(search.place, search.options):
                _, kind, path = key
                if kind in LOADERS and path and key not in self.loaded:
                    self.loaded[key] = LOADERS[kind](path, self.tokenizers[search.head], self.device)
        if not self.model.encoder.bounds_text:
            for search in self.searches:
                if "max_length_ratio" in search.options:
                    search.options["max_length_ratio"] = float(search.options["max_tokens"])
        # what a search is told of an utterance before its first token
        self.prompt_of = {
            head: prompt
            for search in self.searches
            for head in (search.head, *search.others().values())
            if (prompt := head_prompt(self.config.heads[head], self.tokenizers[head])) is not None
        }

    def _check_tokens(self) -> None:
        for search in self.searches:
            for option, other in search.others().items():
                if self.tokenizers[other].tokens != self.tokenizers[search.head].tokens:
                    given = f"--{option.replace('_', '-')} {other}"
                    raise UserError(f"{given} has other tokens than {search.head}: give one that shares them.")

    def _check_finite(self) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise UserError(
                    f"{self.folder / self.checkpoint} holds values that are not finite ({name}): its training "
                    "diverged; give an older --checkpoint or train again with a lower learning rate."
                )

    @cached_property
    def digest(self) -> str:
        """Of the checkpoint's content."""
        file = self.folder / self.checkpoint
        file = file if file.exists() else Path(self.checkpoint)
        return digest(str(file), file.stat().st_size)

    @property
    def features(self) -> FeatureConfig:
        """What the model's features are made of; `UserError` where the folder does not say."""
        return load_config(require(self.folder / "features.yaml", "stage 5 (training)"), FeatureConfig)

    def target(self, search: Search) -> str:
        """What the search's head writes: `text` or `translation.<language>`."""
        return self.config.heads[search.head].target

    def parameters(self, search: Search) -> int:
        """Number of parameters that the search uses: the encoder's (also a frozen one's, of features), its head's."""
        counts, head = parameter_counts(self.model), self.config.heads[search.head]
        return (
            counts.get("features", 0)
            + counts["encoder"]
            + counts[f"heads.{getattr(head, 'share', None) or search.head}"]
        )

    def encode(self, features: Tensor, lens: Tensor) -> tuple[Encoded, float]:
        """Encoder output `(N, T', D)` and its lengths for features `(N, T, F)`, and the seconds that it took."""
        return self._timed(lambda: self.model.encode(features.to(self.device), lens.to(self.device)))

    def spoken(self, encoded: Encoded, languages: Sequence[str | None]) -> Spoken:
        """What the searches of a batch of utterances in these languages work on."""
        prompts = {head: pad_prompts([prompt(name) for name in languages]) for head, prompt in self.prompt_of.items()}
        decoders = {head: tokenizer.decode for head, tokenizer in self.tokenizers.items()}
        return Spoken(self.model.heads, encoded, prompts, self.loaded, decoders, languages)

    def search(self, search: Search, spoken: Spoken) -> tuple[list[list[Hypothesis]], float]:
        """The hypotheses of each utterance, and the seconds that it took, or took the search that it shares with."""
        reused = spoken.reused_seconds
        found, seconds = self._timed(lambda: search(spoken))
        return found, seconds + spoken.reused_seconds - reused

    def _timed(self, call: Callable[[], Any]) -> tuple[Any, float]:
        reset_peak_memory(self.device)
        started = time.perf_counter()
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                result = call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise UserError(f"Out of memory on {self.device}: give a smaller --max-duration.") from None
            raise
        seconds = time.perf_counter() - started
        self.peak_memory_mb = peak_memory_mb(self.device)
        return result, seconds

    def text(self, search: Search, hypothesis: Hypothesis) -> str:
        """The text of a hypothesis."""
        if hypothesis.words is not None:
            return " ".join(hypothesis.words)
        return self.tokenizers[search.head].decode(hypothesis.tokens)

    def tokens(self, search: Search, hypothesis: Hypothesis, offset: float = 0.0) -> list[list]:
        """`[token, start in seconds, log probability]` of each token; `offset` seconds are added."""
        tokenizer, shift = self.tokenizers[search.head], self.seconds_per_frame
        columns = zip(hypothesis.tokens, hypothesis.frames, hypothesis.token_scores, strict=True)
        return [[tokenizer.token(i), round(offset + t * shift, 3), round(s, 4)] for i, t, s in columns]

    def words(self, search: Search, hypothesis: Hypothesis) -> list[tuple]:
        """`(word, start, end, confidence)` of each word, as `timed_words` has them."""
        return timed_words(hypothesis, self.tokenizers[search.head], self.seconds_per_frame)
