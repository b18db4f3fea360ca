"""What searches read from files: each option that names one, and what is loaded from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from steps.lang.graph import load_graph
from steps.lang.hotwords import spelled_hotwords
from steps.lang.tables import read_table, read_tokens
from steps.lm.arpa import read_arpa
from steps.lm.neural import open_language_model
from steps.lm.token_ngram import NgramScorer
from steps.search.fusion import TokenScorer
from steps.search.hotwords import Hotwords
from steps.search.lattice import DecodingGraph
from utils.errors import UserError


def _graph(path: str, tokenizer: Any, device: torch.device) -> DecodingGraph:
    folder = Path(path)
    if read_tokens(folder / "tokens.txt") != tokenizer.tokens:
        raise UserError(f"--graph {path} has other tokens than the head: make it of that lang folder.")
    return DecodingGraph(load_graph(folder, device=device), read_table(folder / "words.txt"))


def _token_lm(path: str, tokenizer: Any, device: torch.device) -> TokenScorer:
    if Path(path).is_dir():
        model, own = open_language_model(path, device=device)
        if own.tokens != tokenizer.tokens:
            raise UserError(f"{path} has other tokens than the head: train it on the head's lang folder.")
        return model
    return NgramScorer(read_arpa(path), tokenizer.tokens, path, device)


def _hotwords(path: str, tokenizer: Any, device: torch.device) -> Hotwords:
    return Hotwords(*spelled_hotwords(path, tokenizer), end_id=tokenizer.eos_id, device=device)


# option -> function of (path, the head's tokenizer, device) that loads what the search gets in the path's place
LOADERS: dict[str, Callable[[str, Any, torch.device], Any]] = {
    "graph": _graph,
    "hotwords": _hotwords,
    "lm": _token_lm,
    "subtract_lm": _token_lm,
}
