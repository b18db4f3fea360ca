"""Which utterances make a batch: buckets of like duration, the same on every rank, resumed in constant time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.errors import UserError


class BatchPlan:
    """Batches of at most `max_duration` seconds with padding, a function of (seed, epoch, rank, world_size) alone.

    Training: utterances are sorted by duration, each moved at random by up to half a bucket (the seconds of the whole
    set are `num_buckets` buckets), and cut into batches one after the other: buckets without borders, which would
    leave small or mixed batches. Then the batches are shuffled. With several ranks, batches that are neighbours in
    duration make one step, so that no rank waits for another, and the largest batches are halved until the ranks
    share them evenly: nothing is dropped, and nothing repeated unless every batch is a single utterance. Evaluation
    (`shuffle=False`): sorted, longest first; nothing is random.

    `durations` (utterances,) in seconds. An utterance longer than `max_duration` is a batch of its own.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        max_duration: float,
        num_buckets: int = 30,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        max_utterances: int | None = None,
        shuffle: bool = True,
    ) -> None:
        self.durations = np.asarray(durations, dtype=np.float64)
        self.max_duration, self.seed, self.shuffle = max_duration, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.max_utterances = max_utterances or len(self.durations)
        if len(self.durations) < world_size:
            raise UserError(f"{len(self.durations)} utterances cannot be shared by {world_size} ranks: start fewer.")
        self.order = np.argsort(self.durations, kind="stable")
        ends = np.cumsum(self.durations[self.order])
        self.place = ends / ends[-1] * max(1, num_buckets)  # of each in `order`, in buckets

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch as lists of indices; every rank gets as many."""
        return self.global_batches(epoch)[self.rank :: self.world_size]

    def global_batches(self, epoch: int) -> list[list[int]]:
        """All ranks' batches of an epoch: batch k of rank r is number k * world_size + r."""
        rng = np.random.default_rng([self.seed, epoch])
        order = self._shuffled(rng) if self.shuffle else self.order[::-1]
        batches = self._share(self._cut(order))
        groups = [batches[i : i + self.world_size] for i in range(0, len(batches), self.world_size)]
        if self.shuffle:
            rng.shuffle(groups)
            groups = [[group[i] for i in rng.permutation(len(group))] for group in groups]
        return [batch for group in groups for batch in group]

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """All indices, sorted by duration but for half a bucket of chance."""
        return self.order[np.argsort(self.place + rng.uniform(0, 0.5, len(self.place)), kind="stable")]

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        """`order` cut into the longest runs whose padded size (count times longest) fits."""
        batches, start, durations = [], 0, self.durations[order]
        while start < len(order):
            room = int(min(self.max_utterances, max(1.0, self.max_duration / max(durations[start], 1e-3))))
            longest = np.maximum.accumulate(durations[start : start + room])
            fits = longest * np.arange(1, len(longest) + 1) <= self.max_duration
            count = max(1, len(fits) if fits.all() else int(fits.argmin()))
            batches.append(order[start : start + count].tolist())
            start += count
        return batches

    def _share(self, batches: list[list[int]]) -> list[list[int]]:
        """`batches` in the same order with the fullest halved until their number is a multiple of the ranks."""
        if not len(batches) % self.world_size:
            return batches
        fullness = [(len(batch) > 1, self.padded(batch)) for batch in batches]
        while len(batches) % self.world_size:
            largest = max(range(len(batches)), key=fullness.__getitem__)
            if len(batches[largest]) == 1:  # each is one utterance: in training the shortest come once more
                return batches + batches[: -len(batches) % self.world_size] if self.shuffle else batches
            batch = sorted(batches[largest], key=lambda i: self.durations[i])
            halves = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            batches[largest : largest + 1] = halves
            fullness[largest : largest + 1] = [(len(half) > 1, self.padded(half)) for half in halves]
        return batches

    def padded(self, batch: list[int]) -> float:
        """Seconds of a batch with its padding."""
        return len(batch) * float(self.durations[batch].max())

    def worst_batch(self) -> list[int]:
        """The largest padded batch that any epoch can bring (of those within 2 %, the one of longest utterances)."""
        ordered = self.durations[self.order]
        places = np.arange(1, len(ordered) + 1)  # how many utterances are no longer than this one
        limit = np.minimum(self.max_utterances, np.maximum(1, self.max_duration // np.maximum(ordered, 1e-3)))
        sizes = np.minimum(places, limit).astype(np.int64)
        padded = sizes * ordered
        last = int(np.flatnonzero(padded >= 0.98 * padded.max())[-1])
        return self.order[last + 1 - sizes[last] : last + 1][::-1].tolist()
