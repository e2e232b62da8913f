"""Instance norms whose sums are taken in stages, for OpenVINO in float32.

OpenVINO's own adds up the voxels of a channel one after the other, so that what is lost to rounding grows with the patch: by
far the largest difference between its float32 and torch's. Sums over each slice, and then over slices, lose next to nothing.
They take little longer, for what is left of the norm, a factor and a summand of each channel, is computed in one go with the
activation and the residual that follow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnduet.network.network import replace_layers

__all__ = ["StagedInstanceNorm3d", "use_staged_norms"]


class StagedInstanceNorm3d(nn.Module):
    """What an instance norm computes: (N, C, Z, Y, X) to the same.

    The variance is the mean of squares less the square of the mean, which loses digits where a channel's mean is many times its
    deviation; at ten times it is about as exact as OpenVINO's.

    Args:
        norm: with its weights.
    """

    def __init__(self, norm: nn.InstanceNorm3d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, input: Tensor) -> Tensor:
        """The normed image; a sum follows on a mean, and a mean on a root, for OpenVINO joins two reductions of one kind."""
        slices, rows, columns = input.shape[2:]
        mean = input.mean((3, 4)).sum(2) / slices
        square = torch.linalg.vector_norm(input, dim=(3, 4)).square().mean(2) / (rows * columns)
        factor = self.weight / torch.sqrt((square - mean.square()).clamp(min=0) + self.eps)
        summand = self.bias - mean * factor
        return input * factor[:, :, None, None, None] + summand[:, :, None, None, None]


def use_staged_norms(network: nn.Module, fewer_than: int) -> None:
    """Replace the instance norms of three spatial axes, with weights and ``fewer_than`` channels, in place.

    Fewer channels have larger images, on which the rounding depends.
    """

    def staged(module: nn.Module) -> nn.Module | None:
        replaced = isinstance(module, nn.InstanceNorm3d) and module.affine and module.num_features < fewer_than
        return StagedInstanceNorm3d(module) if replaced else None  # type: ignore[arg-type]

    replace_layers(network, staged)
