"""Translators of text: tokens in one language to tokens in another, each with the same loss and the same interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from steps.lang.pair_tokens import SideConfig
from steps.nets.attention_head import AttentionConfig, AttentionHead
from steps.nets.llm_pair import LlmPair, LlmPairConfig
from steps.nets.pretrained_parts import PartedModel
from steps.nets.seq2seq import Seq2Seq, Seq2SeqConfig
from steps.nets.transformer import TransformerConfig, TransformerEncoder
from steps.pretrained.folder import find_model
from utils.options import Config

if TYPE_CHECKING:
    from steps.prepare.dataset import Batch


class TransformerPairConfig(Config):
    """`name: transformer`: encoder and decoder of our own, trained from scratch."""

    name: Literal["transformer"]
    encoder: TransformerConfig = TransformerConfig()
    decoder: TransformerConfig = TransformerConfig()
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    tied: bool = True  # the decoder's output weights are its embeddings (Press and Wolf 2017)
    share_embeddings: bool = False  # the encoder's embeddings are the decoder's too: the same tokens on both sides

    @model_validator(mode="after")
    def _check(self) -> TransformerPairConfig:
        if self.share_embeddings and self.encoder.dim != self.decoder.dim:
            raise ValueError(f"share_embeddings: encoder.dim {self.encoder.dim} is not decoder.dim {self.decoder.dim}")
        return self


TranslatorConfig = Annotated[TransformerPairConfig | Seq2SeqConfig | LlmPairConfig, Field(discriminator="name")]


class TranslationConfig(Config):
    """`translator: {name: transformer | seq2seq | llm, ...}`, and which texts it reads and writes."""

    translator: TranslatorConfig
    source: SideConfig = SideConfig()
    target: SideConfig
    # parts that are not trained: net.encoder, net.head (of a transformer), net.model.model.encoder (of a Marian) ...
    freeze: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> TranslationConfig:
        if self.source.target == self.target.target and not self.source.strip:
            raise ValueError(
                f"source and target are both '{self.target.target}': give another target, or source.strip: true to "
                "learn case and punctuation"
            )
        wants = {"transformer": ("source", "target"), "seq2seq": (), "llm": ("target",)}[self.translator.name]
        for name, side in {"source": self.source, "target": self.target}.items():
            if name in wants and side.lang is None:
                raise ValueError(f"{name}.lang: give the lang folder (stage 3) that makes its tokens")
            if name not in wants and side.lang is not None:
                tokens = "the target's tokens for both sides" if wants else "tokens of its own"
                raise ValueError(f"{name}.lang: a pretrained translator has {tokens}, leave it out")
        return self

    def langs(self) -> dict[str, Path]:
        """The lang folders by side."""
        return {name: Path(side.lang) for name in ("source", "target") if (side := getattr(self, name)).lang}


class TransformerPair(nn.Module):
    """A transformer (Vaswani et al. 2017); its decoder is that of an attention head, which searches know."""

    def __init__(self, config: TransformerPairConfig, vocab_sizes: dict[str, int]) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(config.encoder, vocab_sizes["source"])
        sizes = {"decoder": config.decoder, "tied": config.tied, "label_smoothing": config.label_smoothing}
        self.head = AttentionHead(AttentionConfig(lang="", **sizes), config.encoder.dim, vocab_sizes["target"])
        if config.share_embeddings:
            self.encoder.embed = self.head.decoder.embed
        limits = [side.pos.num_embeddings for side in (self.encoder, self.head.decoder) if side.pos is not None]
        self.longest = min(limits) - 1 if limits else None  # the prompt takes a place

    def load_pretrained(self, ids: list[int] | None) -> None:
        """There is nothing."""

    def pretrained_names(self) -> set[str]:
        """Names of the parameters that `load_pretrained` sets: none."""
        return set()

    def encode(self, source: Tensor, lens: Tensor) -> Tensor:
        """Tokens `(batch, tokens)` with their `lens` to `(batch, tokens, dim)`."""
        return self.encoder(source, lens)

    def loss(self, batch: Batch) -> Tensor:
        """Label-smoothed cross-entropy of the targets in nats, summed."""
        encoded = self.encode(batch.features, batch.feature_lens)
        return self.head.losses(encoded, batch.feature_lens, batch.targets["text"], 0)["attention"]


class Translator(PartedModel):
    """`net` is one of the translators; `longest` the most tokens that it takes (None: no limit).

    A pretrained one is as the `config.json` in `folder` (None: that of its path) says; its weights come with
    `load_pretrained` or a checkpoint. `vocab_sizes` are the numbers of tokens that it reads and writes, by side.
    """

    def __init__(self, config: TranslationConfig, vocab_sizes: dict[str, int], folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        about = config.translator
        if isinstance(about, TransformerPairConfig):
            self.net: nn.Module = TransformerPair(about, vocab_sizes)
        else:
            kind = Seq2Seq if isinstance(about, Seq2SeqConfig) else LlmPair
            self.net = kind(about, vocab_sizes, folder or find_model(about.path, "translator.path"))
        self.longest: int | None = self.net.longest
        self.freeze(config.freeze)

    def parts(self) -> dict[str, nn.Module]:
        """The one part."""
        return {"net": self.net}

    def load_pretrained(self, ids: dict[str, list[int] | None]) -> None:
        """Set what others trained to what they trained; `ids["target"]` are a language model's ids of our tokens."""
        self.net.load_pretrained(ids.get("target"))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch of pairs of texts (`steps.prepare.pair_batches`), in nats, summed."""
        return {"text.cross_entropy": self.net.loss(batch)}

    def backends(self) -> dict[str, str]:
        """What computes the loss."""
        return {"text.cross_entropy": "torch"}
