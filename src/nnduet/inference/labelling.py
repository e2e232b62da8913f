"""From the network's logits to the label map of the original image, a few slices at a time.

nnU-Net resamples the logits of all classes to the original grid and then compares them. Where resampling takes weighted means
(order 0 or 1, its default), background stays likeliest between voxels where it is, so that only the box around the others
needs to be resampled; and of that, only some slices at once. Nothing of the size of image times classes is ever held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from numpy.typing import NDArray
from torch import Tensor

from nnduet.datasets.mask_codes import MaskCodes
from nnduet.inference.case_features import grid_spacing_mm, likeliest
from nnduet.inference.mask_logits import MaskLogits
from nnduet.inference.resampling import Resampling
from nnduet.nnunet_types import CaseProperties, ConfigurationManager, LabelManager, PlansManager

__all__ = ["to_labels", "undecided_box"]

SLAB_VOXELS = 2**22
"""Voxels of one class that are resampled at once."""

Decide = Callable[[Tensor], Tensor]


def to_labels(
    logits: Tensor,
    properties: CaseProperties,
    plans: PlansManager,
    configuration: ConfigurationManager,
    label_manager: LabelManager,
    codes: MaskCodes | None,
) -> NDArray[np.integer[Any]]:
    """Label map of a case in the axes and shape of its image.

    Args:
        logits: (K, Z, Y, X) on the preprocessed grid.
        properties: of the preprocessed case.
        label_manager: nnU-Net's, of the model.
        codes: where a case has several masks, see :class:`~nnduet.datasets.mask_codes.MaskCodes`.
    """
    shape = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
    resampling = _resampling(logits, shape, properties, plans, configuration)
    if resampling is None:
        manager = MaskLogits(codes) if codes else label_manager
        with contextlib.redirect_stdout(None):
            found = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits.cpu(), plans, configuration, manager, properties, num_threads_torch=torch.get_num_threads()
            )
        return np.asarray(found)
    number = codes.num_codes if codes else 1 + len(label_manager.foreground_labels)
    whole = np.zeros(properties["shape_before_cropping"], dtype=np.uint8 if number <= 255 else np.uint16)
    inside = whole[tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])]
    _by_slabs(logits, inside, resampling, _decision(label_manager, codes), overlapping=label_manager.has_regions)
    turned: NDArray[Any] = whole.transpose(plans.transpose_backward)
    return turned


def _resampling(
    logits: Tensor, shape: tuple[int, ...], properties: CaseProperties, plans: PlansManager, configuration: ConfigurationManager
) -> Resampling | None:
    """To the image's grid after cropping; None where the plans ask for other than weighted means."""
    function, spacing = configuration.resampling_fn_probabilities, [properties["spacing"][a] for a in plans.transpose_forward]
    current = grid_spacing_mm(properties, configuration, plans)
    resampling = Resampling.standing_in_for(function, logits.shape[1:], shape, current, spacing)
    return resampling if resampling is not None and resampling.linear else None


def _decision(label_manager: LabelManager, codes: MaskCodes | None) -> Decide:
    """Logits (K, z, y, x) to labels (z, y, x)."""
    if codes:
        return lambda logits: torch.from_numpy(MaskLogits(codes).convert_logits_to_segmentation(logits.cpu()).astype(np.int32))
    if label_manager.has_regions:
        return lambda logits: _paint(logits, label_manager.regions_class_order)
    return likeliest


def _paint(logits: Tensor, order: list[int]) -> Tensor:
    """Regions over one another in nnU-Net's order, each where its probability is above one half."""
    labels = torch.zeros(logits.shape[1:], dtype=torch.int32, device=logits.device)
    for region, value in zip(logits, order, strict=True):
        labels[region > 0] = value
    return labels


def _by_slabs(logits: Tensor, labels: NDArray[Any], resampling: Resampling, decide: Decide, *, overlapping: bool) -> None:
    """Fill ``labels``, zeros of the new shape, from logits (K, Z, Y, X)."""
    box = undecided_box(logits, overlapping=overlapping)
    if box is None:
        return
    parts = [_rows(matrix, part) for matrix, part in zip(resampling.matrices, box, strict=True)]
    (z_out, z_matrix), (y_out, y_matrix), (x_out, x_matrix) = parts
    inside = logits[(slice(None), *box)].float()
    step = max(1, SLAB_VOXELS // ((y_out.stop - y_out.start) * (x_out.stop - x_out.start)))
    for first, last in pairwise([*range(z_out.start, z_out.stop, step), z_out.stop]):
        slab, rows = _slab(inside, z_matrix, first - z_out.start, last - z_out.start)
        resampled = Resampling((rows, y_matrix, x_matrix), resampling.coarse, linear=True)(slab)
        labels[first:last, y_out, x_out] = decide(resampled).cpu().numpy()


def undecided_box(logits: Tensor, *, overlapping: bool) -> tuple[slice, ...] | None:
    """Slices of the voxels where anything but background could win, and their neighbours; None where there are none."""
    largest = logits[0 if overlapping else 1 :].amax(dim=0)
    undecided = (largest >= 0) if overlapping else (largest >= logits[0])
    box = []
    for axis, length in enumerate(undecided.shape):
        others = [a for a in range(3) if a != axis]
        found = undecided.any(dim=others[1]).any(dim=others[0]).nonzero().flatten()
        if not len(found):
            return None
        box.append(slice(max(int(found[0]) - 1, 0), min(int(found[-1]) + 2, length)))
    return tuple(box)


def _rows(matrix: Tensor | None, part: slice) -> tuple[slice, Tensor | None]:
    """The new voxels that the old ones in ``part`` reach, and the matrix between them."""
    if matrix is None:
        return part, None
    reached = matrix[:, part].ne(0).any(dim=1).nonzero().flatten()
    out = slice(int(reached[0]), int(reached[-1]) + 1)
    return out, matrix[out, part]


def _slab(logits: Tensor, matrix: Tensor | None, first: int, last: int) -> tuple[Tensor, Tensor | None]:
    """The old slices that the new ones from ``first`` to ``last`` take from, and the matrix between them."""
    if matrix is None:
        return logits[:, first:last], None
    used = matrix[first:last].ne(0).any(dim=0).nonzero().flatten()
    part = slice(int(used[0]), int(used[-1]) + 1)
    return logits[:, part], matrix[first:last, part]
