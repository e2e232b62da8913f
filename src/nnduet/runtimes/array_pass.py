"""A pass that another library computes, batch by full batch and on arrays, as one over tensors of any number of patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnduet.network.pooling import PooledSums
from nnduet.runtimes.joint_pass import JointPass

__all__ = ["Arrays", "pass_of_arrays"]

Arrays = list[NDArray[np.float32]]


def pass_of_arrays(compute: Callable[[list[Arrays]], Arrays], batch: int) -> JointPass:
    """A joint pass from what computes full batches; a batch with too few patches is filled up with its first one.

    Args:
        compute: batches, each patches (B, C, *patch) and shares (B, 1, *patch) of exactly ``batch`` rows, to logits, volumes
            and the numerators of the sums, with the rows of all batches behind each other.
        batch: B.
    """

    def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
        parts = [
            [_filled(part, batch).numpy() for part in pair]
            for pair in zip(torch.split(patches, batch), torch.split(shares, batch), strict=True)
        ]
        logits, volumes, *numerators = (torch.from_numpy(rows)[: len(patches)] for rows in compute(parts))
        return logits, PooledSums(tuple(numerators), volumes)

    return run


def _filled(patches: Tensor, batch: int) -> Tensor:
    missing = batch - len(patches)
    return torch.cat([patches, patches[:1].expand(missing, *patches.shape[1:])]) if missing else patches
