"""The real Asterisk corpus, downloaded once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpora import asterisk
from utils.errors import UserError


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    try:
        return asterisk.real()
    except UserError as error:
        pytest.skip(f"the Asterisk packages cannot be had here: {error}")


@pytest.fixture
def miniature(real_corpus: Path, tmp_path: Path) -> Path:
    return asterisk.make(tmp_path / "corpus", ("en", "it", "ru"), 12, real_corpus)
