"""What searches work on: a batch as the encoder heard it, and what several searches of it have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from steps.search.hypothesis import Hypothesis


@dataclass
class Spoken:
    """A batch of N utterances: the model's heads, the encoder's output (`steps.nets.speech.Encoded`), by head the
    prompts `(N, P)` of decoders that want one, what was loaded of the files that options name, by (head, kind,
    file), what makes a text of a head's tokens, and the languages that are spoken."""

    heads: Mapping[str, nn.Module]
    encoded: Any
    prompts: Mapping[str, Tensor] = field(default_factory=dict)
    loaded: Mapping[tuple[str, str, str], Any] = field(default_factory=dict)
    decoders: Mapping[str, Callable[[list[int]], str]] = field(default_factory=dict)
    languages: Sequence[str | None] = ()
    reused_seconds: float = 0.0  # what searches took from others instead of computing it
    _made: dict[Hashable, tuple[Any, float]] = field(default_factory=dict)

    def at(self, key: str) -> tuple[nn.Module, Tensor, Tensor]:
        """A head, what it reads `(N, T, D)`, and the lengths `(N,)`."""
        head = self.heads[key]
        return head, self.encoded.at(head.config.layer), self.encoded.lens

    def log_probs(self, key: str) -> Tensor:
        """`(N, T, V)` of a CTC head."""
        head, encoder_out, _ = self.at(key)
        return self.once(("log_probs", key), lambda: head.log_probs(encoder_out))

    def text(self, key: str, hypothesis: Hypothesis) -> str:
        """What a hypothesis of a head says."""
        return self.decoders[key](hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made for the first search that asks; its seconds count for the others as well."""
        if key in self._made:
            value, seconds = self._made[key]
            self.reused_seconds += seconds
            return value
        started, before = time.perf_counter(), self.reused_seconds
        value = make()
        self._made[key] = value, time.perf_counter() - started + self.reused_seconds - before
        return value
