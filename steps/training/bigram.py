"""What lattice-free MMI compares with: a bigram of the tokens that are learned, kept in the model's folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from steps.lang.tables import SOS_EOS
from steps.lm.arpa import read_arpa, write_arpa
from steps.lm.backoff import BackoffModel
from steps.lm.kneser_ney import estimate, vocabulary
from steps.lm.token_ngram import NgramScorer
from steps.nets.ctc_head import CtcConfig
from steps.nets.model import Model
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import HeadTarget, encode_target
from steps.training.folder import TrainFolder
from utils.distributed import World
from utils.errors import UserError

LARGEST = 5000  # tokens: all pairs of them, in float64, are 200 MB


def set_bigrams(model: Model, cuts: Cuts, targets: dict[str, HeadTarget], folder: TrainFolder, world: World) -> None:
    """Give every head with `objective: mmi` its bigram: the one in the folder, which is made where there is none."""
    for name, head in model.heads.items():
        if isinstance(head.config, CtcConfig) and head.config.objective == "mmi":
            given = (folder.lang(name) / "bigram.arpa", name, head.config.bigram, targets[name], cuts)
            head.set_bigram(world.on_main(partial(stored_bigram, *given)))


def stored_bigram(file: Path, name: str, given: str | None, target: HeadTarget, cuts: Cuts) -> Tensor:
    """The bigram (see `table`) in `file`, which is made of the ARPA file `given`, or else of the cuts' targets.

    The same whenever training goes on. Errors: `UserError` for a token set that is too large, and for an ARPA file that
    is no bigram or lacks tokens.
    """
    tokens = target.tokenizer.tokens
    if len(tokens) > LARGEST:
        raise UserError(
            f"heads.{name}: objective mmi keeps a table of all pairs of tokens, and {len(tokens)} are too many: give a "
            f"lang folder of at most {LARGEST}."
        )
    if not file.exists():
        model = read_arpa(given) if given else estimated(target, cuts)
        table(model, tokens, given or str(file))
        write_arpa(file, model)
    return table(read_arpa(file), tokens, str(file))


def estimated(target: HeadTarget, cuts: Cuts) -> BackoffModel:
    """The Kneser-Ney bigram of the targets of `cuts`."""
    rows = (encode_target(cut.supervisions[0], target) for cut in cuts)
    sentences = [[target.tokenizer.tokens[token] for token in row] for row in rows if row is not None]
    return estimate(sentences, 2, vocabulary(sentences, target.tokenizer.tokens[3:])).model


def table(model: BackoffModel, tokens: list[str], source: str) -> Tensor:
    """ln p(column | row) `(vocab, vocab)`: row 0 is a text's beginning, column 0 its end; `<sos/eos>` is never said."""
    if model.order != 2:
        raise UserError(f"{source} has {model.order}-grams, objective mmi wants a bigram (steps.lm.ngram --order 2).")
    scorer = NgramScorer(model, tokens, source)
    first, (state,) = scorer.begin(1)
    after, _ = scorer.extend(torch.arange(len(tokens)), (state.expand(len(tokens)),))
    found, end = torch.cat((first, after[1:])), tokens.index(SOS_EOS)
    found[:, 0], found[:, end] = found[:, end].clone(), -torch.inf
    return found
