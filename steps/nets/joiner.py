"""The joiner of a transducer: encoder and predictor outputs to logits over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from steps.nets.scaling import Linear

# the inputs of both losses start small, as icefall's do
INITIAL_SCALE = 0.25


class Joiner(nn.Module):
    """`output_linear(tanh(encoder_proj(encoder) + decoder_proj(decoder)))`, with icefall's parameter names."""

    def __init__(self, encoder_dim: int, decoder_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_proj = Linear(encoder_dim, joiner_dim, scale=INITIAL_SCALE)
        self.decoder_proj = Linear(decoder_dim, joiner_dim, scale=INITIAL_SCALE)
        self.output_linear = Linear(joiner_dim, vocab_size)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        """Logits `(..., vocab)` of two tensors with broadcastable leading shapes.

        With `project_input` they are `(..., encoder_dim)` and `(..., decoder_dim)`; without, both were projected to
        `(..., joiner_dim)` before (the training path projects before pruning, which costs less).
        """
        if project_input:
            encoder_out, decoder_out = self.encoder_proj(encoder_out), self.decoder_proj(decoder_out)
        return self.output_linear(torch.tanh(encoder_out + decoder_out))
