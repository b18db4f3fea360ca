"""utils.files: errors name the file that the user knows."""

from __future__ import annotations

import errno
import gzip

import pytest

from utils.errors import UserError
from utils.files import atomic_path, read_jsonl, write_text


def test_a_file_that_cannot_be_written_is_named_as_the_user_did():
    with pytest.raises(OSError) as caught:
        write_text("/proc/R.md", "x")
    assert caught.value.filename == "/proc/R.md"


def test_errors_about_other_files_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a"):
        raise FileNotFoundError(errno.ENOENT, "gone", "other")
    assert caught.value.filename == "other"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(b'{"id": 1}\n' * 999)[:-20], "is truncated or not gzip"),
        (b"plain", "is truncated or not gzip"),
        (gzip.compress(b"x" * 99)[:10] + b"\xff" * 30, "is truncated or not gzip"),
        (gzip.compress(b"\xff\xfe"), "is not text in UTF-8"),
        (gzip.compress(b'{"id": 1}\n{"id'), "line 2: not JSON"),
    ],
)
def test_damaged_lines_are_one_sentence(tmp_path, content, sentence):
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        list(read_jsonl(tmp_path / "a.jsonl.gz"))
    assert "a.jsonl.gz" in str(caught.value) and "\n" not in str(caught.value)
