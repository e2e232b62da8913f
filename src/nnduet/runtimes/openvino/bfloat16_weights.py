"""Weights of convolutions in bfloat16 whose rounding errors cancel out.

Rounded one by one, as a processor does it, the weights of a filter are all a little off, and where an image is smooth, as it is
in most places, their errors add up: the same way in every voxel, so that no mean over voxels takes them out again. Here what
rounding takes from one weight is handed on to the next, so that the sum of a filter is right to within one rounding. This is
error diffusion, which Floyd and Steinberg (Proc. SID 17:75-77, 1976) use for grey values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["diffuse_rounding", "use_bfloat16_weights"]

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)


def use_bfloat16_weights(network: nn.Module) -> None:
    """Round the weights of all convolutions, in place; their type stays float32. Rounding them again changes nothing."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, _CONVOLUTIONS):
                layer.weight.copy_(_of_filters(layer.weight))
            elif isinstance(layer, _TRANSPOSED):  # (C, K, ...): each of its outputs sees one weight of every channel
                layer.weight.copy_(diffuse_rounding(layer.weight.movedim(0, -1)).movedim(-1, 0))


def _of_filters(weights: Tensor) -> Tensor:
    """(K, C, *kernel): over the voxels of a kernel, or where that is a single one, over the channels."""
    kernels = weights.flatten(2)
    diffused = diffuse_rounding(kernels) if kernels.shape[2] > 1 else diffuse_rounding(kernels[..., 0])
    return diffused.reshape(weights.shape)


def diffuse_rounding(weights: Tensor) -> Tensor:
    """Numbers of bfloat16, along the last axis (..., M) with about the partial sums of ``weights``; float32.

    Each partial sum is off by what rounding its last number took: at most half a unit in that number's last place.
    """
    rounded, owed = torch.empty_like(weights, dtype=torch.float32), torch.zeros(weights.shape[:-1], dtype=torch.float64)
    for place in range(weights.shape[-1]):
        wanted = weights[..., place].double() + owed
        rounded[..., place] = wanted.to(torch.bfloat16)
        owed = wanted - rounded[..., place]
    return rounded
