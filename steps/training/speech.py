"""Training on speech: what its model folder begins with, the model, and where its batches come from."""

from __future__ import annotations

from pathlib import Path

from steps.lang.tokenizer import Tokenizer
from steps.model_folder import PRETRAINED, copy_pretrained, read_elsewhere
from steps.nets.model import Model
from steps.prepare.cuts import Cuts
from steps.training.bigram import set_bigrams
from steps.training.config import TrainConfig
from steps.training.data import SpeechBatches
from steps.training.folder import TrainFolder
from utils.distributed import World
from utils.errors import UserError


class SpeechTask:
    """An encoder of speech and heads, on cuts with features."""

    def __init__(self, folder: TrainFolder) -> None:
        self.folder = folder

    def prepare(self, config: TrainConfig, restart: bool) -> dict:
        """Lock the folder and make it a model folder; the keys of `config` that follow from the data."""
        features = Cuts.load(config.data.train).config
        if "feature_dim" in config.model_fields_set and config.feature_dim != features.feature_dim:
            found = f"{config.data.train} has {features.feature_dim}"
            raise UserError(f"feature_dim is {config.feature_dim}, but {found}: leave it out.")
        if features.type not in (takes := config.encoder.takes):
            wanted = f"encoder '{config.encoder.name}' wants features of type {' or '.join(takes)}"
            raise UserError(f"{wanted}, {config.data.train} has {features.type}: make them again (stage 2).")
        _check_views(config, features.type)
        if features.type == "waveform" and config.data.spec_augment:
            raise UserError("data.spec_augment masks spectra, these are waveforms: set it to null (dropout is there).")
        self.folder.begin(restart)
        found = {"feature_dim": features.feature_dim}
        if features.encoder is not None:
            found["feature_parameters"] = features.encoder.parameters
            found["feature_layers"] = features.encoder.layers
            found["feature_init"] = features.encoder.init
        self.folder.check_config(config.model_copy(update=found))
        copy_pretrained(config, self.folder.path)
        self.folder.copy_features(features)
        self.folder.copy_langs({name: Path(head.lang) for name, head in config.heads.items()})
        return found

    def _tokenizers(self, config: TrainConfig) -> dict[str, Tokenizer]:
        tokenizers = {name: Tokenizer.load(self.folder.lang(name)) for name in config.heads}
        for name, head in config.heads.items():
            other = tokenizers.get(getattr(head, "share", None))
            if other and other.tokens != tokenizers[name].tokens:
                found = f"heads.{name} shares the decoder of {head.share}, which has other tokens"
                raise UserError(f"{found}: give both the same lang.")
        return tokenizers

    def model(self, config: TrainConfig, state: dict | None = None) -> Model:
        """The model, what others trained as they left it, also where the `state` to go on from leaves it out."""
        tokenizers = self._tokenizers(config)
        sizes = {name: tokenizer.vocab_size for name, tokenizer in tokenizers.items()}
        model = Model(config, sizes, self.folder.path / PRETRAINED)
        read_elsewhere(model, state and state["model"], tokenizers)
        return model

    def batches(self, config: TrainConfig, model: Model, world: World) -> SpeechBatches:
        """The training and validation data, and what objectives want to know of them."""
        batches = SpeechBatches(config, model, self._tokenizers(config), world)
        set_bigrams(model, batches.cuts, batches.heads, self.folder, world)
        return batches


def _check_views(config: TrainConfig, features: str) -> None:
    for name, head in config.heads.items():
        if getattr(head, "consistency", 0) and (features == "waveform" or not config.data.spec_augment):
            found = "features are waveforms" if features == "waveform" else "data.spec_augment is null"
            raise UserError(
                f"heads.{name}.consistency compares two SpecAugmented views of an utterance, but {found}: leave it out"
                + ("." if features == "waveform" else ", or set data.spec_augment.")
            )
