"""What searches read from files: a neural language model's folder as a scorer of the hypotheses in a beam."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steps.lang.prepare import prepare
from steps.lang.tokenizer import Tokenizer
from steps.search.fusion import FLOOR, Fused
from steps.search_files import LOADERS
from tests.steps.lm.ngram_text import sentences
from tests.steps.tiny_lms import LSTM, TRANSFORMER, write_lang, write_language_model
from utils.errors import UserError

CPU = torch.device("cpu")
LINES = [" ".join(words) for words in sentences(200)]


@pytest.mark.parametrize("about", [LSTM, TRANSFORMER], ids=lambda about: about["name"])
def test_a_folder_scores_the_hypotheses_of_a_beam(tmp_path, monkeypatch, about):
    monkeypatch.setattr("steps.nets.language_model.BLOCK", 2)  # caches grow
    folder = write_language_model(tmp_path / "lm", LINES, about)
    tokenizer = Tokenizer.load(folder / "lang" / "text")
    model = LOADERS["lm"](str(folder), tokenizer, CPU)
    fused, rng = Fused.start([(model, 0.5)], 2, 3, blank=0), np.random.default_rng(0)
    texts = [[[] for _ in range(3)] for _ in range(2)]
    for turn in range(9):
        source = torch.from_numpy(rng.integers(0, 3, (2, 3)))
        tokens = torch.from_numpy(rng.integers(3, tokenizer.vocab_size, (2, 3)))
        extended = torch.from_numpy(rng.random((2, 3)) < 0.6)
        texts = [
            [[*texts[n][source[n, b]], *([int(tokens[n, b])] if extended[n, b] else [])] for b in range(3)]
            for n in range(2)
        ]
        if turn % 2:
            fused = fused.advance(source, tokens, extended)
        else:  # as where looking at the device would make the host wait
            moved = fused._map(lambda x, of=source: x[torch.arange(2)[:, None], of])
            fused = moved._extend(tokens.flatten(), slice(None), extended)
        for n, b in np.ndindex(2, 3):
            with torch.no_grad():
                logits = model.log_odds(torch.tensor([[1, *texts[n][b]]]))[0, -1, 1:]
            expected = 0.5 * logits.log_softmax(0).clamp(min=FLOOR)
            torch.testing.assert_close(fused.scores[n, b, 1:], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(fused.ends[n, b], expected[0], rtol=1e-4, atol=1e-4)


def test_a_model_of_other_tokens_is_refused(tmp_path):
    folder = write_language_model(tmp_path / "lm", LINES, LSTM)
    other = prepare({"en": LINES}, tmp_path / "lang", "char", {"tags": False}, 0, "")
    with pytest.raises(UserError, match=r"lm has other tokens than the head: train it on the head's lang folder"):
        LOADERS["lm"](str(folder), other, CPU)
    assert LOADERS["lm"](str(folder), write_lang(tmp_path / "same", LINES), CPU).end_id == 1
