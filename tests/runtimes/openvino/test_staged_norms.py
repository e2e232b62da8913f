"""Norms whose sums are taken in stages are the same norms, with less rounding where OpenVINO computes them."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn

from nnduet.runtimes.openvino.staged_norms import StagedInstanceNorm3d, use_staged_norms


def norm_of(channels: int) -> nn.InstanceNorm3d:
    torch.manual_seed(0)
    norm = nn.InstanceNorm3d(channels, affine=True)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return norm.requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 3, 4, 5, 6), (2, 3, 1, 8, 8), (1, 3, 2, 1, 7)])
def test_the_outputs_are_those_of_the_norm(shape: tuple[int, ...]) -> None:
    norm = norm_of(3).double()
    image = 3 + torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(StagedInstanceNorm3d(norm)(image), norm(image))


def test_a_constant_channel_becomes_the_bias() -> None:
    norm = norm_of(2)
    normed = StagedInstanceNorm3d(norm)(torch.full((1, 2, 4, 4, 4), 0.3))
    torch.testing.assert_close(normed, norm.bias.view(1, 2, 1, 1, 1).expand_as(normed), atol=1e-3, rtol=0)


def test_openvino_loses_less_to_rounding_and_does_not_join_the_stages() -> None:
    """The error of its own norm grows with the patch; here it is some fifty times that of the stages."""
    image = torch.randn(1, 4, 64, 128, 192, generator=torch.Generator().manual_seed(1)).abs()
    exact = norm_of(4).double()(image.double()).numpy()
    errors = []
    for norm in (norm_of(4), StagedInstanceNorm3d(norm_of(4))):
        model = ov.convert_model(norm.eval(), example_input=image[:, :, :2])  # traced with fewer slices, as networks are
        model.reshape(list(image.shape))
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        errors.append(float(np.abs(compiled([image.numpy()])[0] - exact).max()))
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 10


def test_only_norms_of_volumes_with_weights_are_replaced() -> None:
    volumes = [nn.InstanceNorm3d(channels, affine=True) for channels in (2, 3)]
    layers = nn.Sequential(*volumes, nn.InstanceNorm3d(2), nn.InstanceNorm2d(2, affine=True))
    use_staged_norms(layers, fewer_than=3)
    assert [type(layer) for layer in layers] == [StagedInstanceNorm3d, nn.InstanceNorm3d, nn.InstanceNorm3d, nn.InstanceNorm2d]
