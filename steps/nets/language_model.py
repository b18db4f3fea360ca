"""Language models over the tokens of a lang folder: an LSTM and a transformer, with one interface for searches.

A text begins and ends with token 1 (`<sos/eos>`), as in icefall's language models; token 0 (blank) has no probability.
The LSTM's parameters have the names of icefall's `RnnLmModel`, so that each can read the other's checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from steps.nets.attention_head import IGNORED, following
from steps.nets.pretrained_parts import PartedModel
from steps.nets.transformer import TransformerConfig, TransformerEncoder, causal_mask, padding_mask
from utils.options import Config

if TYPE_CHECKING:
    from steps.prepare.dataset import Batch

State = tuple[Tensor, ...]  # each with the hypotheses as its first dimension
SCORED = 1 << 25  # log-odds that `score` computes at a time: 128 MB
BLOCK = 32  # places by which a transformer's caches grow


class LstmConfig(Config):
    """`name: lstm`."""

    name: Literal["lstm"]
    lang: str  # the lang folder whose tokens it predicts
    embedding_dim: int = Field(512, ge=1)
    hidden_dim: int = Field(512, ge=1)
    layers: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)  # of embeddings, between layers, of outputs
    tied: bool = False  # output weights are the embeddings' (Press and Wolf 2017, arXiv:1608.05859)

    @model_validator(mode="after")
    def _check(self) -> LstmConfig:
        if self.tied and self.embedding_dim != self.hidden_dim:
            raise ValueError(f"tied: embedding_dim {self.embedding_dim} is not hidden_dim {self.hidden_dim}")
        return self


class TransformerLmConfig(TransformerConfig):
    """`name: transformer`; positions are sinusoids, which have no longest text."""

    name: Literal["transformer"]
    lang: str  # the lang folder whose tokens it predicts
    positions: Literal["sinusoidal"] = "sinusoidal"
    tied: bool = True  # output weights are the embeddings'


class NeuralLmConfig(Config):
    """`language_model: {name: lstm | transformer, lang: ..., ...}`."""

    language_model: Annotated[LstmConfig | TransformerLmConfig, Field(discriminator="name")]
    freeze: tuple[str, ...] = ()  # parts that are not trained: input_embedding, encoder.embed ...


class LanguageModel(PartedModel):
    """Base: what the models below share. `begin` and `extend` are for searches, `score` for whole texts."""

    blank_id, end_id = 0, 1

    def parts(self) -> dict[str, nn.Module]:
        """What has parameters; none was trained by others."""
        return {name: part for name, part in self.named_children() if next(part.parameters(), None) is not None}

    def backends(self) -> dict[str, str]:
        """What computes the loss."""
        return {"text.cross_entropy": "torch"}

    def log_odds(self, tokens: Tensor) -> Tensor:
        """Log-odds `(batch, U, vocab)` of what follows each of `tokens (batch, U)`, given it and those before it."""
        raise NotImplementedError

    def empty(self, rows: int) -> State:
        """The state before the first token."""
        raise NotImplementedError

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Log-odds `(rows, vocab)` of what follows after one more of `tokens (rows,)`, and the state with it."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def begin(self, rows: int) -> tuple[Tensor, State]:
        """Log-probabilities `(rows, vocab)` float32 of a text's first token (nats; -inf of blank), and the state."""
        return self.extend(torch.full((rows,), self.end_id, device=self.device), self.empty(rows))

    @torch.no_grad()
    def extend(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """As `begin`, after one more token `(rows,)` int64 of every row; rows may have different lengths so far.

        The state's tensors have a row for each hypothesis, so that rows may be selected, repeated and joined. One
        dimension may have grown: who joins states of different sizes pads the smaller ones with zeros at its end.
        """
        logits, state = self.advance(tokens, state)
        return self._without_blank(logits).log_softmax(dim=-1), state

    @torch.no_grad()
    def score(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probability `(texts,)` float32 in nats of each text, a list of token ids, and of its end."""
        scores = torch.zeros(len(texts), device=self.device)
        for places, _, costs in self.token_costs(texts):
            scores[torch.tensor(places, device=self.device)] = -costs.sum(dim=1)
        return scores

    @torch.no_grad()
    def token_costs(self, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Batches of `texts`: which they are, their tokens `(batch, U)` and the `costs (batch, U + 1)` of these."""
        for places, tokens, lens in by_length(texts, self.vocab_size, self.device):
            yield places, tokens, self.costs(tokens, lens)

    def costs(self, tokens: Tensor, lens: Tensor) -> Tensor:
        """-ln p `(batch, U + 1)` of each of `tokens (batch, U)` and of the end behind `lens (batch,)`; zeros beyond."""
        after = following(tokens, lens, self.end_id)
        logits = self._without_blank(self.log_odds(F.pad(tokens, (1, 0), value=self.end_id)))
        costs = F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=IGNORED, reduction="none")
        return costs.view_as(after)

    def _without_blank(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        logits[..., self.blank_id] = float("-inf")
        return logits

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch of texts (`steps.prepare.sentences`), in nats, summed."""
        return {"text.cross_entropy": self.costs(batch.features, batch.feature_lens).sum()}


class LstmLm(LanguageModel):
    """An LSTM (Mikolov et al. 2010; Sundermeyer et al. 2012); state: hidden and cell `(rows, layers, hidden_dim)`."""

    def __init__(self, config: LstmConfig, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.input_embedding = nn.Embedding(vocab_size, config.embedding_dim)
        between = config.dropout if config.layers > 1 else 0.0
        sizes = (config.embedding_dim, config.hidden_dim, config.layers)
        self.rnn = nn.LSTM(*sizes, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.output_linear = nn.Linear(config.hidden_dim, vocab_size)
        if config.tied:
            nn.init.normal_(self.input_embedding.weight, std=config.embedding_dim**-0.5)
            self.output_linear.weight = self.input_embedding.weight

    def log_odds(self, tokens: Tensor) -> Tensor:
        out, _ = self.rnn(self.dropout(self.input_embedding(tokens)))
        return self.output_linear(self.dropout(out))

    def empty(self, rows: int) -> State:
        shape = (rows, self.rnn.num_layers, self.rnn.hidden_size)
        return tuple(torch.zeros(shape, device=self.device) for _ in range(2))

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        before = tuple(part.transpose(0, 1).contiguous() for part in state)
        out, after = self.rnn(self.input_embedding(tokens[:, None]), before)
        return self.output_linear(out[:, 0]), tuple(part.transpose(0, 1) for part in after)


class TransformerLm(LanguageModel):
    """Transformer layers that see what was before; state: keys and values `(rows, layers, heads, places, head_dim)`
    and how many of the places are taken `(rows,)`."""

    def __init__(self, config: TransformerLmConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.encoder = TransformerEncoder(config, vocab_size)
        self.output_layer = nn.Linear(config.dim, vocab_size)
        if config.tied:
            self.output_layer.weight = self.encoder.embed.weight

    def log_odds(self, tokens: Tensor) -> Tensor:
        mask = causal_mask(tokens.shape[1], 0, tokens.device)
        return self.output_layer(self.encoder.layered(self.encoder.embedded(tokens), mask))

    def empty(self, rows: int) -> State:
        sizes = (rows, self.config.layers, self.config.heads, 0, self.config.dim // self.config.heads)
        caches = (torch.zeros(sizes, device=self.device) for _ in range(2))
        return (*caches, torch.zeros(rows, dtype=torch.int64, device=self.device))

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        *caches, lens = state
        # the one look at the device: searches extend some rows at every frame, and caches would grow with these
        if len(lens) and int(lens.max()) >= caches[0].shape[3]:
            caches = [F.pad(cache, (0, 0, 0, BLOCK)) for cache in caches]
        x = self.encoder.embedded(tokens[:, None], lens[:, None])
        mask = F.pad(padding_mask(lens, caches[0].shape[3]), (0, 1))  # the new token itself comes last
        keys, values = [], []
        for number, layer in enumerate(self.encoder.layers):
            x, (key, value) = layer(x, mask, tuple(cache[:, number] for cache in caches))
            keys.append(key[:, :, -1:])
            values.append(value[:, :, -1:])
        caches = [_put(cache, new, lens) for cache, new in zip(caches, (keys, values), strict=True)]
        return self.output_layer(self.encoder.norm(x[:, 0])), (*caches, lens + 1)


def _put(cache: Tensor, layers: list[Tensor], lens: Tensor) -> Tensor:
    """`cache (rows, layers, heads, places, d)` with each layer's `(rows, heads, 1, d)` at each row's own place."""
    new = torch.stack(layers, dim=1)
    place = lens[:, None, None, None, None].expand_as(new)
    return cache.scatter(3, place, new.to(cache.dtype))


def by_length(
    texts: Sequence[Sequence[int]], vocab_size: int, device: torch.device
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Texts of like lengths, longest first, as many as `SCORED` log-odds allow: which they are, their tokens
    `(batch, U)`, padded with zeros, and their lengths `(batch,)`."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    while order:
        longest = len(texts[order[0]])
        count = max(1, SCORED // ((longest + 1) * vocab_size))
        chosen, order = order[:count], order[count:]
        tokens = torch.tensor([[*texts[index], *[0] * (longest - len(texts[index]))] for index in chosen])
        lens = torch.tensor([len(texts[index]) for index in chosen])
        yield chosen, tokens.long().to(device), lens.to(device)


def build_language_model(config: NeuralLmConfig, vocab_size: int) -> LanguageModel:
    """The model that a config describes, untrained, over `vocab_size` tokens."""
    about = config.language_model
    model = LstmLm(about, vocab_size) if isinstance(about, LstmConfig) else TransformerLm(about, vocab_size)
    model.freeze(config.freeze)
    return model
