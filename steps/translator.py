"""A translator ready to translate: texts in, translations with their scores out, whatever memory there is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steps.lang.pair_tokens import PairTokens
from steps.nets.translator import Translator
from steps.prepare.dataset import pad_targets
from steps.prepare.sampler import BatchPlan
from steps.search.translation import SearchOptions, Written, search
from utils.devices import autocast, is_out_of_memory
from utils.errors import UserError


@dataclass(frozen=True)
class Translation:
    """A translation: its log-probability in nats, and that over the length's norm, by which lists are ordered."""

    text: str
    score: float
    rank: float


@dataclass
class TextTranslator:
    """A model and its tokens on a device. `seconds` counts what the model took, `cut` the texts that were too long.

    Where a GPU has no room for a batch, halves of it are tried, and in the end the CPU goes on alone.
    """

    model: Translator
    tokens: PairTokens
    options: SearchOptions
    device: torch.device
    precision: str = "float32"
    max_tokens: int = 3000  # a batch of sources, padding included
    seconds: float = 0.0
    cut: int = 0
    said: list[str] = field(default_factory=list)

    def __call__(self, texts: Sequence[str], languages: Iterable[str | None]) -> list[list[Translation]]:
        """The `options.nbest` best translations of each text, best first; an empty text has an empty one."""
        languages = list(languages)
        sources = [
            self._ids(text, language) if text.strip() else []
            for text, language in zip(map(self.model.config.source, texts), languages, strict=True)
        ]
        found = [[Translation("", 0.0, 0.0)] for _ in texts]
        full = [place for place, source in enumerate(sources) if source]
        plan = BatchPlan([len(sources[place]) for place in full], self.max_tokens, shuffle=False) if full else None
        for batch in plan.batches(0) if plan else ():
            places = [full[index] for index in batch]
            items = [(sources[place], self.tokens.prompt(languages[place])) for place in places]
            for place, best in zip(places, self._batch(items), strict=True):
                found[place] = [Translation(self.tokens.decode(one.tokens), one.score, one.rank) for one in best]
        return found

    def _ids(self, text: str, language: str | None) -> list[int]:
        ids, longest = self.tokens.source(text, language), self.model.longest
        if longest is None or len(ids) <= longest:
            return ids
        self.cut += 1
        return [*ids[: longest - 1], ids[-1]]  # the last one tells the model that this is the end

    def _batch(self, items: list[tuple[list[int], list[int]]]) -> list[list[Written]]:
        """`items` are sources and prompts."""
        sources, prompts = map(list, zip(*items, strict=True))
        padded = pad_targets(sources, prompts)
        try:
            return self._search(padded.tokens, padded.lens, padded.prompts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            too_large = UserError(f"Out of memory on {self.device} for a single text: give a smaller --beam.")
        # outside of the handler, which would keep what was computed alive
        if len(items) > 1:
            half = len(items) // 2
            return self._batch(items[:half]) + self._batch(items[half:])
        if self.device.type == "cpu":
            raise too_large
        self._say(f"warning: {self.device} has no room for a single text: the CPU goes on")
        self.device = torch.device("cpu")
        self.model.to(self.device)
        return self._batch(items)

    def _say(self, sentence: str) -> None:
        self.said.append(sentence)
        print(sentence, file=sys.stderr)

    def _search(self, *batch: Tensor) -> list[list[Written]]:
        """`batch` is sources `(N, tokens)`, their lengths `(N,)` and prompts `(N, P)`."""
        started = time.perf_counter()
        with torch.inference_mode(), autocast(self.device, self.precision):
            batch = tuple(tensor.to(self.device) for tensor in batch)
            found = search(self.model.net, *batch, self.tokens.start, self.options)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - started
        return found
