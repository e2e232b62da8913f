"""A decoder that does not join its images with those of the encoder: it convolves each by itself and adds the results.

A convolution of two images joined along their channels is the sum of two convolutions, each with its share of the weights. The
joined image, the largest of a stage, is then neither written nor read, and OpenVINO adds the second result to the first in
place. What is added was rounded once more, so that in bfloat16 the logits differ within its precision.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from nnduet.network.heads import JointNetwork
from nnduet.network.network import replace_layers

__all__ = ["UnjoinedConvolution", "use_unjoined_skips"]


class UnjoinedConvolution(nn.Module):
    """What a convolution computes of two images joined along the channels: (N, A, ...) and (N, B, ...) to (N, K, ...).

    Args:
        convolution: of A + B channels and one group, whose weights are taken.
        channels: A.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, channels: int) -> None:
        super().__init__()
        self.first = _of_channels(convolution, slice(None, channels))
        self.second = _of_channels(convolution, slice(channels, None))
        self.second.bias = None

    def forward(self, images: tuple[Tensor, Tensor]) -> Tensor:
        """The convolution of both."""
        return self.first(images[0]) + self.second(images[1])  # type: ignore[no-any-return]


def _of_channels(convolution: nn.Conv2d | nn.Conv3d, channels: slice) -> nn.Conv2d | nn.Conv3d:
    part = copy.deepcopy(convolution)
    part.weight = nn.Parameter(convolution.weight.detach()[:, channels].clone())
    part.in_channels = part.weight.shape[1]
    return part


class _UnjoinedDecoder(nn.Module):
    """As nnU-Net's decoder without deep supervision; stages that begin with UnjoinedConvolution are given two images."""

    deep_supervision = False

    def __init__(self, decoder: UNetDecoder) -> None:
        super().__init__()
        self.transpconvs, self.stages, self.last = decoder.transpconvs, decoder.stages, decoder.seg_layers[-1]
        self.joins = [not isinstance(stage.convs[0].conv, UnjoinedConvolution) for stage in decoder.stages]

    def forward(self, skips: Sequence[Tensor]) -> Tensor:
        """Features of the encoder's stages, the bottleneck last, to logits."""
        image = skips[-1]
        for enlarge, stage, joins, skip in zip(self.transpconvs, self.stages, self.joins, reversed(skips[:-1]), strict=True):
            images = enlarge(image), skip
            image = stage(torch.cat(images, 1) if joins else images)
        return self.last(image)  # type: ignore[no-any-return]


def use_unjoined_skips(network: JointNetwork, fewer_than: int | None = None) -> None:
    """Replace nnU-Net's plain decoder, in place; a decoder of another kind, or one that convolves in groups, is left alone.

    Stages of ``fewer_than`` channels join no images; None is all stages. The network can then only be converted or run without
    deep supervision, not trained.
    """
    decoder: Any = network.decoder
    if type(decoder) is not UNetDecoder:
        return
    channels = {
        stage.convs[0].conv: enlarge.out_channels for stage, enlarge in zip(decoder.stages, decoder.transpconvs, strict=True)
    }
    if any(convolution.groups > 1 for convolution in channels):
        return
    if fewer_than is not None:
        channels = {convolution: own for convolution, own in channels.items() if convolution.out_channels < fewer_than}
    replace_layers(decoder, lambda m: UnjoinedConvolution(m, channels[m]) if m in channels else None)  # type: ignore[index,arg-type]
    network.decoder = _UnjoinedDecoder(decoder)
