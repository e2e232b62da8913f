"""Label maps by slabs are those of nnU-Net's own conversion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny import CONFIGURATIONS, tiny_plans

from nnduet.data.mask_codes import MaskCodes
from nnduet.inference import labelling
from nnduet.inference.case_features import likeliest
from nnduet.inference.labelling import to_labels
from nnduet.inference.mask_logits import MaskLogits

LABELS: dict[str, Any] = {"background": 0, "organ": 1, "lesion": 2}
CODES = MaskCodes.of(("ED", "ES"), LABELS)
SHAPE = (9, 20, 16)


def blobs(num_classes: int, *, background: float, seed: int = 0) -> torch.Tensor:
    """Smooth logits (K, 9, 20, 16), low for all but the first class near the border."""
    noise = torch.randn(1, num_classes, 3, 5, 4, generator=torch.Generator().manual_seed(seed))
    logits = torch.nn.functional.interpolate(noise, size=SHAPE, mode="trilinear")[0] * 3
    inside = torch.zeros(SHAPE)
    inside[2:7, 5:14, 3:12] = 1
    return logits - background * (1 - inside)


def case(shape: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, Any]:
    """Properties of a case that was cropped out of a larger image."""
    return {
        "spacing": list(spacing),
        "shape_before_cropping": tuple(n + 3 for n in shape),
        "bbox_used_for_cropping": [[1, 1 + n] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
    }


def compare(logits: torch.Tensor, manager: Any, codes: MaskCodes | None, properties: dict[str, Any], **changes: Any) -> None:
    document = tiny_plans(3)
    document["configurations"][CONFIGURATIONS[3]] |= changes
    plans = PlansManager(document)
    configuration = plans.get_configuration(CONFIGURATIONS[3])
    stock = MaskLogits(codes) if codes else manager
    expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), plans, configuration, stock, properties
    )
    found = to_labels(logits, properties, plans, configuration, manager, codes)
    assert found.shape == expected.shape
    assert (found != expected).sum() <= 2  # a voxel where two classes are equal but for rounding
    assert found.dtype == expected.dtype


GRIDS = [
    ((9, 20, 16), (2.0, 1.0, 1.0)),
    ((21, 30, 11), (0.9, 0.6, 1.4)),
    ((5, 31, 20), (7.0, 0.7, 0.8)),
    ((4, 9, 40), (4.0, 2.0, 0.4)),
]


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("slab_voxels", [1, 700, 2**22])
def test_labels_are_those_of_nnunet(
    shape: tuple[int, ...], spacing: tuple[float, ...], slab_voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "SLAB_VOXELS", slab_voxels)
    logits = blobs(3, background=0)
    logits[0] += 20 * (blobs(1, background=1)[0] < -0.9)
    compare(logits, LabelManager(LABELS, None), None, case(shape, spacing))


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_regions_are_those_of_nnunet(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    manager = LabelManager({"background": 0, "whole": [1, 2], "lesion": 2}, [1, 2])
    compare(blobs(2, background=9), manager, None, case(shape, spacing))


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_several_masks_are_coded(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    description = CODES.to_json()
    manager = LabelManager(description["labels"], description["regions_class_order"])
    compare(blobs(4, background=9), manager, CODES, case(shape, spacing))


def test_nothing_but_background_gives_zeros() -> None:
    logits = torch.zeros(3, *SHAPE)
    logits[0] = 5
    compare(logits, LabelManager(LABELS, None), None, case(SHAPE, (1.0, 1.0, 1.0)))


def test_a_region_at_the_border_is_whole() -> None:
    logits = torch.zeros(3, *SHAPE)
    logits[0, 4:] = 5
    logits[1] += 1
    compare(logits, LabelManager(LABELS, None), None, case((20, 10, 33), (1.0, 2.0, 0.5)))


@pytest.mark.parametrize(
    "function",
    [
        {"resampling_fn_probabilities": "resample_torch_fornnunet"},
        {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}},
    ],
)
def test_other_resampling_is_left_to_nnunet(function: dict[str, Any]) -> None:
    if "resampling_fn_probabilities" in function:
        function |= {"resampling_fn_probabilities_kwargs": {"is_seg": False, "force_separate_z": None}}
    compare(blobs(3, background=0), LabelManager(LABELS, None), None, case((12, 25, 20), (1.5, 0.8, 0.8)), **function)


def test_the_likeliest_class_is_the_first_of_the_largest_logits() -> None:
    logits = torch.randint(3, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0)).float()  # many are equal
    expected = (logits == logits.amax(dim=0)).int().argmax(dim=0)
    assert torch.equal(likeliest(logits), expected.int())
