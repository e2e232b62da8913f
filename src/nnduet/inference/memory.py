"""How much memory a case needs, before the work on it begins."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import psutil
import torch

from nnduet.errors import TooLargeError

__all__ = ["choose_accumulator", "needed_bytes"]


def needed_bytes(
    shape: Sequence[int],
    network_shape: Sequence[int],
    *,
    channels: int,
    outputs: int,
    folds: int,
    accumulator: torch.dtype,
) -> int:
    """Estimate of the largest arrays that are held at once, the network's own aside.

    Args:
        shape, network_shape: (Z, Y, X) of the file and of the preprocessed image.
        outputs: logits per voxel.
        folds: models that are averaged.

    Returns:
        Bytes: the image as it is read and cropped (float32 each) and preprocessed; the logits, twice where folds are averaged;
        two maps of weights; the regions and labels that the features are taken from.
    """
    read, voxels = prod(shape), prod(network_shape)
    logits = outputs * accumulator.itemsize * (1 if folds == 1 else 2)
    return 8 * channels * read + voxels * (4 * channels + logits + 8 + 8 + outputs)


def choose_accumulator(
    shape: Sequence[int], network_shape: Sequence[int], *, channels: int, outputs: int, folds: int, source: str
) -> torch.dtype:
    """float32 where the case fits into the memory that is available, else float16.

    Args:
        source: what the message calls the case.

    Raises:
        TooLargeError: it does not fit in float16 either.
    """
    available = psutil.virtual_memory().available
    least = 0
    for accumulator in (torch.float32, torch.float16):
        least = needed_bytes(shape, network_shape, channels=channels, outputs=outputs, folds=folds, accumulator=accumulator)
        if least <= available:
            return accumulator
    raise TooLargeError(
        f"{source}: {tuple(shape)} voxels become {tuple(network_shape)} for the network, which takes about {least / 2**30:.1f} "
        f"GiB; {available / 2**30:.1f} GiB are available; crop the image, predict with one fold, or find more memory"
    )
