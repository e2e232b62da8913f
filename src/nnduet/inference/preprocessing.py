"""From the raw image of a case to the network's input, as nnU-Net's DefaultPreprocessor makes it for prediction.

nnU-Net fills the holes of the body's mask, resamples a segmentation that prediction throws away, and zooms in float64; the
cropped and normalised image is the same without the first two, and within rounding without the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice, get_bbox_from_mask
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from numpy.typing import NDArray

from nnduet.errors import ValuesError
from nnduet.inference.case_features import grid_spacing_mm
from nnduet.inference.resampling import Resampling
from nnduet.nnunet_types import CaseProperties, ConfigurationManager, PlansManager

__all__ = ["preprocess", "preprocessed_shape"]


def preprocess(
    data: NDArray[Any], properties: CaseProperties, plans: PlansManager, configuration: ConfigurationManager
) -> tuple[torch.Tensor, CaseProperties]:
    """Transpose, crop to what is not zero, normalise, resample.

    Args:
        data: (C, *spatial) as nnU-Net's reader gives it; left as it is.
        properties: with "spacing" in mm of the spatial axes.

    Returns:
        The network's input (C, Z, Y, X) float32, finite, and the properties with nnU-Net's three about shapes and crop.

    Raises:
        ValuesError: float32 cannot hold what the normalisation computes from the values.
    """
    data = data.transpose([0, *(axis + 1 for axis in plans.transpose_forward)])
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    box = get_bbox_from_mask((data != 0).any(axis=0))
    cropped = data[(slice(None), *bounding_box_to_slice(box))].astype(np.float32)
    properties = {
        **properties,
        "shape_before_cropping": data.shape[1:],
        "bbox_used_for_cropping": box,
        "shape_after_cropping_and_before_resampling": cropped.shape[1:],
    }
    normalised = _normalise(cropped, plans, configuration)
    target, function = grid_spacing_mm(properties, configuration, plans), configuration.resampling_fn_data
    new_shape = compute_new_shape(cropped.shape[1:], spacing, target)
    resampling = Resampling.standing_in_for(function, cropped.shape[1:], new_shape, spacing, target)
    if resampling is None:
        resampled = torch.as_tensor(function(normalised, new_shape, spacing, list(target))).float()
    else:
        resampled = resampling(torch.from_numpy(normalised))
    if not all(torch.isfinite(channel).all() for channel in resampled):
        raise ValuesError("image: expected finite values after normalisation and resampling, got NaN or infinity")
    return resampled, properties


def preprocessed_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], plans: PlansManager, configuration: ConfigurationManager
) -> tuple[int, ...]:
    """Shape (Z, Y, X) of the network's input for an image of that shape and spacing where nothing is cropped."""
    shape = [shape[axis] for axis in plans.transpose_forward]
    spacing = [spacing_mm[axis] for axis in plans.transpose_forward]
    target = grid_spacing_mm({"spacing": spacing_mm}, configuration, plans)
    return tuple(int(n) for n in compute_new_shape(shape, spacing, target))


def _normalise(cropped: NDArray[np.float32], plans: PlansManager, configuration: ConfigurationManager) -> NDArray[np.float32]:
    """nnU-Net's normalisation, which would take a mean or deviation beyond float32 for infinity and go on with zeros or NaN."""
    intensities, outside = plans.foreground_intensity_properties_per_channel, _outside(cropped, configuration)
    try:
        with np.errstate(over="raise", invalid="raise"):
            return np.asarray(DefaultPreprocessor(verbose=False)._normalize(cropped, outside, configuration, intensities))
    except FloatingPointError as error:
        raise ValuesError(f"image: its values, of up to {np.abs(cropped).max():g}, cannot be normalised: {error}") from error


def _outside(cropped: NDArray[np.float32], configuration: ConfigurationManager) -> NDArray[np.int8]:
    """(1, *spatial), -1 outside the body for normalisations within its mask; zeros where no channel asks for that."""
    if not any(configuration.use_mask_for_norm):
        return np.broadcast_to(np.int8(0), (1, *cropped.shape[1:]))
    return np.where(create_nonzero_mask(cropped), np.int8(0), np.int8(-1))[None]
