"""The convolutional front end: features at 100 frames a second to embeddings at 50 or 25."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from steps.nets.regularizers import Balancer, ScaleGrad, Whiten
from steps.nets.scaling import BiasNorm, Linear, Swoosh, dropout_mask, skip_mask
from steps.nets.schedule import FloatLike, Schedule
from utils.options import Config


class SubsamplingConfig(Config):
    """The front end: `factor` 2 with `convnext` is icefall's; 4 without is several times cheaper."""

    factor: Literal[2, 4] = 2
    channels: tuple[int, int, int] = (8, 32, 128)
    convnext: bool = True


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` that computes in the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time, frequency) to the same kind."""
        return self._conv_forward(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class ConvNeXt(nn.Module):
    """A residual block: depthwise 7x7, then a hidden layer three times as wide (Liu et al., 2022, arXiv:2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 3 * channels
        self.depthwise_conv = Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = Conv2d(channels, hidden, 1)
        self.pointwise_conv2 = Conv2d(hidden, channels, 1)
        with torch.no_grad():  # starts as nearly the identity
            self.pointwise_conv2.weight.mul_(0.01)
            self.pointwise_conv2.bias.uniform_(-0.001, 0.001)
        self.activation = Swoosh("l")
        self.skip_rate = Schedule((0, 0.2), (20000, 0.015))
        self.hidden_balancer = Balancer(0.3, 1.0, 0.75, 5.0)
        self.out_balancer = Balancer(0.4, 0.6, 1.0, 6.0)
        self.out_whiten = Whiten(5.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time, frequency) to the same shape; zero `x` beyond each utterance's end."""
        y = self.pointwise_conv1(self.depthwise_conv(x))
        y = self.pointwise_conv2(self.activation(self.hidden_balancer(y, channel_dim=1)))
        mask = skip_mask(x, self.skip_rate, self.training)
        y = x + y if mask is None else x + y * mask.unsqueeze(3)
        y = self.out_balancer(y, channel_dim=1)
        return self.out_whiten(y.transpose(1, 3)).transpose(1, 3)


class Conv2dSubsampling(nn.Module):
    """Three convolutions over time and frequency, a ConvNeXt block, and a projection to the encoder's dimension."""

    def __init__(self, feature_dim: int, dim: int, config: SubsamplingConfig, dropout: FloatLike) -> None:
        super().__init__()
        self.factor = config.factor
        one, two, three = config.channels
        # icefall's module numbers: 0, 4, 7 are the convolutions
        first = {"kernel_size": 3, "stride": 2} if config.factor == 4 else {"kernel_size": 3, "padding": (0, 1)}
        self.conv = nn.Sequential(
            Conv2d(1, one, **first),
            ScaleGrad(0.2),
            Balancer(max_abs=1.0),
            Swoosh("r"),
            Conv2d(one, two, 3, stride=2),
            Balancer(max_abs=4.0),
            Swoosh("r"),
            Conv2d(two, three, 3, stride=(1, 2)),
            Balancer(max_abs=4.0),
            Swoosh("r"),
        )
        width = (feature_dim - 1) // 2 if config.factor == 4 else feature_dim
        width = ((width - 1) // 2 - 1) // 2
        self.convnext = ConvNeXt(three) if config.convnext else None
        self.out = Linear(width * three, dim)
        self.out_whiten = Whiten(Schedule((0, 4.0), (20000, 8.0), default=4.0), gain=0.02)
        self.out_norm = BiasNorm(dim)
        self.dropout = dropout

    def output_lens(self, lens: Tensor) -> Tensor:
        """Frames out (batch,) for `lens` frames in: (lens - 7) // 2, or half of that for factor 4; at least 0."""
        if self.factor == 4:
            lens = torch.div(lens - 1, 2, rounding_mode="floor") + 2
        return torch.div(lens - 7, 2, rounding_mode="floor").clamp(min=0)

    @property
    def min_frames(self) -> int:
        """The fewest frames in that give a frame out."""
        return 15 if self.factor == 4 else 9

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features (batch, time, feature_dim), time at least `min_frames`, and their lens (batch,) -> (batch, time',
        dim) and its lens."""
        lens = self.output_lens(lens)
        x = x.unsqueeze(1)
        for module in self.conv:
            x = module(x, 1) if isinstance(module, Balancer) else module(x)
        if self.convnext is not None:
            # what the next convolution sees beyond the end is zero, as for an utterance alone
            inside = torch.arange(x.shape[2], device=x.device) < lens.unsqueeze(1)
            x = self.convnext(x * inside.to(x.dtype).view(x.shape[0], 1, -1, 1))
        x = self.out(x.transpose(1, 2).flatten(2))
        x = self.out_norm(self.out_whiten(x))
        mask = dropout_mask(x, self.dropout, (x.shape[0], 1, x.shape[2])) if self.training else None
        return (x if mask is None else x * mask), lens
