"""Training on parallel text: the YAML's keys, what the model folder begins with, the model, and its batches."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import model_validator

from steps.lang.pair_tokens import PairTokens
from steps.model_folder import read_elsewhere
from steps.nets.translator import TranslationConfig, Translator
from steps.prepare.dataset import Batch, Loader
from steps.prepare.pair_batches import pair_loader, pair_table
from steps.prepare.pairs import ParallelSection, ParallelText, read_pairs, without_copies
from steps.prepare.text_batches import TARGET, TextPlan, TextTable
from steps.training.config import TextLoopConfig
from steps.training.folder import TrainFolder
from steps.training.texts import TextBatches
from steps.translator_folder import copy_pretrained, make_translator, pair_tokens
from utils.distributed import World


class TranslationTrainConfig(TranslationConfig, TextLoopConfig):
    """A YAML file for steps.train with a `translator` in place of an encoder and heads."""

    data: ParallelSection

    @model_validator(mode="after")
    def _check_sampling(self) -> TranslationTrainConfig:
        if self.data.sampling and self.translator.name != "transformer":
            raise ValueError("data.sampling: a pretrained translator's tokens have one way to cut a text, leave it out")
        return self


class PairTexts(TextBatches):
    """Training and validation batches of pairs of texts. A pair that is there twice is learned once."""

    things = "pairs"

    def __init__(self, config: TranslationTrainConfig, tokens: PairTokens, longest: int | None, world: World) -> None:
        self.config, self.pair_tokens = config, tokens
        super().__init__(config, longest, world)

    def table_of(self, sets: Sequence[ParallelText], learned: bool) -> TextTable:
        pairs, weights = [], []
        for text in sets:
            found = read_pairs(text, self.config.source, self.config.target)
            pairs += without_copies(found) if learned else found
            weights += [text.weight] * (len(pairs) - len(weights))
        return pair_table(pairs, self.pair_tokens, self.longest, weights if learned else None)

    def loader(self, plan: TextPlan, epoch: int = 0, start: int = 0) -> Loader:
        return pair_loader(plan, self.pair_tokens, epoch, start)

    def frames(self, batch: Batch) -> int:
        return int(batch.targets[TARGET].lens.sum()) + self.pair_tokens.ends * len(batch)

    def contents(self) -> str:
        source, target = self.table.totals
        return f"{len(self.table)} pairs, {source} tokens and {target} of their translations"


class TranslationTask:
    """A translator of text, on pairs."""

    def __init__(self, folder: TrainFolder) -> None:
        self.folder = folder

    def prepare(self, config: TranslationTrainConfig, restart: bool) -> dict:
        """Lock the folder and make it a model folder."""
        for text in (*config.data.train, *config.data.valid):
            read_pairs(text, config.source, config.target)  # its mistakes are found before anything is written
        self.folder.begin(restart)
        self.folder.check_config(config)
        copy_pretrained(config, self.folder.path)
        self.folder.copy_langs(config.langs())
        return {}

    def model(self, config: TranslationTrainConfig, state: dict | None = None) -> Translator:
        """The model, what others trained as they left it, also where the `state` to go on from leaves it out."""
        model = make_translator(config, self.folder.path)
        tokens = pair_tokens(config, self.folder.path)
        read_elsewhere(model, state and state["model"], tokens.tokenizers)
        return model

    def batches(self, config: TranslationTrainConfig, model: Translator, world: World) -> PairTexts:
        """The training and validation data."""
        return PairTexts(config, pair_tokens(config, self.folder.path), model.longest, world)
