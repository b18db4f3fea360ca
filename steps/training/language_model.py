"""Training of language models on single texts: the YAML's keys, what the model folder begins with, the batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steps.lang.tokenizer import Tokenizer
from steps.lm.neural import TOKENS
from steps.nets.language_model import LanguageModel, NeuralLmConfig, build_language_model
from steps.prepare.dataset import Batch, Loader
from steps.prepare.sentences import Sentence, SentenceSection, TextSet, read_sentences, sentence_loader
from steps.prepare.text_batches import TextPlan, TextTable
from steps.training.config import LoopConfig
from steps.training.folder import TrainFolder
from steps.training.texts import TextBatches
from utils.distributed import World
from utils.errors import UserError


class LmTrainConfig(NeuralLmConfig, LoopConfig):
    """A YAML file for steps.train with a `language_model` in place of an encoder and heads."""

    data: SentenceSection


class Sentences(TextBatches):
    """Training and validation batches of single texts, each as often as it is there."""

    def __init__(self, data: SentenceSection, tokenizer: Tokenizer, world: World) -> None:
        self.tokenizer = tokenizer
        super().__init__(data, None, world)

    def read(self, text: TextSet) -> list[Sentence]:
        return read_sentences(text)

    def table_of(self, items: Sequence[Sentence], weights: Sequence[float] | None) -> TextTable:
        return TextTable(items, lambda item: [self.tokenizer.encode(item.text, item.language)], self.longest, weights)

    def loader(self, plan: TextPlan, epoch: int = 0, start: int = 0) -> Loader:
        return sentence_loader(plan, self.tokenizer, epoch, start)

    def frames(self, batch: Batch) -> int:
        return int(batch.feature_lens.sum()) + len(batch)  # and the ends

    def summary(self) -> list[str]:
        said = super().summary()
        if unknown := int((self.table.ids == self.tokenizer.unk_id).sum()):
            said.append(f"{unknown} tokens of the training texts are <unk>: they have characters that lang lacks")
        return said


class LanguageModelTask:
    """A language model, on single texts."""

    def __init__(self, folder: TrainFolder) -> None:
        self.folder = folder

    def prepare(self, config: LmTrainConfig, restart: bool) -> dict:
        """Lock the folder and make it a model folder."""
        lang = Path(config.language_model.lang)
        if config.data.sampling and not hasattr(Tokenizer.load(lang), "sample"):
            raise UserError(f"data.sampling: the tokens of {lang} have one way to cut a text, leave it out.")
        for text in (*config.data.train, *config.data.valid):
            read_sentences(text)  # its mistakes are found before anything is written
        self.folder.begin(restart)
        self.folder.check_config(config)
        self.folder.copy_langs({TOKENS: lang})
        return {}

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder.lang(TOKENS))

    def model(self, config: LmTrainConfig, state: dict | None = None) -> LanguageModel:
        """The model as it begins; nothing of it is read from elsewhere."""
        return build_language_model(config, self._tokenizer().vocab_size)

    def batches(self, config: LmTrainConfig, model: LanguageModel, world: World) -> Sentences:
        """The training and validation data."""
        return Sentences(config.data, self._tokenizer(), world)
