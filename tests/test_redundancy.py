"""The measure of what a tree says again, on trees whose share is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.redundancy import code_lines, main, read, repeated, runs

PYTHON = '''#!/usr/bin/env python3
"""A module."""

import os  # everything


def call(
    name: str = "a # b",
) -> None:
    """Says a name.

    Errors: none.
    """
    # nothing else
    print(
        name, """one
two""",
    )
'''


def statements(prefix: str, count: int) -> str:
    return "".join(f"{prefix}{number} = {number}\n" for number in range(count))


@pytest.fixture
def share(tmp_path: Path, capsys):
    """Writes a tree {name: text}; (share in percent, share without first places, lines of places) as printed."""

    def call(tree: dict[str, str]) -> tuple[float, float, list[str]]:
        for name, text in tree.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        assert main([str(tmp_path)]) == 0
        first, second, *places = capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()
        return float(first.split()[1].rstrip("%")), float(second.split()[0].rstrip("%")), places

    return call


def test_code_lines_of_python():
    numbers = [4, 7, 8, 9, 15, 16, 17]
    texts = ["import os", "def call(", 'name: str = "a # b",', ") -> None:", "print(", 'name, """one', 'two""",']
    assert [tuple(line) for line in code_lines(PYTHON, ".py")] == list(zip(numbers, texts, strict=True))


def test_code_lines_of_shell_and_yaml():
    shell = '#!/usr/bin/env bash\n\n# why\nif x; then  # what\n  echo "# a" ${#b}\nfi\n}\n'
    assert [line.text for line in code_lines(shell, ".sh")] == ["if x; then", 'echo "# a" ${#b}', "fi"]
    assert [tuple(line) for line in code_lines("\n# a\na:  # b\n  - 1\n---\n", ".yaml")] == [(3, "a:"), (4, "- 1")]


def test_what_stands_once_is_not_redundant(share):
    assert share({"a.py": statements("a", 40), "b.py": statements("b", 40)}) == (0, 0, [])


def test_nine_lines_are_no_window_and_ten_are(share):
    assert share({"a.py": statements("a", 9) + "b = 0\n", "b.py": statements("a", 9) + "c = 0\n"})[0] == 0
    found = share({"a.py": statements("a", 10) + "b = 0\n", "b.py": "\n# c\n" + statements("a", 10) + "c = 0\n"})
    assert found == (90.91, 45.45, ["  10 lines: a.py:1 = b.py:3"])


def test_three_copies_count_all_or_two_of_three_times(share):
    copies = {f"{name}.sh": statements("a", 12) for name in "xyz"}
    assert share(copies) == (100, 66.67, ["  12 lines: x.sh:1 = y.sh:1", "  12 lines: x.sh:1 = z.sh:1"])


def test_indentation_and_comments_hide_nothing_and_a_file_may_repeat_itself(share):
    lines = statements("a", 11)
    again = "def f():\n" + "".join(f"    {line}  # changed\n\n" for line in lines.splitlines())
    assert share({"a.py": lines + again + statements("b", 7)}) == (73.33, 36.67, ["  11 lines: a.py:1 = a.py:13"])


def test_links_and_other_files_are_left_out(tmp_path, share):
    (tmp_path / "b.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "below").symlink_to(tmp_path)
    assert share({"a.py": statements("a", 40), "c.txt": statements("a", 40)}) == (0, 0, [])


def test_a_break_in_a_copy_makes_two_places(tmp_path):
    (tmp_path / "a.py").write_text(statements("a", 31))
    (tmp_path / "b.py").write_text(statements("a", 31).replace("a12 = 12\n", "b = 0\nc = 0\n"))
    assert [repeat.lines for repeat in runs(repeated(read([str(tmp_path)])))] == [18, 12]


def test_a_folder_without_code(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/nowhere: no Python, shell or YAML there.\n"


def test_too_much_of_it_fails(tmp_path, monkeypatch, capsys):
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(statements("a", 10))
    monkeypatch.setattr("tests.redundancy.files", lambda _: sorted(tmp_path.iterdir()))
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("error: a redundancy of 3% is too much")
    (tmp_path / "c.py").write_text(statements("c", 10 * 2 * 33))
    assert main([]) == 0
