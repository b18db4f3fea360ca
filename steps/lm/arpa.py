"""ARPA files: back-off n-gram models as text, probabilities and back-off weights as decimal logarithms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from steps.lm.backoff import BOS, EOS, SPELLINGS, BackoffModel, Grams
from utils.errors import UserError
from utils.files import atomic_path, open_text, read_lines

LN10 = math.log(10)
NEVER = -99.0  # SRILM's decimal logarithm of 0
WRITTEN = 1 << 16  # n-grams that are strings at a time
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")


class _Lines(Iterator[str]):
    """The lines of a file that are not empty, with the number of the last one."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.number = path, 0
        self._lines = read_lines(path, "make it again")

    def __next__(self) -> str:
        for line in self._lines:
            self.number += 1
            if line and not line.isspace():
                return line
        raise StopIteration

    def refuse(self, what: str) -> UserError:
        return UserError(f"{self.path}, line {self.number}: {what}: it is not in ARPA format, make it again.")


def read_arpa(path: str | Path) -> BackoffModel:
    """The model of an ARPA file (gzipped where the name ends in `.gz`).

    Errors: `UserError` naming the line for a file that is empty or not in ARPA format, has other counts than its head
    says, an n-gram twice, or one whose first words are none, and for a model without `<s>` or `</s>`.
    """
    lines = _Lines(path)
    promised = _head(lines)
    words: dict[str, int] = {}
    orders: list[Grams] = []
    for order, count in enumerate(promised, 1):
        orders.append(_section(lines, order, count, words, orders))
    if next(lines, None) != "\\end\\":
        raise lines.refuse(f"'\\end\\' is expected after {len(promised)} section(s)")
    for word in (BOS, EOS):
        if word not in words:
            raise UserError(f"{path} has no {word}: it is no model of sentences.")
    return BackoffModel(list(words), orders)


def _head(lines: _Lines) -> list[int]:
    """The counts of all orders; the first section's heading is then read."""
    if not any(line.strip() == "\\data\\" for line in lines):
        raise UserError(f"{lines.path} is empty or not in ARPA format ('\\data\\' is missing): make it again.")
    counts: list[int] = []
    for line in lines:
        if found := _COUNT.fullmatch(line.strip()):
            if int(found[1]) != len(counts) + 1:
                raise lines.refuse(f"'{line.strip()}' where the count of {len(counts) + 1}-grams is expected")
            counts.append(int(found[2]))
        elif counts and line.strip() == "\\1-grams:":
            return counts
        else:
            break
    raise lines.refuse("'ngram <order>=<count>' and then '\\1-grams:' are expected")


def _section(lines: _Lines, order: int, count: int, words: dict[str, int], orders: list[Grams]) -> Grams:
    """The n-grams of one order, sorted; unigrams fill `words`."""
    if order > 1 and (heading := next(lines, "the file's end").strip()) != f"\\{order}-grams:":
        raise lines.refuse(f"'\\{order}-grams:' is expected after {len(orders[-1])} n-grams, found '{heading[:60]}'")
    ids = np.zeros((count, order), dtype=np.int64)
    values = np.zeros((count, 2))
    for row in range(count):
        fields = next(lines, "").split()
        if not order + 1 <= len(fields) <= order + 2:
            raise lines.refuse(f"a probability, {order} word(s) and perhaps a back-off weight are expected")
        try:
            values[row] = float(fields[0]), float(fields[order + 1]) if len(fields) == order + 2 else 0.0
        except ValueError:
            raise lines.refuse(f"'{fields[0]}' and '{fields[-1]}' are expected to be numbers") from None
        gram = [SPELLINGS.get(word, word) for word in fields[1 : order + 1]]
        if order == 1 and words.setdefault(gram[0], row) != row:
            raise lines.refuse(f"'{gram[0]}' is there twice")
        try:
            ids[row] = [words[word] for word in gram]
        except KeyError as missing:
            raise lines.refuse(f"{missing} is no unigram") from None
    if not np.isfinite(values).all() or (values[:, 0] > 0.001).any():
        raise UserError(f"{lines.path}: a {order}-gram has a probability above 1, or no number: make it again.")
    return _sorted(lines.path, ids, values, words, orders)


def _sorted(path: str | Path, ids: np.ndarray, values: np.ndarray, words: dict, orders: list[Grams]) -> Grams:
    order, prefix = ids.shape[1], np.zeros(len(ids), dtype=np.int64)
    if order > 1:
        below = BackoffModel(list(words), orders)
        prefix = below.index(ids[:, :-1])
        if (prefix < 0).any():
            gram = " ".join(below.words[i] for i in ids[int(np.argmin(prefix))])
            raise UserError(f"{path} has the {order}-gram '{gram}', but not its first {order - 1} word(s) as one.")
    place = np.lexsort((ids[:, -1], prefix))
    twice = (np.diff(prefix[place]) == 0) & (np.diff(ids[place, -1]) == 0)
    if twice.any():
        gram = " ".join(list(words)[i] for i in ids[place[int(np.argmax(twice))]])
        raise UserError(f"{path} has the {order}-gram '{gram}' twice: make it again.")
    log_prob = np.where(values[:, 0] <= NEVER, -np.inf, values[:, 0] * LN10)
    return Grams(prefix[place], ids[place, -1], log_prob[place], values[place, 1] * LN10)


def write_arpa(path: str | Path, model: BackoffModel) -> None:
    """Write `model` in ARPA format (gzipped where the name ends in `.gz`), whole or not at all."""
    with atomic_path(path) as temporary, open_text(temporary, "wt") as out:
        out.write("\\data\\\n")
        out.writelines(f"ngram {order}={count}\n" for order, count in enumerate(model.counts, 1))
        for order, grams in enumerate(model.orders, 1):
            out.write(f"\n\\{order}-grams:\n")
            for start in range(0, len(grams), WRITTEN):
                rows = np.arange(start, min(start + WRITTEN, len(grams)))
                probs = np.where(np.isinf(grams.log_prob[rows]), NEVER, grams.log_prob[rows] / LN10)
                weights = grams.backoff[rows] / LN10 + 0.0
                ends = [f"\t{weight:.7g}" if order < model.order else "" for weight in weights]
                spelled = zip(probs, _spelled(model, order, rows), ends, strict=True)
                out.writelines(f"{p:.7g}\t{gram}{end}\n" for p, gram, end in spelled)
        out.write("\n\\end\\\n")


def _spelled(model: BackoffModel, order: int, rows: np.ndarray) -> np.ndarray:
    """The words of these n-grams, as strings."""
    grams = model.orders[order - 1]
    words = np.array([model.words[word] for word in grams.word[rows]], dtype=object)
    return words if order == 1 else _spelled(model, order - 1, grams.prefix[rows]) + " " + words
