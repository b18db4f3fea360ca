"""What searches read from files: the kinds of files that options name, and what is loaded from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steps.lang.graph import load_graph
from steps.lang.hotwords import spelled_hotwords
from steps.lang.lexicon import BACKOFF
from steps.lang.openfst import read_fst
from steps.lang.tables import read_table, read_tokens, word_table
from steps.lm.arpa import read_arpa
from steps.lm.grammar import grammar
from steps.lm.neural import open_language_model
from steps.lm.text_scorer import TextScorer, open_text_scorer
from steps.lm.token_ngram import NgramScorer
from steps.objectives.backend import load_k2
from steps.search.fast_beam import with_end
from steps.search.fusion import TokenScorer
from steps.search.hotwords import Hotwords
from steps.search.lattice import DecodingGraph
from steps.search.wfst import WordFst
from steps.search.whole_lattice import Grammar
from utils.errors import UserError
from utils.files import require

if TYPE_CHECKING:
    import k2


def _graph_words(folder: str, tokenizer: Any) -> list[str]:
    """The words of a graph's folder, which must be made of the head's tokens."""
    if read_tokens(Path(folder) / "tokens.txt") != tokenizer.tokens:
        raise UserError(f"--graph {folder} has other tokens than the head: make it of that lang folder.")
    return read_table(Path(folder) / "words.txt")


def _graph(path: str, tokenizer: Any, device: torch.device, name: str = "HLG") -> DecodingGraph:
    words = _graph_words(path, tokenizer)
    return DecodingGraph(load_graph(path, name, device), words)


def _word_fst(path: str, tokenizer: Any, device: torch.device) -> WordFst:
    words = _graph_words(path, tokenizer)
    return WordFst(read_fst(path), words)


def _transducer_graph(path: str, tokenizer: Any, device: torch.device) -> DecodingGraph:
    found = _graph(path, tokenizer, device, "LG")
    return DecodingGraph(with_end(found.hlg, len(tokenizer.tokens)), found.words)


def _token_lm(path: str, tokenizer: Any, device: torch.device) -> TokenScorer:
    if Path(path).is_dir():
        model, own = open_language_model(path, device=device)
        if own.tokens != tokenizer.tokens:
            raise UserError(f"{path} has other tokens than the head: train it on the head's lang folder.")
        return model
    return NgramScorer(read_arpa(path), tokenizer.tokens, path, device)


def _hotwords(path: str, tokenizer: Any, device: torch.device) -> Hotwords:
    return Hotwords(*spelled_hotwords(path, tokenizer), end_id=tokenizer.eos_id, device=device)


def _grammar(path: str, tokenizer: Any, device: torch.device) -> Grammar:
    folder = Path(path)
    if require(folder, "stage 4 (language models)").is_dir():
        g, theirs = load_graph(folder, "G", device), read_table(folder / "words.txt")
    else:
        model = read_arpa(folder)
        g, theirs = None, [*model.words, BACKOFF]

    def over(words: Sequence[str]) -> tuple[k2.Fsa, int]:
        if missing := sorted({*words[1:]} - {*theirs, *word_table(())}):
            raise UserError(
                f"--rescore-graph {path} lacks {len(missing)} words of --graph ({' '.join(missing[:3])} ...): make "
                "both of language models with the same words."
            )
        if g is None:
            return grammar(model, words)[0].to_k2(acceptor=True).to(device), words.index(BACKOFF)
        ids = {word: place for place, word in enumerate(words)}
        table = [ids.get(word, len(words) + place) for place, word in enumerate(theirs)]
        places = torch.tensor(table, dtype=torch.int32, device=device)
        copy = load_k2().Fsa.from_dict(g.as_dict())
        copy.labels = torch.where(g.labels > 0, places[g.labels.clamp(min=0).long()], g.labels)
        return copy, ids[BACKOFF]

    return Grammar(over)


def _text_scorer(path: str, tokenizer: Any, device: torch.device) -> TextScorer:
    return open_text_scorer(path, device=device)


# an option, or what the method calls its file -> function of (path, the head's tokenizer, device): what the search gets
LOADERS: dict[str, Callable[[str, Any, torch.device], Any]] = {
    "graph": _graph,
    "hotwords": _hotwords,
    "HLG.fst": _word_fst,
    "LG": _transducer_graph,
    "lm": _token_lm,
    "rescore_graph": _grammar,
    "rescore_lm": _text_scorer,
    "subtract_lm": _token_lm,
}
