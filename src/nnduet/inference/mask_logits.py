"""Logits of overlapping masks to their code map, without the loss that nnU-Net's own conversion brings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.datasets.mask_codes import MaskCodes

__all__ = ["MaskLogits", "most_likely"]


class MaskLogits:
    """Stands in for nnU-Net's label manager in ``convert_predicted_logits_to_segmentation_with_correct_shape``.

    nnU-Net's own paints one region over the other in ``regions_class_order``: a voxel in the right ventricle at both times
    would keep one of them. Of a label manager, that function needs just these two members where it returns no probabilities.
    """

    def __init__(self, codes: MaskCodes) -> None:
        self.codes = codes
        self.foreground_labels = range(1, codes.num_codes)

    def convert_logits_to_segmentation(self, logits: torch.Tensor | NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Region logits (R, Z, Y, X), mask by mask, to codes (Z, Y, X)."""
        values = np.asarray(logits)
        assert len(values) == len(self.codes.names) * len(self.codes.labels)
        return self.codes.encode([most_likely(part) for part in np.split(values, len(self.codes.names))])


def most_likely(logits: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Labels (Z, Y, X) of one mask from the logits (K, Z, Y, X) of its labels 1 to K.

    The largest logit wins where it is above 0, a probability above one half; elsewhere there is background, 0.
    """
    return np.where(logits.max(axis=0) > 0, logits.argmax(axis=0) + 1, 0).astype(np.uint16)
