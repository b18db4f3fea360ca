"""Texts as tokens on disk, mapped into memory: made once by several processes, shared by all that read them.

A folder holds `tokens.bin` (all tokens in a row, uint16 or uint32), `offsets.bin` (int64: where each text begins, and
the last one's end), `dropped.bin` (int64 pairs: number and tokens of each text that is too long) and `about.json` with
counts and checksums: a flat file and an index, as fairseq's and Megatron-LM's mapped datasets are.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from steps.lang.tokenizer import Tokenizer
from steps.prepare.jobs import process_all
from steps.prepare.text_batches import TokenRows
from utils.child import cores
from utils.files import digest_of, read_json, write_json

Text = tuple[str, str | None]  # with its language
Encoded = tuple[int, np.ndarray, np.ndarray, int]  # see `encode_chunk`
CHUNK = 20_000  # texts that a process encodes at a time
FILES = ("tokens", "offsets", "dropped")


class StoredTexts(TokenRows):
    """The texts in a folder; `unknown` counts their `<unk>`.

    Texts are named `source`:<number>, counted from 1 with those that were dropped.
    """

    def __init__(self, folder: Path, source: str) -> None:
        about = read_json(folder / "about.json")
        super().__init__(_mapped(folder, "tokens", about["dtype"]), _mapped(folder, "offsets", np.int64))
        self.source, self.unknown = source, about["unknown"]
        self._sums = about["sha256"]
        numbers, tokens = np.array(_mapped(folder, "dropped", np.int64)).reshape(-1, 2).T
        self._before = numbers - np.arange(len(numbers))  # texts that are kept before each that is not
        said = f"tokens, at most {about['longest']} are taken"
        self.dropped = [
            {"id": f"{source}:{number + 1}", "reason": "too long", "detail": f"{count} {said}"}
            for number, count in zip(numbers.tolist(), tokens.tolist(), strict=True)
        ]

    @property
    def checksum(self) -> str:
        return self._sums["tokens"] + self._sums["offsets"]

    def name(self, row: int) -> str:
        """What the text in this row is called."""
        return f"{self.source}:{row + 1 + int(np.searchsorted(self._before, row, side='right'))}"


def _mapped(folder: Path, name: str, dtype) -> np.ndarray:
    file = folder / f"{name}.bin"
    return np.memmap(file, dtype=dtype, mode="r") if file.stat().st_size else np.zeros(0, dtype=dtype)


def store_texts(folder: Path, texts: Callable[[], Iterable[Text]], lang: Path, longest: int) -> None:
    """Make `folder` of the tokens that the lang folder `lang` has for `texts`, unless it is there and whole.

    Texts of more than `longest` tokens are left out. What another process makes at the same time is waited for, what an
    interrupted one left is deleted.
    """
    with _alone(folder.parent):
        if folder.exists() and not _whole(folder):
            print(f"{folder} is damaged: it is made again", file=sys.stderr)
            shutil.rmtree(folder)
        if folder.exists():
            return
        half = folder.with_name(f".tmp-{folder.name}")
        try:
            half.mkdir()
            _write(half, texts(), lang, longest)
            half.rename(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Only one process writes below `root`, in which nothing half is left."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that writes to {root}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in root.glob(".tmp-*"):
            shutil.rmtree(left)
        yield


def _whole(folder: Path) -> bool:
    about = folder / "about.json"
    return about.exists() and read_json(about)["sha256"] == _checksums(folder)


def _checksums(folder: Path) -> dict[str, str | None]:
    files = {name: folder / f"{name}.bin" for name in FILES}
    return {name: digest_of(file) if file.exists() else None for name, file in files.items()}


def _write(folder: Path, texts: Iterable[Text], lang: Path, longest: int) -> None:
    dtype = np.dtype(np.uint16 if Tokenizer.load(lang).vocab_size <= 1 << 16 else np.uint32)
    count = tokens = unknowns = 0
    slow = 0.5 if sys.stderr.isatty() else 20.0  # in a log file, a line now and then
    with ExitStack() as stack:
        out = {name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in FILES}
        bar = stack.enter_context(tqdm(desc="tokens", unit=" texts", delay=5, mininterval=slow))
        out["offsets"].write(np.zeros(1, dtype=np.int64))
        work = partial(encode_chunk, str(lang), dtype.name, longest)
        for _, ids, lengths, unknown in _in_order(process_all(work, _chunks(texts), cores())):
            kept = lengths <= longest
            out["tokens"].write(ids)
            out["offsets"].write(tokens + np.cumsum(lengths[kept]))
            numbers = count + np.flatnonzero(~kept)
            out["dropped"].write(np.stack((numbers, lengths[~kept]), axis=1))
            count, tokens, unknowns = count + len(lengths), tokens + len(ids), unknowns + unknown
            bar.update(len(lengths))
    about = {"texts": count, "tokens": tokens, "unknown": unknowns, "longest": longest, "dtype": dtype.name}
    write_json(folder / "about.json", {**about, "sha256": _checksums(folder)})


def _chunks(texts: Iterable[Text]) -> Iterator[tuple[int, list[Text]]]:
    rest, number = iter(texts), 0
    while chunk := list(islice(rest, CHUNK)):
        yield number, chunk
        number += 1


def _in_order(results: Iterable[Encoded]) -> Iterator[Encoded]:
    early, wanted = {}, 0
    for result in results:
        early[result[0]] = result
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


_tokenizer = lru_cache(maxsize=1)(Tokenizer.load)


def encode_chunk(lang: str, dtype: str, longest: int, chunk: tuple[int, list[Text]]) -> Encoded:
    """The chunk's number, all ids of the texts that are not too long, the lengths of all its texts, and how many of
    the ids are `<unk>`."""
    tokenizer, (number, texts) = _tokenizer(lang), chunk
    rows = [tokenizer.encode(text, language) for text, language in texts]
    ids = np.array([token for row in rows if len(row) <= longest for token in row], dtype=dtype)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return number, ids, lengths, int((ids == tokenizer.unk_id).sum())
