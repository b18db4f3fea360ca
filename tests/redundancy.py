"""The redundancy of a tree: the share of its code lines in a window of ten that stands elsewhere too.

usage: python -m tests.redundancy [FOLDER ...]     without a folder: this repository, where 3 % is a failure

A code line is a line of Python, shell or YAML that holds a letter or a digit outside of comments and docstrings. Its
text counts without indentation and trailing comment. A window is ten code lines of a file in a row; links are not
followed. All places of a repeated window count; without the first of them it is what could be deleted.
Measured so, icefall's egs/ (36e0420) have 84.8 % (73.7 % without first places), Kaldi's (f400766; no Perl) 61.9 %
(47.3 %), Lhotse 1.33.0 7.7 % (4.5 %).
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pygments.lexers import BashLexer, PythonLexer, YamlLexer
from pygments.token import Comment, String

from tests.tree import ROOT, files

WINDOW = 10
LIMIT = 0.03
LEXERS = {".py": PythonLexer, ".sh": BashLexer, ".yaml": YamlLexer}
SHOWN = 20


class Line(NamedTuple):
    """A code line: where it stands (from 1) and what it says."""

    number: int
    text: str


class Repeat(NamedTuple):
    """Code lines that stand again: (file, index of the first of them), the same of an earlier place, how many."""

    place: tuple[Path, int]
    earlier: tuple[Path, int]
    lines: int


def code_lines(text: str, suffix: str) -> list[Line]:
    """The code lines of a file's text."""
    code = ""
    for token, value in LEXERS[suffix](stripnl=False).get_tokens(text):
        code += "\n" * value.count("\n") if token in Comment or token in String.Doc else value
    lines = (Line(number, line.strip()) for number, line in enumerate(code.split("\n"), 1))
    return [line for line in lines if re.search(r"[^\W_]", line.text)]


def repeated(tree: dict[Path, list[Line]]) -> list[list[tuple[Path, int]]]:
    """The places (file, index of its first code line) of each window that stands in two places or more."""
    places = defaultdict(list)
    for path, lines in tree.items():
        for first in range(len(lines) - WINDOW + 1):
            places[tuple(line.text for line in lines[first : first + WINDOW])].append((path, first))
    return [found for found in places.values() if len(found) > 1]


def covered(windows: list[list[tuple[Path, int]]]) -> Counter[str]:
    """How many code lines stand in any of the windows, by the suffix of their files."""
    lines = {(path, first + line) for found in windows for path, first in found for line in range(WINDOW)}
    return Counter(path.suffix for path, _ in lines)


def runs(windows: list[list[tuple[Path, int]]]) -> list[Repeat]:
    """Windows in a row that repeat windows in a row, as one; longest first."""
    pairs = sorted((place, found[0]) for found in windows for place in found[1:])
    result = []
    for _, group in groupby(enumerate(pairs), lambda pair: (pair[1][0][0], pair[1][1][0], *offsets(*pair))):
        run = [pair for _, pair in group]
        result.append(Repeat(*run[0], len(run) + WINDOW - 1))
    return sorted(result, key=lambda repeat: -repeat.lines)


def offsets(at: int, pair: tuple[tuple[Path, int], tuple[Path, int]]) -> tuple[int, int]:
    """What stays the same while both places of a list of pairs go on by one line."""
    (_, here), (_, there) = pair
    return here - at, here - there


def read(folders: list[str]) -> dict[Path, list[Line]]:
    """The code lines of all files of folders, or of the repository."""
    found = [path for folder in folders for path in sorted(Path(folder).rglob("*"))] if folders else files(".")
    paths = [path for path in found if path.suffix in LEXERS and path.is_file() and not path.is_symlink()]
    return {path: code_lines(path.read_text("utf-8", "replace"), path.suffix) for path in paths}


def report(tree: dict[Path, list[Line]]) -> float:
    """Prints the shares and the longest repeated places; the share that counts."""
    windows = repeated(tree)
    everywhere, spare = covered(windows), covered([places[1:] for places in windows])
    lines: Counter[str] = Counter()
    for path in tree:
        lines[path.suffix] += len(tree[path])
    total = max(lines.total(), 1)
    share = everywhere.total() / total
    kinds = ", ".join(f"{suffix} {everywhere[suffix] / n:.2%} of {n}" for suffix, n in lines.items() if n)
    print(f"redundancy: {share:.2%} of {total} code lines in {len(tree)} files ({kinds}),")
    print(f"            {spare.total() / total:.2%} without the first place of each")

    def name(place: tuple[Path, int]) -> str:
        path, first = place
        return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{tree[path][first].number}"

    for repeat in runs(windows)[:SHOWN]:
        print(f"  {repeat.lines} lines: {name(repeat.earlier)} = {name(repeat.place)}")
    return share


def main(folders: list[str]) -> int:
    """Reports on folders, or on the repository, which has to stay under the limit."""
    tree = read(folders)
    if not tree:
        print(f"error: {' '.join(folders)}: no Python, shell or YAML there.", file=sys.stderr)
        return 2
    if report(tree) < LIMIT or folders:
        return 0
    print(f"error: a redundancy of {LIMIT:.0%} is too much: one piece of code can serve such places.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
