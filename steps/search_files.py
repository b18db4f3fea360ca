"""What searches read from files: each option that names one, and what is loaded from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from steps.lang.graph import load_graph
from steps.lang.tables import read_table, read_tokens
from steps.search.lattice import DecodingGraph
from utils.errors import UserError


def _graph(path: str, tokenizer: Any, device: torch.device) -> DecodingGraph:
    folder = Path(path)
    if read_tokens(folder / "tokens.txt") != tokenizer.tokens:
        raise UserError(f"--graph {path} has other tokens than the head: make it of that lang folder.")
    return DecodingGraph(load_graph(folder, device=device), read_table(folder / "words.txt"))


# option -> function of (path, the head's tokenizer, device) that loads what the search gets in the path's place
LOADERS: dict[str, Callable[[str, Any, torch.device], Any]] = {"graph": _graph}
