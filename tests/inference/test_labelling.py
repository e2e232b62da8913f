"""Label maps by slabs are those of nnU-Net's own conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny import CONFIGURATIONS, tiny_plans

from nnduet.datasets.mask_codes import MaskCodes
from nnduet.inference import labelling
from nnduet.inference.case_features import likeliest
from nnduet.inference.labelling import to_labels, undecided_box
from nnduet.inference.mask_logits import MaskLogits
from nnduet.inference.resampling import Resampling

LABELS: dict[str, Any] = {"background": 0, "organ": 1, "lesion": 2}
CODES = MaskCodes.of(("ED", "ES"), LABELS)
SHAPE = (9, 20, 16)
LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
"""What nnU-Net plans for probabilities by default."""


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


def compare(
    logits: torch.Tensor,
    manager: Any,
    codes: MaskCodes | None,
    properties: dict[str, Any],
    *,
    fast: bool = True,
    transpose: tuple[list[int], list[int]] = ([0, 1, 2], [0, 1, 2]),
    **changes: Any,
) -> np.ndarray:
    """Compare with nnU-Net's own function, and that ours is the one that was meant: by slabs, or left to nnU-Net."""
    document = tiny_plans(3) | {"transpose_forward": transpose[0], "transpose_backward": transpose[1]}
    document["configurations"][CONFIGURATIONS[3]] |= {"resampling_fn_probabilities_kwargs": LINEAR, **changes}
    plans = PlansManager(document)
    configuration = plans.get_configuration(CONFIGURATIONS[3])
    shape = properties["shape_after_cropping_and_before_resampling"]
    assert (labelling._resampling(logits, shape, properties, plans, configuration) is not None) == fast
    stock = MaskLogits(codes) if codes else manager
    expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), plans, configuration, stock, properties
    )
    found = to_labels(logits, properties, plans, configuration, manager, codes)
    assert found.shape == expected.shape
    assert (found != expected).sum() <= 2  # a voxel where two classes are equal but for rounding
    assert found.dtype == expected.dtype
    return found


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
    found = compare(logits, LabelManager(LABELS, None), None, case(shape, spacing))
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_regions_are_those_of_nnunet(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    manager = LabelManager({"background": 0, "whole": [1, 2], "lesion": 2}, [1, 2])
    found = compare(blobs(2, background=9), manager, None, case(shape, spacing))
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_several_masks_are_coded(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    description = CODES.to_json()
    manager = LabelManager(description["labels"], description["regions_class_order"])
    compare(blobs(4, background=9), manager, CODES, case(shape, spacing))


def test_nothing_but_background_gives_zeros() -> None:
    logits = torch.zeros(3, *SHAPE)
    logits[0] = 5
    assert not compare(logits, LabelManager(LABELS, None), None, case(SHAPE, (1.0, 1.0, 1.0))).any()


@pytest.mark.parametrize("background", [0.0, 9.0])
@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_a_coarse_axis_that_is_resampled_linearly_is_too(
    shape: tuple[int, ...], spacing: tuple[float, ...], background: float
) -> None:
    arguments = LINEAR | {"order_z": 1, "force_separate_z": True}
    logits = blobs(3, background=background)
    logits[0] += 2 * background
    compare(logits, LabelManager(LABELS, None), None, case(shape, spacing), resampling_fn_probabilities_kwargs=arguments)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_the_axes_of_the_image_come_back(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    known = case(shape, spacing) | {"spacing": [spacing[2], *spacing[:2]]}  # the image's axes 1, 2, 0 are the network's
    found = compare(blobs(3, background=0), LabelManager(LABELS, None), None, known, transpose=([1, 2, 0], [2, 0, 1]))
    assert found.shape == (shape[2] + 3, shape[0] + 3, shape[1] + 3)


@pytest.mark.parametrize("overlapping", [False, True])
def test_what_is_hardly_likelier_than_background_counts(overlapping: bool) -> None:
    logits = torch.full((2, *SHAPE), -1.0)
    logits[1 - overlapping :, 2:7, 5:14, 3:12] = 0.01
    logits[0] *= overlapping
    labels = {"background": 0, "whole": [1, 2], "lesion": 2} if overlapping else {"background": 0, "organ": 1}
    manager = LabelManager(labels, [1, 2] if overlapping else None)
    assert compare(logits, manager, None, case((12, 25, 20), (1.5, 0.8, 0.8))).any()


@pytest.mark.parametrize("number", [254, 255, 256])
def test_as_many_labels_as_a_byte_holds_are_bytes(number: int) -> None:
    labels = {"background": 0, **{f"label {value}": value for value in range(1, number + 1)}}
    logits = blobs(number + 1, background=0)[:, :4, :5, :4]
    logits[-1] += 9
    found = compare(logits, LabelManager(labels, None), None, case((5, 6, 6), (1.5, 0.8, 0.7)))
    assert found.max() == number


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
    known = case((12, 25, 20), (1.5, 0.8, 0.8))
    compare(blobs(3, background=0), LabelManager(LABELS, None), None, known, fast=False, **function)


def test_the_likeliest_class_is_the_first_of_the_largest_logits() -> None:
    logits = torch.randint(3, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0)).float()  # many are equal
    expected = (logits == logits.amax(dim=0)).int().argmax(dim=0)
    assert torch.equal(likeliest(logits), expected.int())


def test_the_box_goes_one_voxel_beyond_what_is_undecided_and_stays_in_the_image() -> None:
    logits = torch.zeros(2, 5, 6, 7)
    logits[1] = -1.0
    assert undecided_box(logits, overlapping=False) is None
    logits[1, 2, 0, 6] = 0.0  # as likely as background
    assert undecided_box(logits, overlapping=False) == (slice(1, 4), slice(0, 2), slice(5, 7))
    logits[1, 3, 2, 3] = 1.0
    assert undecided_box(logits, overlapping=False) == (slice(1, 5), slice(0, 4), slice(2, 7))


def test_of_regions_the_first_counts_as_well_from_a_probability_of_one_half_on() -> None:
    logits = torch.full((2, 5, 6, 7), -0.01)
    assert undecided_box(logits, overlapping=True) is None
    logits[0, 2, 3, 3] = 0.0
    assert undecided_box(logits, overlapping=True) == (slice(1, 4), slice(2, 5), slice(2, 5))


def test_of_several_classes_the_likeliest_decides_what_is_undecided() -> None:
    logits = torch.zeros(3, 3, 3, 3)
    logits[0], logits[1], logits[2, 1, 1, 1] = 1.0, -5.0, 2.0
    assert undecided_box(logits, overlapping=False) == (slice(0, 3),) * 3
    logits[2, 1, 1, 1] = 0.5
    assert undecided_box(logits, overlapping=False) is None


def test_regions_are_painted_over_one_another_where_they_are_likelier_than_not() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0, -1.0], [-1.0, 1.0, 0.0, 1.0]]).reshape(2, 1, 1, 4)
    assert labelling._paint(logits, [7, 3]).flatten().tolist() == [7, 3, 0, 3]


def test_rows_of_a_matrix_are_those_that_the_old_voxels_reach() -> None:
    """Two old voxels to four new ones in between: the second reaches new voxels 1 to 3."""
    matrix = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    reached, rows = labelling._rows(matrix, slice(1, 2))
    assert reached == slice(1, 4) and rows is not None and rows.flatten().tolist() == [0.25, 0.75, 1.0]
    assert labelling._rows(None, slice(2, 5)) == (slice(2, 5), None)


def test_a_slab_takes_the_old_slices_that_its_new_ones_need() -> None:
    matrix = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    logits = torch.arange(3.0).reshape(1, 3, 1, 1)
    slab, rows = labelling._slab(logits, matrix, 2, 4)
    assert slab.flatten().tolist() == [1.0, 2.0] and rows is not None and rows.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    slab, rows = labelling._slab(logits, None, 1, 2)
    assert slab.flatten().tolist() == [1.0] and rows is None


def test_the_work_is_cut_into_slabs_of_a_number_of_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of 20 x 16 voxels, the whole of them undecided: 700 voxels are two slices, fewer than one slice is one."""
    seen: list[tuple[int, ...]] = []

    def decide(logits: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(logits.shape))
        return likeliest(logits)

    for voxels, depths in ((700, [2, 2, 2, 2, 1]), (1, [1] * 9), (2**22, [9])):
        monkeypatch.setattr(labelling, "SLAB_VOXELS", voxels)
        seen.clear()
        labels = np.zeros(SHAPE, dtype=np.uint8)
        logits = blobs(3, background=0).half()
        logits[0, 0, 0, 0] = logits[0, -1, -1, -1] = -20
        labelling._by_slabs(logits, labels, Resampling((None, None, None), None, True), decide, overlapping=False)
        assert seen == [(3, depth, 20, 16) for depth in depths]
        assert (labels == likeliest(logits.float()).numpy()).all()


def test_what_is_left_to_nnunet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    function: dict[str, Any] = {
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    }
    compare(blobs(3, background=0), LabelManager(LABELS, None), None, case(SHAPE, (1.0, 1.0, 1.0)), fast=False, **function)
    assert capsys.readouterr().out == ""


def test_a_region_without_another_inside_is_found() -> None:
    logits = torch.full((2, *SHAPE), -5.0)
    logits[0, 2:7, 5:14, 3:12] = 1.0
    manager = LabelManager({"background": 0, "whole": [1, 2], "lesion": 2}, [1, 2])
    found = compare(logits, manager, None, case((12, 25, 20), (1.5, 0.8, 0.8)))
    assert set(np.unique(found)) == {0, 1}


@pytest.mark.parametrize("order, fast", [(1, True), (3, False)])
def test_several_masks_with_more_codes_than_a_byte_holds_are_coded_either_way(order: int, fast: bool) -> None:
    """Two masks of 17 structures each have 18 x 18 codes."""
    codes = MaskCodes.of(("ED", "ES"), {"background": 0, **{f"label {value}": value for value in range(1, 18)}})
    description = codes.to_json()
    manager = LabelManager(description["labels"], description["regions_class_order"])
    kwargs: dict[str, Any] = {"resampling_fn_probabilities_kwargs": LINEAR | {"order": order}}
    known = case((9, 12, 10), (2.0, 1.6, 1.6))
    found = compare(blobs(34, background=9), manager, codes, known, fast=fast, **kwargs)
    assert found.dtype == np.uint16 and found.max() > 17
