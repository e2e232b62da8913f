"""From logits of overlapping masks to codes, by hand, and through nnU-Net's resampling and uncropping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny import tiny_plans

from nnduet.datasets.mask_codes import MaskCodes
from nnduet.inference.mask_logits import MaskLogits, most_likely

CODES = MaskCodes.of(("ED", "ES"), {"background": 0, "organ": 1, "lesion": 2})


def test_the_largest_logit_above_zero_wins() -> None:
    organ, lesion = [-1.0, 2.0, 2.0, -3.0, 0.0], [-2.0, 1.0, 3.0, 0.1, -1.0]
    assert most_likely(np.array([organ, lesion])).tolist() == [0, 1, 2, 2, 0]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_masks_that_overlap_are_all_kept(kind: type) -> None:
    inside, outside = 5.0, -5.0
    logits = kind([[[[inside, inside]]], [[[outside, outside]]], [[[outside, outside]]], [[[inside, outside]]]])
    assert MaskLogits(CODES).convert_logits_to_segmentation(logits).tolist() == [[[1 + 3 * 2, 1]]]
    description = CODES.to_json()
    stock = LabelManager(description["labels"], description["regions_class_order"])
    assert np.asarray(stock.convert_logits_to_segmentation(logits)).tolist() == [[[6, 1]]]  # ED is lost where ES is


def test_nnunet_resamples_and_uncrops_the_codes() -> None:
    plans = PlansManager(tiny_plans(3))
    logits = torch.full((4, 4, 8, 8), -4.0)
    logits[0, :, 2:6] = 4.0  # the organ of ED in rows 2 to 5
    logits[3, :, 4:] = 4.0  # the lesion of ES in rows 4 to 7
    properties = {
        "spacing": [2.0, 0.5, 1.0],  # plans: 2, 1, 1
        "shape_before_cropping": (5, 18, 8),
        "bbox_used_for_cropping": [[1, 5], [1, 17], [0, 8]],
        "shape_after_cropping_and_before_resampling": (4, 16, 8),
    }
    codes = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, plans.get_configuration("3d_fullres"), MaskLogits(CODES), properties, num_threads_torch=1
    )
    rows = np.repeat([0, 0, 1, 1, 7, 7, 6, 6], 2)
    assert codes.shape == (5, 18, 8)
    np.testing.assert_array_equal(codes[1:, 1:17], np.broadcast_to(rows[:, None], (4, 16, 8)))
    assert not codes[0].any() and not codes[:, [0, 17]].any()
