"""References beside those of `hyp.jsonl`: `--references FILE...`, plain text or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import read_jsonl, read_lines


@dataclass(frozen=True)
class ReferenceFile:
    """One more reference for each utterance; `ids` is None for plain text, which has the order of `hyp.jsonl`."""

    path: Path
    texts: list[str]
    ids: list[str] | None

    @classmethod
    def read(cls, path: str | Path) -> ReferenceFile:
        """A line an utterance, or {"id", "text"} a line in a file named `*.jsonl` or `*.jsonl.gz`.

        Errors: `UserError` for a file that is missing, is not UTF-8, or has entries without an id and a text.
        """
        path = Path(path)
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            return cls(path, list(read_lines(path, "save it as UTF-8, or check the path")), None)
        texts: dict[str, str] = {}
        for number, row in enumerate(read_jsonl(path), 1):
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "text")):
                raise UserError(f'{path}, entry {number}: write {{"id": "...", "text": "..."}} a line.')
            if row["id"] in texts:
                raise UserError(f"{path}, entry {number}: '{row['id']}' is there twice: keep one.")
            texts[row["id"]] = row["text"]
        return cls(path, list(texts.values()), list(texts))

    def of(self, hypotheses: Path, ids: Sequence[str]) -> dict[str, str]:
        """The texts by the ids of `hypotheses`; an utterance whose text is blank has none.

        Errors: `UserError` where the counts differ or an id is missing.
        """
        if len(self.texts) != len(ids):
            raise UserError(
                f"--references {self.path} has {len(self.texts)} references, {hypotheses} has {len(ids)} utterances: "
                "give one for each (an empty line where there is none), and score this split and target alone."
            )
        if self.ids is not None and (missing := set(ids) - set(self.ids)):
            raise UserError(
                f"--references {self.path} has no reference for '{min(missing)}' of {hypotheses}: give one for each."
            )
        return {name: text for name, text in zip(self.ids or ids, self.texts, strict=True) if text.strip()}
