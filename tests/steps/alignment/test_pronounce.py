"""The best of a lexicon's pronunciations and pauses, against each of them aligned alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from steps.alignment.pronounce import Pronouncer, whose
from steps.alignment.script import Misfit
from steps.lang.graph import main as make_graph
from steps.lang.tokenizer import Tokenizer
from steps.search.alignment import ctc_alignment
from utils.errors import UserError

LEXICON = {"a": ["x", "x y"], "b": ["y"], "bee": ["y x", "z"]}
TOKENS = ["<blk>", "<sos/eos>", "<unk>", "x", "y", "z", "SIL"]
ARPA = """\\data\\
ngram 1=5

\\1-grams:
-1.0 <s>
-1.0 </s>
-1.0 a
-1.0 b
-1.0 bee

\\end\\
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    (folder / "lang").mkdir()
    (folder / "lang/tokens.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(TOKENS)))
    (folder / "lang/lang.json").write_text('{"type": "char", "languages": ["en"], "tags": false}')
    entries = [f"{word} {spelled}\n" for word, spellings in LEXICON.items() for spelled in spellings]
    (folder / "lexicon").write_text("".join(entries))
    (folder / "lm.arpa").write_text(ARPA)
    files = ["--lang", folder / "lang", "--lm", folder / "lm.arpa", "--lexicon", folder / "lexicon", "--silence", "SIL"]
    assert make_graph([*map(str, files), "--silence-prob", "0.5", "--out", str(folder / "graph")]) == 0
    return folder


@pytest.mark.k2
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("text", ["a", "a b", "b bee a"])
def test_the_best_of_all_pronunciations(folder, seed, text):
    torch.manual_seed(seed)
    log_probs = (3 * torch.randn(9, len(TOKENS))).log_softmax(-1)
    found = Pronouncer(folder / "graph", Tokenizer.load(folder / "lang")).script(text, log_probs)
    words = text.split()
    totals = {}
    for chosen in itertools.product(*(LEXICON[word] for word in words)):
        for pauses in itertools.product(([], ["SIL"]), repeat=len(words) + 1):
            spelled = [[*spelling.split(), *pause] for spelling, pause in zip(chosen, pauses[1:], strict=True)]
            tokens = [TOKENS.index(token) for token in [*pauses[0], *itertools.chain(*spelled)]]
            _, score = ctc_alignment(
                log_probs[None], torch.tensor([9]), torch.tensor([tokens]), torch.tensor([len(tokens)])
            )
            totals[tuple(tokens)] = float(score)  # pauses and none are as probable
    assert tuple(found.tokens) == max(totals, key=totals.__getitem__)
    assert found.words == words and found.symbols == [TOKENS[token] for token in found.tokens]
    for word, (first, last) in zip(words, found.spans, strict=True):
        assert " ".join(found.symbols[first:last]) in LEXICON[word]


@pytest.mark.k2
def test_texts_that_the_lexicon_cannot_say(folder):
    pronouncer = Pronouncer(folder / "graph", Tokenizer.load(folder / "lang"))
    with pytest.raises(Misfit, match=r"words not in the lexicon: c d$"):
        pronouncer.check("a c b d c")
    with pytest.raises(Misfit, match="no text"):
        pronouncer.check("  ")
    with pytest.raises(Misfit, match="no pronunciation fits into 1 frames"):
        pronouncer.script("a b", torch.zeros(1, len(TOKENS)).log_softmax(-1))
    other = Tokenizer([*TOKENS, "w"], ["en"], False)
    with pytest.raises(UserError, match="has other tokens than the head"):
        Pronouncer(folder / "graph", other)


def test_silence_is_nobodys():
    x, y, z, silence = range(3, 7)
    spans = whose([[(x,), (x, y)], [(y,)], [(y, x), (z,)]], [silence, x, y, silence, y, z])
    assert spans == [(1, 3), (4, 5), (5, 6)]
