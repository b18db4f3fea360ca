"""The joiner of a transducer: encoder and predictor outputs to logits over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scaled_linear(inputs: int, outputs: int, initial_scale: float = 0.25) -> nn.Linear:
    """A linear layer that starts smaller than torch's, as icefall's ScaledLinear does for the transducer's inputs."""
    linear = nn.Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.mul_(initial_scale)
        nn.init.uniform_(linear.bias, -0.1 * initial_scale, 0.1 * initial_scale)
    return linear


class Joiner(nn.Module):
    """`output_linear(tanh(encoder_proj(encoder) + decoder_proj(decoder)))`, with icefall's parameter names."""

    def __init__(self, encoder_dim: int, decoder_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_proj = scaled_linear(encoder_dim, joiner_dim)
        self.decoder_proj = scaled_linear(decoder_dim, joiner_dim)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        """Logits `(..., vocab)` of two tensors with broadcastable leading shapes.

        With `project_input` they are `(..., encoder_dim)` and `(..., decoder_dim)`; without, both were projected to
        `(..., joiner_dim)` before (the training path projects before pruning, which costs less).
        """
        if project_input:
            encoder_out, decoder_out = self.encoder_proj(encoder_out), self.decoder_proj(decoder_out)
        return self.output_linear(torch.tanh(encoder_out + decoder_out))
