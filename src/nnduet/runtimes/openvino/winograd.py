"""3D convolutions with half of the multiplications: Winograd's minimal filtering F(4, 3) along the rows of an image.

Four neighbouring outputs of a filter of three weights take six multiplications instead of twelve (Winograd 1980; Lavin and
Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016). Along the other two axes the convolution stays what it is:
six convolutions of every fourth row take the place of one that visits all rows three times. The results are those of the
convolution within rounding, which depends on the points at which polynomials are taken (Barabasz et al., Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks, ACM TOMS 46(4), 2020).

Taking every fourth row and putting rows back in order costs time. So where convolutions follow each other with nothing between
that looks at the order of rows, as in the residual blocks of a stage, rows stay in phases: 0, 4, 8, ..., then 1, 5, 9, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, StackedResidualBlocks
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU, StackedConvBlocks
from torch import Tensor, nn
from torch.nn import functional

from nnduet.network.network import replace_layers

__all__ = ["InPhases", "WinogradConv3d", "use_winograd"]

LEAST_CHANNELS, MOST_CHANNELS = 64, 256
"""Channels of the layers that gain: with fewer the sums take the time that the products save, with more the weights, of which
there are twice as many, take memory and little time. With OpenVINO 2026.4 on AVX2."""

_ROWS = 3
"""The axis of (N, C, Z, Y, X) along which outputs are computed in fours: planned patches are long there."""

_NEAR, _FAR = 2 / 3, 3 / 2
"""The six products are values of polynomials at 0, at plus and minus these points, and at infinity. 1 and 2, which are usual,
make the sums cheaper and the rounding errors larger. The sums below use that near times far is 1."""

_SQUARES = _NEAR**2 + _FAR**2


def _weights_at(point: float, other: float) -> tuple[float, float, float]:
    """What the values of a filter's polynomial at ``point`` are multiplied with, from the three weights."""
    scale = 2 * point**2 * (point**2 - other**2)
    return (1 / scale, point / scale, point**2 / scale)


_WEIGHTS = (
    (1, 0, 0),
    _weights_at(_NEAR, _FAR),
    _weights_at(-_NEAR, _FAR),
    _weights_at(_FAR, _NEAR),
    _weights_at(-_FAR, _NEAR),
    (0, 0, 1),
)
"""(6, 3): what the six products are multiplied with, from the three weights."""

_RUNS = {StackedResidualBlocks: "blocks", StackedConvBlocks: "convs"}
"""Where layers follow each other in nnU-Net's networks."""

_CONTAINERS = (BasicBlockD, ConvDropoutNormReLU, nn.Sequential)
_BLIND_TO_ORDER = (nn.InstanceNorm3d, nn.LeakyReLU, nn.ReLU, nn.Identity)


class WinogradConv3d(nn.Module):
    """What a 3 x 3 x 3 convolution with stride and padding 1 computes: (N, C, Z, Y, X) to (N, K, Z, Y, X).

    Args:
        convolution: whose weights are taken.
    """

    in_phases = False
    """Whether rows come in phases, and go so; see :class:`InPhases`."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        exact = convolution.weight.detach().double()
        weights = torch.einsum("pa,kczax->pkczx", torch.tensor(_WEIGHTS, dtype=torch.float64), exact).to(convolution.weight)
        self.weights = nn.Parameter(weights.unsqueeze(4).contiguous(), requires_grad=False)  # (6, K, C, 3, 1, 3)
        self.bias = convolution.bias

    def forward(self, input: Tensor) -> Tensor:
        """The convolution; rows that are missing to a multiple of four are filled up with zeros, and their outputs cut."""
        if self.in_phases:
            return self._plus_bias(torch.cat(self._convolve(input.chunk(4, _ROWS)), _ROWS))
        length = int(input.shape[_ROWS])
        missing = -length % 4
        image = _in_order(self._convolve(_phases(functional.pad(input, (0, 0, 0, missing)) if missing else input)))
        return self._plus_bias(image.narrow(_ROWS, 0, length) if missing else image)

    def _convolve(self, phases: Sequence[Tensor]) -> list[Tensor]:
        products = [
            functional.conv3d(rows, weights, padding=(1, 0, 1))
            for rows, weights in zip(_inputs(*phases), self.weights, strict=True)
        ]
        return _outputs(*products)

    def _plus_bias(self, image: Tensor) -> Tensor:
        return image if self.bias is None else image + self.bias.view(1, -1, 1, 1, 1)


class InPhases(nn.Module):
    """What layers compute, with rows in phases from the first to the last: (N, C, Z, Y, X) to (N, K, Z, Y, X).

    Where rows are no multiple of four, they stay in order.

    Args:
        layers: with several convolutions, and nothing else that looks at the order of rows.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, input: Tensor) -> Tensor:
        whole = int(input.shape[_ROWS]) % 4 == 0
        for convolution in _convolutions(self.layers):
            convolution.in_phases = whole
        if not whole:
            return self.layers(input)  # type: ignore[no-any-return]
        return _in_order(self.layers(torch.cat(_phases(input), _ROWS)).chunk(4, _ROWS))


def _phases(image: Tensor) -> list[Tensor]:
    """Rows 4i, 4i + 1, 4i + 2 and 4i + 3, each (N, C, Z, Y / 4, X)."""
    return [image[:, :, :, start::4] for start in range(4)]


def _in_order(phases: Sequence[Tensor]) -> Tensor:
    """The image (N, C, Z, Y, X) that has these phases."""
    return torch.stack(list(phases), _ROWS + 1).flatten(_ROWS, _ROWS + 1)


def _inputs(first: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> list[Tensor]:
    """The six sums of input rows 4i - 1 to 4i + 4, from the four phases."""
    outside = torch.zeros_like(first[:, :, :, :1])
    before = torch.cat([outside, fourth[:, :, :, :-1]], _ROWS)
    after = torch.cat([first[:, :, :, 1:], outside], _ROWS)
    near_even, near_odd = fourth - _FAR**2 * second, _NEAR * third - _FAR * first
    far_even, far_odd = fourth - _NEAR**2 * second, _FAR * third - _NEAR * first
    return [
        before - _SQUARES * second + fourth,
        near_even + near_odd,
        near_even - near_odd,
        far_even + far_odd,
        far_even - far_odd,
        first - _SQUARES * third + after,
    ]


def _outputs(first: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, last: Tensor) -> list[Tensor]:
    """The four phases of the output, from the six products."""
    near, near_difference, far, far_difference = a + b, a - b, c + d, c - d
    return [
        first + near + far,
        _NEAR * near_difference + _FAR * far_difference,
        _NEAR**2 * near + _FAR**2 * far,
        _NEAR**3 * near_difference + _FAR**3 * far_difference + last,
    ]


def use_winograd(network: nn.Module) -> None:
    """Replace the convolutions that gain by it, in place; the network can then only be converted or run, not trained."""

    def faster(module: nn.Module) -> nn.Module | None:
        return WinogradConv3d(module) if isinstance(module, nn.Conv3d) and _gains(module) else None

    replace_layers(network, faster)
    _keep_phases(network)


def _gains(convolution: nn.Conv3d) -> bool:
    channels = (convolution.in_channels, convolution.out_channels)
    usual = (convolution.kernel_size, convolution.stride, convolution.dilation) == ((3, 3, 3), (1, 1, 1), (1, 1, 1))
    plain = convolution.padding == (1, 1, 1) and convolution.padding_mode == "zeros" and convolution.groups == 1
    return usual and plain and all(LEAST_CHANNELS <= number <= MOST_CHANNELS for number in channels)


def _keep_phases(network: nn.Module) -> None:
    for stage in list(network.modules()):
        name = _RUNS.get(type(stage))
        if name is not None:
            setattr(stage, name, _with_phases(getattr(stage, name)))


def _with_phases(layers: nn.Sequential) -> nn.Sequential:
    """The same layers; those that follow each other are :class:`InPhases` if they hold more than one of the convolutions."""
    runs = [(blind, nn.Sequential(*run)) for blind, run in groupby(layers, _is_blind_to_order)]
    return nn.Sequential(*(InPhases(run) if blind and len(_convolutions(run)) > 1 else run for blind, run in runs))


def _is_blind_to_order(module: nn.Module) -> bool:
    """Whether permuted rows give permuted results, where :class:`WinogradConv3d` knows of the permutation."""
    if isinstance(module, nn.Conv3d):
        return (module.kernel_size, module.stride, module.padding) == ((1, 1, 1), (1, 1, 1), (0, 0, 0))
    if isinstance(module, (WinogradConv3d, *_BLIND_TO_ORDER)):
        return True
    return isinstance(module, _CONTAINERS) and all(map(_is_blind_to_order, module.children()))


def _convolutions(module: nn.Module) -> list[WinogradConv3d]:
    return [layer for layer in module.modules() if isinstance(layer, WinogradConv3d)]
