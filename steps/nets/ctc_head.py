"""CTC heads: log-probabilities of tokens in each frame, learned by CTC or by lattice-free MMI, and by consistency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from steps.nets.head import Head, HeadConfig
from steps.nets.scaling import Linear
from steps.objectives.consistency import consistency_loss
from steps.objectives.ctc import ctc_backend, ctc_loss
from steps.objectives.mmi import MmiLoss, mmi_backend

if TYPE_CHECKING:
    from steps.prepare.dataset import Targets


class CtcConfig(HeadConfig):
    """`name: ctc`."""

    name: Literal["ctc"] = "ctc"
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    objective: Literal["ctc", "mmi"] = "ctc"
    bigram: str | None = None  # of mmi: an ARPA file over the tokens; null: made of the training targets
    consistency: float = Field(0.0, ge=0.0)  # CR-CTC's alpha (0.2): every utterance is then twice in a batch
    warm_step: int = Field(2000, ge=0)  # steps over which mmi comes in place of CTC, and consistency from nothing

    @model_validator(mode="after")
    def _bigram_of_mmi(self) -> CtcConfig:
        if self.bigram is not None and self.objective != "mmi":
            raise ValueError("'bigram' does nothing without 'objective: mmi'")
        return self


class CtcHead(Head):
    """Connectionist temporal classification, with icefall's module `ctc_output`.

    `objective: mmi` trains the same output by lattice-free MMI, against a bigram (`set_bigram` before the first loss).
    """

    def __init__(self, config: CtcConfig, encoder_dim: int, vocab_size: int) -> None:
        super().__init__(config)
        self.ctc_output = nn.Sequential(
            nn.Dropout(config.dropout), Linear(encoder_dim, vocab_size), nn.LogSoftmax(dim=-1)
        )
        self._backend = (mmi_backend if config.objective == "mmi" else ctc_backend)(config.backend)
        self.mmi: MmiLoss | None = None

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The objective, and in training with two views their consistency."""
        return (self.config.objective, *(["consistency"] if self.training and self.config.consistency else []))

    @property
    def backends(self) -> dict[str, str]:
        return {self.config.objective: self._backend, **({"consistency": "torch"} if self.config.consistency else {})}

    def set_bigram(self, bigram: Tensor) -> None:
        """What `objective: mmi` compares with: `(vocab, vocab)` as `steps.objectives.mmi` has it."""
        self.mmi = MmiLoss(bigram.to(self.ctc_output[1].weight.device), self._backend)

    def log_probs(self, encoder_out: Tensor) -> Tensor:
        """Log-probabilities `(batch, frames, vocab)` in float32, also under autocast."""
        dropout, linear, log_softmax = self.ctc_output
        return log_softmax(linear(dropout(encoder_out)).float())

    def losses(self, encoder_out: Tensor, lens: Tensor, targets: Targets, step: int) -> dict[str, Tensor]:
        config, log_probs = self.config, self.log_probs(encoder_out)
        warm = 1.0 if not self.training or step >= config.warm_step else step / config.warm_step
        given = (log_probs, lens, targets.tokens, targets.lens)
        loss = ctc_loss(*given, self._backend) if config.objective == "ctc" else self.mmi(*given, warm)
        losses = {config.objective: loss.sum()}
        if "consistency" in self.loss_names:
            apart = consistency_loss(log_probs, lens) if targets.views == 2 else loss * 0.0
            losses["consistency"] = apart.sum() * (config.consistency * warm)
        return losses
