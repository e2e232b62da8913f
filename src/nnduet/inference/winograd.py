"""3D convolutions with half of the multiplications: Winograd's minimal filtering F(4, 3) along the rows of an image.

Four neighbouring outputs of a filter of three weights take six multiplications instead of twelve (Winograd 1980; the matrices
are those of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016). Along the other two axes the
convolution stays what it is: six convolutions of every fourth row take the place of one that visits all rows three times. The
results are those of the convolution within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnduet.model.network import replace_layers

__all__ = ["WinogradConv3d", "use_winograd"]

LEAST_CHANNELS, MOST_CHANNELS = 64, 256
"""Channels of the layers that gain: with fewer the sums take the time that the products save, with more the weights, of which
there are twice as many, take memory and little time. With OpenVINO 2026.4 on AVX2."""

_ROWS = 3
"""The axis of (N, C, Z, Y, X) along which outputs are computed in fours: planned patches are long there."""

_WEIGHTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""(6, 3): what the six products are multiplied with, from the three weights."""


class WinogradConv3d(nn.Module):
    """What a 3 x 3 x 3 convolution with stride and padding 1 computes: (N, C, Z, Y, X) to (N, K, Z, Y, X).

    Args:
        convolution: whose weights are taken.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        weights = torch.einsum("pa,kczax->pkczx", torch.tensor(_WEIGHTS), convolution.weight.detach())
        self.weights = nn.Parameter(weights.unsqueeze(4).contiguous(), requires_grad=False)  # (6, K, C, 3, 1, 3)
        self.bias = convolution.bias

    def forward(self, input: Tensor) -> Tensor:
        """The convolution; rows that are missing to a multiple of four are filled up with zeros, and their outputs cut."""
        length = int(input.shape[_ROWS])
        products = [
            functional.conv3d(rows, weights, padding=(1, 0, 1))
            for rows, weights in zip(_inputs(input), self.weights, strict=True)
        ]
        outputs = torch.stack(_outputs(products), _ROWS + 1).flatten(_ROWS, _ROWS + 1)
        outputs = outputs if int(outputs.shape[_ROWS]) == length else outputs.narrow(_ROWS, 0, length)
        return outputs if self.bias is None else outputs + self.bias.view(1, -1, 1, 1, 1)


def _inputs(image: Tensor) -> list[Tensor]:
    """The six sums of input rows, each (N, C, Z, ceil(Y / 4), X), from rows 4i - 1 to 4i + 4."""
    missing = -int(image.shape[_ROWS]) % 4
    padded = functional.pad(image, (0, 0, 0, missing)) if missing else image
    first, second, third, fourth = (padded[:, :, :, start::4] for start in range(4))
    outside, number = torch.zeros_like(first[:, :, :, :1]), first.shape[_ROWS]
    before = torch.cat([outside, fourth[:, :, :, : number - 1]], _ROWS)
    after = torch.cat([first[:, :, :, 1:], outside], _ROWS)
    even, odd = fourth - 4 * second, third - 4 * first
    near, far = fourth - second, 2 * (third - first)
    return [
        4 * before - 5 * second + fourth,
        even + odd,
        even - odd,
        near + far,
        near - far,
        4 * first - 5 * third + after,
    ]


def _outputs(products: Sequence[Tensor]) -> list[Tensor]:
    """Output rows 4i to 4i + 3 from the six products."""
    first, a, b, c, d, last = products
    near, near_difference, far, far_difference = a + b, a - b, c + d, c - d
    return [
        first + near + far,
        near_difference + 2 * far_difference,
        near + 4 * far,
        near_difference + 8 * far_difference + last,
    ]


def use_winograd(network: nn.Module) -> None:
    """Replace the convolutions that gain by it, in place; the network can then only be converted or run, not trained."""

    def faster(module: nn.Module) -> nn.Module | None:
        return WinogradConv3d(module) if isinstance(module, nn.Conv3d) and _gains(module) else None

    replace_layers(network, faster)


def _gains(convolution: nn.Conv3d) -> bool:
    channels = (convolution.in_channels, convolution.out_channels)
    usual = (convolution.kernel_size, convolution.stride, convolution.dilation) == ((3, 3, 3), (1, 1, 1), (1, 1, 1))
    plain = convolution.padding == (1, 1, 1) and convolution.padding_mode == "zeros" and convolution.groups == 1
    return usual and plain and all(LEAST_CHANNELS <= number <= MOST_CHANNELS for number in channels)
