"""Stage 4: how well language models of any kind predict a text, comparable whatever their tokens are.

    python -m steps.lm.perplexity --lm data/lm/4gram.arpa.gz exp/lm gpt2 --cuts data/dev/cuts.jsonl.gz
    python -m steps.lm.perplexity --lm data/lm/tokens.arpa.gz --lang data/lang_bpe_500 --text dev.txt.gz

A model is an ARPA file (of words, or with `--lang` of tokens), a model folder of steps.train with a `language_model`,
or a causal language model of transformers, as a folder or a name on the hub. For each, a line of JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice

import numpy as np

from steps.lm.text import Text, read_texts, text_options
from steps.lm.text_scorer import TextScorer, open_text_scorer
from utils.devices import choose_device
from utils.errors import run
from utils.options import Parser

LISTED = 20  # unknown words
BLOCK = 20_000  # texts that are held at a time


def perplexity(scorer: TextScorer, texts: Iterable[Text]) -> dict:
    """What a model makes of texts, whose ends count as words and as tokens.

    `perplexity` is per token, of those that the model knows, `perplexity_with_oov` of all. `word_perplexity` divides
    the nats of the whole text by its words and ends: by it, models with different tokens can be compared, as long as
    they lack the same words. None: an unknown word has no probability.
    """
    rest, vocabulary, found = iter(texts), set(), Counter()
    sentences = words = tokens = unknown = 0
    known = total = 0.0
    while block := list(islice(rest, BLOCK)):
        scores = scorer.score([text for text, _ in block], [language for _, language in block])
        said = [text.split() for text, _ in block]
        vocabulary.update(chain.from_iterable(said))
        sentences, words = sentences + len(block), words + sum(map(len, said))
        tokens, unknown = tokens + int(scores.tokens.sum()), unknown + int(scores.unknown.sum())
        known, total = known + float(scores.known.sum()), total + float(scores.log_probs.sum())
        found.update(scores.found or {})
    report = {
        "sentences": sentences,
        "words": words,
        "tokens": tokens - sentences,
        "oov": unknown,
        "oov_words": sorted(word for word in vocabulary if scorer.lacks(word))[:LISTED],
        "log_prob": round(known, 4),
        "perplexity": _perplexity(known, tokens - unknown),
        "perplexity_with_oov": _perplexity(total, tokens),
        "word_perplexity": _perplexity(total, words + sentences),
    }
    return report | ({"longest_found": dict(found)} if found else {})


def _perplexity(log_prob: float, count: int) -> float | None:
    return round(float(np.exp(-log_prob / count)), 4) if count and np.isfinite(log_prob) else None


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.lm.perplexity", description=__doc__.splitlines()[0])
    parser.add_argument("--lm", nargs="+", required=True, help="ARPA files, model folders, folders or names of the hub")
    parser.add_argument("--checkpoint", default="averaged.pt", help="of model folders")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number>")
    text_options(parser)
    args = parser.parse_args(argv)
    texts, device = read_texts(args), choose_device(args.device)
    for path in args.lm:
        scorer = open_text_scorer(path, args.lang, args.checkpoint, device)
        print(json.dumps({"lm": path, **perplexity(scorer, texts)}, ensure_ascii=False), flush=True)
    return 0


if __name__ == "__main__":
    run(main)
