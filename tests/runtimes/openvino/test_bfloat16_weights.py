"""Rounded weights whose errors cancel out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nnduet.runtimes.openvino.bfloat16_weights import diffuse_rounding, use_bfloat16_weights

HALF_A_UNIT = 2.0**-9
"""Of bfloat16, which has eight binary places with the hidden one, for numbers up to 1."""

LAYERS = [
    nn.Conv2d(3, 5, 3),
    nn.Conv3d(3, 5, (1, 3, 3)),
    nn.Conv3d(4, 5, 1),
    nn.ConvTranspose2d(3, 5, 2),
    nn.ConvTranspose3d(3, 5, 2),
]


def is_bfloat16(weights: Tensor) -> bool:
    return torch.equal(weights, weights.to(torch.bfloat16).float())


def test_partial_sums_are_right_to_within_one_rounding() -> None:
    torch.manual_seed(0)
    weights = 2 * torch.rand(50, 27) - 1
    rounded = diffuse_rounding(weights)
    assert is_bfloat16(rounded)
    off = (rounded.double().cumsum(-1) - weights.double().cumsum(-1)).abs()
    plain = (weights.to(torch.bfloat16).double().cumsum(-1) - weights.double().cumsum(-1)).abs()
    assert off.max() <= HALF_A_UNIT < plain.max()


def test_a_single_weight_is_rounded_to_the_nearest() -> None:
    weights = torch.tensor([[1.0 + 0.4 * 2**-7], [-0.3]])
    assert torch.equal(diffuse_rounding(weights), weights.to(torch.bfloat16).float())


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_kind_of_convolution_is_rounded_once(layer: Any) -> None:
    exact = layer.weight.detach().clone()
    use_bfloat16_weights(layer)
    once = layer.weight.detach().clone()
    assert is_bfloat16(once)
    torch.testing.assert_close(once, exact, atol=2 * HALF_A_UNIT, rtol=0)
    use_bfloat16_weights(layer)
    assert torch.equal(layer.weight, once)


@pytest.mark.parametrize("enlarge", [False, True])
def test_a_smooth_image_is_convolved_more_exactly_than_with_weights_rounded_one_by_one(enlarge: bool) -> None:
    torch.manual_seed(0)
    layer: Any = nn.ConvTranspose3d(64, 16, 2, 2, bias=False) if enlarge else nn.Conv3d(64, 16, 3, padding=1, bias=False)
    image = 1 + 0.05 * functional.interpolate(torch.randn(1, 64, 3, 3, 3), size=(12, 12, 12), mode="trilinear")
    with torch.no_grad():
        expected, exact = layer(image), layer.weight.detach().clone()
        layer.weight.copy_(exact.to(torch.bfloat16))
        one_by_one = (layer(image) - expected).pow(2).mean()
        layer.weight.copy_(exact)
        use_bfloat16_weights(layer)
        assert (layer(image) - expected).pow(2).mean() < 0.5 * one_by_one


def test_dense_layers_and_norms_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(7, 5), nn.InstanceNorm2d(5, affine=True))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    use_bfloat16_weights(network)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
