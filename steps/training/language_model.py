"""Training of language models on single texts: the YAML's keys, what the model folder begins with, the batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steps.lang.tokenizer import Tokenizer
from steps.lm.neural import TOKENS
from steps.nets.language_model import LanguageModel, NeuralLmConfig, build_language_model
from steps.prepare.dataset import Batch, Loader
from steps.prepare.sentences import SentenceSection, TextSet, TokenCache, sentence_loader
from steps.prepare.text_batches import TextPlan, TextTable
from steps.training.config import TextLoopConfig
from steps.training.folder import TrainFolder
from steps.training.texts import TextBatches
from utils.distributed import World
from utils.errors import UserError

CACHE = ".tokens"


class LmTrainConfig(NeuralLmConfig, TextLoopConfig):
    """A YAML file for steps.train with a `language_model` in place of an encoder and heads."""

    data: SentenceSection


class Sentences(TextBatches):
    """Training and validation batches of single texts, each as often as it is there."""

    def __init__(self, config: LmTrainConfig, tokenizer: Tokenizer, cache: TokenCache, world: World) -> None:
        self.tokenizer, self.cache = tokenizer, cache
        super().__init__(config, None, world)

    def table_of(self, sets: Sequence[TextSet], learned: bool) -> TextTable:
        return TextTable([self.cache.open(text) for text in sets], [text.weight if learned else 1 for text in sets])

    def loader(self, plan: TextPlan, epoch: int = 0, start: int = 0) -> Loader:
        return sentence_loader(plan, self.tokenizer, epoch, start)

    def frames(self, batch: Batch) -> int:
        return int(batch.feature_lens.sum()) + len(batch)  # and the ends

    def summary(self) -> list[str]:
        said = super().summary()
        if unknown := sum(texts.unknown for texts in self.table.sets):
            said.append(f"{unknown} tokens of the training texts are <unk>: they have characters that lang lacks")
        return said


class LanguageModelTask:
    """A language model, on single texts."""

    def __init__(self, folder: TrainFolder) -> None:
        self.folder = folder

    def prepare(self, config: LmTrainConfig, restart: bool) -> dict:
        """Lock the folder and make it a model folder."""
        lang = Path(config.language_model.lang)
        own = self.folder.lang(TOKENS)
        cache = self._cache(config, lang if lang.exists() or not own.exists() else own)
        if config.data.sampling and not hasattr(Tokenizer.load(cache.lang), "sample"):
            raise UserError(f"data.sampling: the tokens of {lang} have one way to cut a text, leave it out.")
        for text in (*config.data.train, *config.data.valid):
            cache.make(text)  # its mistakes are found before anything is written to the folder
        self.folder.begin(restart)
        self.folder.check_config(config)
        self.folder.copy_langs({TOKENS: lang})
        return {}

    def _cache(self, config: LmTrainConfig, lang: Path) -> TokenCache:
        """Beside the folder, so that all models of the same texts and tokens share it."""
        return TokenCache(self.folder.path.parent / CACHE, lang, config.data.max_length)

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder.lang(TOKENS))

    def model(self, config: LmTrainConfig, state: dict | None = None) -> LanguageModel:
        """The model as it begins; nothing of it is read from elsewhere."""
        return build_language_model(config, self._tokenizer().vocab_size)

    def batches(self, config: LmTrainConfig, model: LanguageModel, world: World) -> Sentences:
        """The training and validation data."""
        return Sentences(config, self._tokenizer(), self._cache(config, self.folder.lang(TOKENS)), world)
