"""The record of steps whose gradient was not finite: read from the device late, so that no step waits for it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from steps.training.meters import Progress
from utils.errors import UserError
from utils.files import read_jsonl, write_jsonl


class NonFinite:
    """Counts skipped steps and writes their utterances to `path` (JSON lines: epoch, step, ids).

    Errors: `flush()` raises `UserError` after `limit` of them in a row.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.pending: list[tuple[Tensor, dict]] = []

    def add(self, finite: Tensor, progress: Progress, ids: list[str]) -> None:
        """Note a step's flag (0-dim bool, unread) and the utterances it was made from."""
        self.pending.append((finite, {"epoch": progress.epoch + 1, "step": progress.step, "ids": ids}))

    def flush(self, progress: Progress) -> int:
        """Read the flags of all steps since the last call, update the counts; the number of skipped ones."""
        if not self.pending:
            return 0
        flags = torch.stack([finite for finite, _ in self.pending]).tolist()
        rows = [row for finite, (_, row) in zip(flags, self.pending, strict=True) if not finite]
        self.pending.clear()
        for finite in flags:
            progress.in_a_row = 0 if finite else progress.in_a_row + 1
            if progress.in_a_row >= self.limit:
                self._write(rows)
                raise UserError(
                    f"{self.limit} steps in a row had a gradient that is not finite (utterances in {self.path}): "
                    "lower optimizer.lr, or train with precision=float32."
                )
        progress.skipped += len(rows)
        self._write(rows)
        return len(rows)

    def forget(self, step: int) -> None:
        """Drop the rows of steps from `step` on, which are about to be done again."""
        if self.path.exists():
            write_jsonl(self.path, [row for row in read_jsonl(self.path) if row["step"] < step])

    def _write(self, rows: list[dict]) -> None:
        if rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
