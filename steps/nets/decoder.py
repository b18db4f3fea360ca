"""The stateless predictor of a transducer: an embedding and a short convolution over the last few tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steps.nets.regularizers import Balancer


def _balancer() -> Balancer:
    """Keeps the embeddings' magnitude from drifting, which averaging of parameters would suffer from (icefall's)."""
    return Balancer(min_positive=0.0, max_positive=1.0, min_abs=0.5, max_abs=1.0, prob=0.05)


class Decoder(nn.Module):
    """Stateless prediction network (Ghodsi et al. 2020), with icefall's parameter names `embedding` and `conv`.

    `context_size` 1 conditions on the last token only, 2 on the last two, and so on.
    """

    def __init__(self, vocab_size: int, decoder_dim: int, blank_id: int = 0, context_size: int = 2) -> None:
        super().__init__()
        self.blank_id = blank_id
        self.context_size = context_size
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, decoder_dim)
        self.balancer = _balancer()
        self.conv: nn.Module = nn.Identity()
        if context_size > 1:
            # four channels a group, as in icefall
            self.conv = nn.Conv1d(decoder_dim, decoder_dim, context_size, groups=decoder_dim // 4, bias=False)
            self.balancer2 = _balancer()

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        """Predictor output `(batch, length, decoder_dim)` for tokens `y` `(batch, length)`.

        Negative ids stand for "before the first token" and embed as zeros. With `need_pad` (training) the context is
        padded on the left; without (search) `y` is exactly `context_size` long and the output has length 1.
        """
        embedded = self.balancer(self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1))
        if self.context_size == 1:
            return embedded
        embedded = embedded.transpose(1, 2)
        if need_pad:
            embedded = F.pad(embedded, (self.context_size - 1, 0))
        return self.balancer2(torch.relu(self.conv(embedded).transpose(1, 2)))

    def lookup(self) -> Callable[[Tensor], Tensor]:
        """For searches: contexts `(rows, context_size)` to outputs `(rows, decoder_dim)` with the present parameters.

        What the convolution makes of each token at each place is worked out once, so that only sums are left.
        """
        table = F.pad(self.embedding.weight, (0, 0, 0, 1))  # the last row, -1: before the first token
        if self.context_size == 1:
            return lambda y: table[y[:, 0]]
        conv = self.conv
        grouped = table.view(len(table), conv.groups, -1)  # (vocab + 1, groups, channels of a group)
        weight = conv.weight.view(conv.groups, -1, *conv.weight.shape[1:])  # (groups, outputs, channels, places)
        tables = [torch.einsum("vgc,goc->vgo", grouped, weight[..., i]).flatten(1) for i in range(self.context_size)]
        return lambda y: torch.relu(sum(table[y[:, i]] for i, table in enumerate(tables)))
