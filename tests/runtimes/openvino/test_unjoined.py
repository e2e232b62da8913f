"""A decoder that adds two convolutions computes what one that joins two images does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from tiny import tiny_network
from torch import nn

from nnduet.runtimes.openvino.unjoined import UnjoinedConvolution, use_unjoined_skips


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d])
def test_the_sum_of_both_is_the_convolution_of_the_joined_images(kind: Any, bias: bool) -> None:
    convolution = kind(5, 7, 3, padding=1, stride=2, bias=bias)
    first, second = (torch.randn(2, number, *[6] * (2 if kind is nn.Conv2d else 3)) for number in (3, 2))
    expected = convolution(torch.cat([first, second], 1))
    torch.testing.assert_close(UnjoinedConvolution(convolution, 3)((first, second)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_network_with_an_unjoined_decoder_answers_the_same(dim: int) -> None:
    network, image = tiny_network(dim).eval(), torch.randn(2, 1, *[16] * dim)
    with torch.inference_mode():
        logits, sums = network.forward_joint(image)
        use_unjoined_skips(network)
        assert any(isinstance(layer, UnjoinedConvolution) for layer in network.modules())
        found, found_sums = network.forward_joint(image)
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found_sums.features(), sums.features(), atol=1e-4, rtol=1e-4)


def test_only_stages_of_few_channels_are_unjoined_where_that_is_asked_for() -> None:
    network, image = tiny_network(3).eval(), torch.randn(1, 1, 16, 16, 16)
    channels = sorted(stage.convs[0].conv.out_channels for stage in network.decoder.stages)
    with torch.inference_mode():
        logits, _ = network.forward_joint(image)
        use_unjoined_skips(network, fewer_than=channels[-1])
        found, _ = network.forward_joint(image)
    unjoined = [layer for layer in network.modules() if isinstance(layer, UnjoinedConvolution)]
    assert [layer.first.out_channels for layer in unjoined] == channels[:-1] and len(channels) > 1
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-4)


def test_other_decoders_are_left_alone() -> None:
    class _Other(UNetDecoder):  # type: ignore[misc]
        pass

    network = tiny_network(3)
    network.decoder.__class__ = _Other
    use_unjoined_skips(network)
    assert type(network.decoder) is _Other
    grouped = tiny_network(3)
    grouped.decoder.stages[0].convs[0].conv.groups = 2
    use_unjoined_skips(grouped)
    assert type(grouped.decoder) is UNetDecoder
