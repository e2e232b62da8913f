"""Convolutions with fewer products are the same convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnduet.runtimes.openvino.winograd import InPhases, WinogradConv3d, use_winograd


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("bias", [True, False])
def test_the_outputs_are_those_of_the_convolution(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(5, 7, 3, padding=1, bias=bias).double()
    image = torch.rand(2, 5, 3, rows, 6, dtype=torch.float64)
    computed = WinogradConv3d(convolution.float()).double()(image)
    torch.testing.assert_close(computed, convolution.double()(image), atol=1e-6, rtol=1e-6)  # the weights went through float32


def test_in_float32_they_are_within_rounding() -> None:
    torch.manual_seed(0)
    convolution, image = nn.Conv3d(128, 64, 3, padding=1), torch.randn(1, 128, 6, 16, 16)
    with torch.inference_mode():
        expected, computed = convolution(image), WinogradConv3d(convolution)(image)
    torch.testing.assert_close(computed, expected, atol=2e-5, rtol=1e-4)


def test_only_convolutions_that_gain_are_replaced() -> None:
    left = nn.Sequential(
        nn.Conv3d(32, 64, 3, padding=1),
        nn.Conv3d(320, 320, 3, padding=1),
        nn.Conv3d(64, 64, 3, padding=1, stride=2),
        nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)),
        nn.Conv3d(64, 64, 3),
        nn.Conv3d(64, 64, 3, padding=2, dilation=2),
        nn.Conv3d(64, 64, 3, padding=1, groups=2),
        nn.Conv3d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding=1),
    )
    use_winograd(left)
    assert not any(isinstance(layer, WinogradConv3d) for layer in left)
    shared = nn.Conv3d(64, 64, 3, padding=1)
    inner = nn.Sequential(shared)
    gaining = nn.Sequential(shared, nn.Conv3d(256, 64, 3, padding=1), inner)
    use_winograd(gaining)
    assert [type(m) for m in gaining.modules() if not isinstance(m, nn.Sequential)] == [WinogradConv3d] * 2
    assert gaining[0] is inner[0]


SMALL = {
    "features_per_stage": (16, 64, 64),
    "conv_op": nn.Conv3d,
    "kernel_sizes": 3,
    "strides": (1, 2, 2),
    "num_classes": 2,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"affine": True},
    "nonlin": nn.LeakyReLU,
}


def residual(**settings: Any) -> nn.Module:
    sizes = {"n_blocks_per_stage": (1, 3, 2), "n_conv_per_stage_decoder": (1, 1)}
    network: nn.Module = ResidualEncoderUNet(1, 3, **sizes, **SMALL | settings).eval()
    return network


def plain() -> nn.Module:
    network: nn.Module = PlainConvUNet(1, 3, n_conv_per_stage=(1, 3, 2), n_conv_per_stage_decoder=(2, 1), **SMALL).eval()
    return network


@pytest.mark.parametrize("network", [residual, plain])
@pytest.mark.parametrize("rows", [32, 24, 20])  # multiples of four in both stages with strides, in one, in none
def test_stages_that_stay_in_phases_compute_the_same(network: Any, rows: int) -> None:
    torch.manual_seed(0)
    unet, image = network(), torch.randn(2, 1, 8, rows, 8)
    with torch.inference_mode():
        expected = unet(image)
        use_winograd(unet)
        computed = unet(image)
    in_phases = [layer for layer in unet.modules() if isinstance(layer, InPhases)]
    assert len(in_phases) == 2
    torch.testing.assert_close(computed, expected, atol=1e-4, rtol=1e-4)


def test_layers_that_may_look_at_the_order_of_rows_are_not_put_in_phases() -> None:
    unet = residual(dropout_op=nn.Dropout3d, dropout_op_kwargs={"p": 0.1})
    use_winograd(unet)
    assert not any(isinstance(layer, InPhases) for layer in unet.modules())
    assert any(isinstance(layer, WinogradConv3d) for layer in unet.modules())


def test_openvino_computes_them() -> None:
    ov = pytest.importorskip("openvino")
    torch.manual_seed(0)
    network, image = nn.Sequential(nn.Conv3d(64, 64, 3, padding=1), nn.LeakyReLU()), torch.randn(1, 64, 4, 10, 8)
    with torch.inference_mode():
        expected = network(image)
        use_winograd(network)
        converted = ov.convert_model(network, example_input=image)
    converted.reshape(list(image.shape))
    compiled = ov.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    torch.testing.assert_close(torch.from_numpy(compiled(image.numpy())[0]), expected, atol=2e-5, rtol=1e-4)
