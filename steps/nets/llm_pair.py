"""A decoder-only language model that translates text: the head that listens, with words where the speech would be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator
from torch import Tensor, nn

from steps.lang.prompts import TEXT, Requests, requests
from steps.nets.llm_head import LanguageModelConfig, LlmConfig, LlmHead
from steps.nets.projector import NoneConfig
from steps.pretrained.folder import read_config

if TYPE_CHECKING:
    from steps.prepare.dataset import Batch


class LlmPairConfig(LanguageModelConfig):
    """`name: llm`; both sides are tokens of the target's lang folder, made from the model's tokenizer."""

    name: Literal["llm"]
    # with {text} where the text goes, {language} and {target} (codes), {language_name} and {target_name} (words)
    prompt: Requests | None = None  # null: the text and behind it "Translate the text into French:"; as the head's

    @model_validator(mode="after")
    def _check(self) -> LlmPairConfig:
        if self.prompt is not None:
            requests(self.prompt, TEXT)
        return self


class LlmPair(nn.Module):
    """`head` answers a request in which the text stands, as the model's own embeddings of its tokens."""

    def __init__(self, config: LlmPairConfig, vocab_sizes: dict[str, int], folder: Path) -> None:
        super().__init__()
        common = {name: getattr(config, name) for name in LanguageModelConfig.model_fields}
        about = LlmConfig(lang="target.lang", projector=NoneConfig(name="none"), **common)
        self.head = LlmHead(about, _dim(folder), vocab_sizes["target"], folder)
        # a request with its text, and the translation
        self.longest = None if self.head.positions is None else self.head.positions // 3

    def load_pretrained(self, ids: list[int] | None) -> None:
        """The language model's weights; `ids` are its ids of our tokens."""
        self.head.load_pretrained(ids)

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets."""
        return {f"head.{name}" for name in self.head.pretrained_names()}

    def encode(self, source: Tensor, lens: Tensor) -> Tensor:
        """Tokens `(batch, tokens)` to what the model reads for them `(batch, tokens, dim)`."""
        return self.head.llm.get_input_embeddings()(source)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the translations alone, in nats, summed."""
        encoded = self.encode(batch.features, batch.feature_lens)
        return self.head.losses(encoded, batch.feature_lens, batch.targets["text"], 0)["llm"]


def _dim(folder: Path) -> int:
    """Values a token of the language model in `folder`."""
    from transformers import AutoConfig

    read_config(folder)
    return AutoConfig.from_pretrained(str(folder)).get_text_config().hidden_size
