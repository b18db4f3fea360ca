"""How a text was pronounced: the best of a lexicon's spellings and pauses, through k2 and `steps.lang.graph`'s L."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from steps.alignment.script import Misfit, Script
from steps.lang.graph import load_graph
from steps.lang.hlg import compose_hlg
from steps.lang.lexicon import read_lexicon
from steps.lang.tables import read_table, read_tokens
from steps.lang.text import normalize
from steps.lang.tokenizer import Tokenizer
from steps.objectives.backend import load_k2
from steps.objectives.ctc import dense_fsas
from steps.search.lattice import best_paths
from utils.errors import UserError

OUTPUT_BEAM = 1.0  # nats: only the best path is wanted
LISTED = 10  # words that a report names


class Pronouncer:
    """Scripts of texts by a graph folder's lexicon; `UserError` where its tokens are not the tokenizer's."""

    def __init__(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        folder = Path(folder)
        self.tokens = read_tokens(folder / "tokens.txt")
        if self.tokens != tokenizer.tokens:
            raise UserError(f"--graph {folder} has other tokens than the head: make it of that lang folder.")
        k2 = load_k2()
        self.lexicon = k2.arc_sort(load_graph(folder, "L"))
        self.words = {word: number for number, word in enumerate(read_table(folder / "words.txt"))}
        self.spellings: dict[str, list[tuple[int, ...]]] = {}
        ids = {token: number for number, token in enumerate(self.tokens)}
        for word, spelled in read_lexicon(folder / "lexicon.txt"):
            self.spellings.setdefault(word, []).append(tuple(ids[token] for token in spelled))

    def check(self, text: str | None) -> str:
        """The text with single spaces; `Misfit` where there is none, and for words outside the lexicon."""
        words = normalize(text or "").split()
        if not words:
            raise Misfit("no text", "nothing to align")
        if missing := list(dict.fromkeys(word for word in words if word not in self.spellings)):
            listed = " ".join(missing[:LISTED]) + (" ..." if len(missing) > LISTED else "")
            raise Misfit("words not in the lexicon", listed)
        return " ".join(words)

    def script(self, text: str, log_probs: Tensor) -> Script:
        """The script of how `text` is said best in `log_probs (T, V)`; `Misfit` where the frames are too few."""
        k2, words = load_k2(), text.split()
        with torch.inference_mode(False), torch.no_grad():
            wanted = k2.create_fsa_vec([k2.linear_fsa([self.words[word] for word in words])])
            spoken = k2.connect(k2.remove_epsilon(k2.connect(k2.compose(self.lexicon, k2.arc_sort(wanted)))))
            graph = compose_hlg(spoken, len(self.tokens)).to(log_probs.device)
            frames = log_probs.float().clone()[None]
            dense = dense_fsas(frames, torch.tensor([len(log_probs)]), torch.arange(1))
            best, _, scores = best_paths(k2.intersect_dense(graph, dense, OUTPUT_BEAM))
        if not scores.isfinite().all():
            raise Misfit("more tokens than frames", f"no pronunciation fits into {len(log_probs)} frames")
        tokens = [token for token in best.tokens.tolist() if token > 0]
        spans = whose([self.spellings[word] for word in words], tokens)
        return Script(tokens, [self.tokens[token] for token in tokens], words, spans, [first for first, _ in spans])


def whose(spellings: list[list[tuple[int, ...]]], tokens: list[int]) -> list[tuple[int, int]]:
    """Which of `tokens` are each word's: one of its spellings, and between words as few others (silence) as can be."""

    @cache
    def fewest(place: int, word: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        if word == len(spellings):
            return float(len(tokens) - place), ()
        if place == len(tokens):
            return float("inf"), ()
        skipped, spans = fewest(place + 1, word)
        options = [(skipped + 1, spans)]
        for spelled in spellings[word]:
            end = place + len(spelled)
            if tuple(tokens[place:end]) == spelled:
                cost, rest = fewest(end, word + 1)
                options.append((cost, ((place, end), *rest)))
        return min(options, key=lambda option: option[0])

    return list(fewest(0, 0)[1])
