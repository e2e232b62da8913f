"""Segmentation metrics against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from nnduet.errors import LabelError, SettingsError
from nnduet.evaluation.metrics.mask_pairs import MaskPair
from nnduet.evaluation.metrics.segmentation import (
    dice_coefficient,
    normalized_surface_distance,
    relative_volume_difference,
    volume_difference_ml,
)
from nnduet.evaluation.region_scores import RegionScore, ignore_label, region_labels, score_segmentation

ONE_MM = (1.0, 1.0, 1.0)


def box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*b) for b in bounds)] = True
    return mask


def nsd(a: np.ndarray, b: np.ndarray, *, spacing_mm: Sequence[float] = ONE_MM, tolerance_mm: float = 2.0) -> float:
    found = normalized_surface_distance(MaskPair(a, b, spacing_mm, tolerance_mm))
    assert found is not None
    return found


def told(score: RegionScore) -> tuple[float | str | None, ...]:
    """DSC, NSD, both volume differences, and what is known besides."""
    values = (score.values[name] for name in ("dsc", "nsd", "avd_ml", "avd_ratio"))
    return (*values, score.reason, score.reference_ml, score.prediction_ml)


def test_dice_of_two_half_overlapping_cubes_is_one_half() -> None:
    left = box((4, 4, 8), (0, 4), (0, 4), (0, 4))
    right = box((4, 4, 8), (0, 4), (0, 4), (2, 6))
    assert dice_coefficient(MaskPair(left, right, ONE_MM)) == 0.5  # 2 * 32 / (64 + 64)


def test_volume_difference_of_8_against_12_voxels_of_5_cubic_mm_is_20_cubic_mm_and_one_half() -> None:
    reference, prediction = box((4, 4, 4), (0, 2), (0, 2), (0, 2)), box((4, 4, 4), (0, 3), (0, 2), (0, 2))
    pair = MaskPair(reference, prediction, (5.0, 1.0, 1.0))
    assert (volume_difference_ml(pair), relative_volume_difference(pair)) == (0.02, 0.5)


def test_surface_distance_forgives_a_shift_of_exactly_the_tolerance() -> None:
    cube = box((20, 20, 20), (5, 15), (5, 15), (5, 15))
    assert nsd(cube, np.roll(cube, 2, axis=0)) == 1.0
    assert (nsd(cube, np.roll(cube, 3, axis=0)) or 1.0) < 1.0


def test_surface_distance_forgives_the_tolerance_when_the_header_keeps_spacing_in_float32() -> None:
    cube, spacing = box((1, 30, 30), (0, 1), (5, 15), (5, 15)), float(np.float32(0.4))
    assert 5 * spacing > 2.0
    assert nsd(cube, np.roll(cube, 5, axis=1), spacing_mm=(1.0, spacing, spacing)) == 1.0


def test_surface_distance_of_a_rectangle_shifted_by_5_pixels_counts_contour_within_2() -> None:
    """10 x 15 pixels; contour = 2*9 + 2*14 straight steps and 4 corners of sqrt(1/2).

    Within 2 mm of the other contour: 7 steps on each of the two sides, 2 + 2 steps on the end that lies inside the other
    rectangle, and the two corners of that end.
    """
    rectangle = box((1, 40, 40), (0, 1), (10, 20), (10, 25))
    corner = math.sqrt(0.5)
    expected = (2 * 7 + 4 + 2 * corner) / (46 + 4 * corner)
    assert nsd(rectangle, np.roll(rectangle, 5, axis=1)) == pytest.approx(expected, abs=1e-6)


def test_a_one_slice_image_ignores_its_slice_thickness() -> None:
    rectangle = box((1, 40, 40), (0, 1), (10, 20), (10, 25))
    moved = np.roll(rectangle, 5, axis=1)
    assert nsd(rectangle, moved, spacing_mm=(99.0, 1.0, 1.0)) == nsd(rectangle, moved)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (1, 2, 0)], ids=["5 mm in z", "5 mm in y", "5 mm in x"])
def test_surface_distance_of_a_box_moved_by_one_thick_slice(axes: tuple[int, int, int]) -> None:
    """10 x 15 x 20 voxels of 5 x 0.7 x 0.8 mm, moved by one voxel of 5 mm, tolerance 2 mm.

    Wrong are the outer layer (face, bevelled edges, corners) and, on the other end, the interior cells of the face more than
    two cells away from its rim: 10 x 15 cells. Marching cubes cuts each edge by a half voxel.
    """
    thick, y, x = 5.0, 0.7, 0.8
    face = 14 * 19 * y * x
    edges = 2 * 14 * y * math.hypot(thick / 2, x / 2) + 2 * 19 * x * math.hypot(thick / 2, y / 2)
    corner = 0.5 * math.sqrt((thick * y / 4) ** 2 + (y * x / 4) ** 2 + (thick * x / 4) ** 2)
    sides = 2 * 9 * 14 * thick * y + 2 * 9 * 19 * thick * x + 4 * 9 * thick * math.hypot(y / 2, x / 2)
    surface = 2 * (face + edges + 4 * corner) + sides
    wrong = face + edges + 4 * corner + 10 * 15 * y * x
    reference = box((20, 30, 40), (5, 15), (5, 20), (5, 25))
    prediction = np.roll(reference, 1, axis=0)
    score = nsd(reference.transpose(axes), prediction.transpose(axes), spacing_mm=[(thick, y, x)[axis] for axis in axes])
    assert score == pytest.approx(1 - wrong / surface, abs=1e-6)


def test_a_mask_that_fills_the_image_has_a_surface() -> None:
    full = np.ones((4, 4, 4), dtype=bool)
    assert nsd(full, full) == 1.0


def test_far_apart_masks_have_surface_distance_zero() -> None:
    assert nsd(box((30, 9, 9), (0, 3), (0, 9), (0, 9)), box((30, 9, 9), (20, 23), (0, 9), (0, 9))) == 0.0


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.inf, math.nan])
def test_an_impossible_tolerance_is_refused(tolerance_mm: float) -> None:
    with pytest.raises(SettingsError, match="tolerance_mm"):
        nsd(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), tolerance_mm=tolerance_mm)


SOME = box((4, 4, 4), (0, 2), (0, 2), (0, 2)).astype(np.uint8)  # 8 voxels of 1 mm: 0.008 ml
NONE = np.zeros((4, 4, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        (NONE, NONE, (None, None, 0.0, None, "both_empty", 0.0, 0.0)),
        (NONE, SOME, (0.0, 0.0, 0.008, None, "empty_reference", 0.0, 0.008)),
        (SOME, NONE, (0.0, 0.0, 0.008, 1.0, "empty_prediction", 0.008, 0.0)),
        (SOME, SOME, (1.0, 1.0, 0.0, 0.0, "", 0.008, 0.008)),
        (SOME, None, (0.0, 0.0, 0.008, 1.0, "missing_prediction", 0.008, None)),
        (NONE, None, (0.0, 0.0, 0.0, None, "missing_prediction", 0.0, None)),
    ],
    ids=["both empty", "empty reference", "empty prediction", "equal", "missing", "missing and empty reference"],
)
def test_empty_masks_follow_the_table_of_the_module(
    reference: np.ndarray, prediction: np.ndarray | None, expected: tuple[float | str | None, ...]
) -> None:
    scores = score_segmentation(reference, prediction, {"organ": (1,)}, spacing_mm=ONE_MM, tolerance_mm=2.0)
    assert {name: told(score) for name, score in scores.items()} == {"organ": expected}


def test_a_region_joins_its_labels_and_the_union_is_added() -> None:
    regions = region_labels({"background": 0, "whole": [1, 2], "lesion": 2, "ignore": 3})
    assert regions == {"whole": (1, 2), "lesion": (2,), "foreground": (1, 2)}
    reference = np.array([[[1, 1, 2, 0]]])
    prediction = np.array([[[1, 2, 2, 0]]])
    scores = score_segmentation(reference, prediction, regions, spacing_mm=ONE_MM, tolerance_mm=0.0)
    assert scores["whole"].values["dsc"] == 1.0
    assert scores["foreground"] == scores["whole"]
    assert scores["lesion"].values["dsc"] == pytest.approx(2 / 3)


def test_the_union_gives_way_to_a_narrower_region_named_foreground() -> None:
    regions = region_labels({"background": 0, "foreground": 1, "lesion": 2})
    assert regions == {"foreground": (1,), "lesion": (2,), "any_foreground": (1, 2)}


def test_labels_without_foreground_are_refused() -> None:
    with pytest.raises(LabelError, match="at least one foreground region"):
        region_labels({"background": 0})


def test_ignored_reference_voxels_are_left_out_of_the_prediction() -> None:
    labels = {"background": 0, "organ": 1, "ignore": 2}
    reference, prediction = np.array([[[1, 1, 2, 2]]]), np.array([[[1, 1, 1, 1]]])
    assert ignore_label(labels) == 2
    assert ignore_label({"background": 0, "organ": 1}) is None
    scores = score_segmentation(
        reference, prediction, region_labels(labels), spacing_mm=ONE_MM, tolerance_mm=2.0, ignore=ignore_label(labels)
    )
    assert scores["organ"].values["dsc"] == 1.0
    assert scores["organ"].values["avd_ml"] == 0.0


def test_a_tolerance_of_zero_is_a_tolerance_and_a_half_voxel_is_more_than_it() -> None:
    cube = box((12, 12, 12), (3, 9), (3, 9), (3, 9))
    assert nsd(cube, cube, tolerance_mm=0.0) == 1.0
    assert (nsd(cube, np.roll(cube, 1, axis=0), spacing_mm=(0.5, 1.0, 1.0), tolerance_mm=0.49) or 1.0) < 1.0


def test_the_surface_distance_of_two_empty_masks_is_undefined_and_of_one_is_zero() -> None:
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    assert normalized_surface_distance(MaskPair(empty, empty, ONE_MM, 2.0)) is None
    assert nsd(empty, full) == nsd(full, empty) == 0.0


def test_a_region_may_have_several_labels_in_any_order_and_twice() -> None:
    reference, prediction = np.array([[[3, 1, 2, 0]]]), np.array([[[1, 2, 3, 3]]])
    regions = {"all": (3, 1, 2), "again": (1, 2, 2, 3), "pair": (1, 3)}
    scores = score_segmentation(reference, prediction, regions, spacing_mm=(1.0, 2.0, 5.0), tolerance_mm=0.0)
    assert scores["all"] == scores["again"]
    assert scores["all"].values["dsc"] == pytest.approx(6 / 7)
    assert (scores["all"].reference_ml, scores["all"].prediction_ml, scores["all"].values["avd_ml"]) == (0.03, 0.04, 0.01)
    assert scores["all"].values["avd_ratio"] == pytest.approx(1 / 3)
    assert scores["pair"].values["dsc"] == pytest.approx(2 / 5)


def test_a_case_of_one_region_in_a_large_image_scores_as_in_a_small_one() -> None:
    """Everything outside what either mask holds is left out, whichever of the two holds it and along whichever axis."""
    reference, prediction = np.zeros((2, 3, 6), int), np.zeros((2, 3, 6), int)
    reference[:, :, :3], prediction[:, :, 2:] = 1, 1
    scores = [
        score_segmentation(
            np.pad(reference.transpose(axes), margin),
            np.pad(prediction.transpose(axes), margin),
            {"a": (1,)},
            spacing_mm=ONE_MM,
            tolerance_mm=1.0,
        )["a"]
        for margin in (1, 4)
        for axes in ((0, 1, 2), (0, 2, 1), (2, 1, 0))
    ]
    for score in scores:
        assert score.values["dsc"] == pytest.approx(2 * 6 / (18 + 24))
        share = score.values["nsd"]
        assert share == pytest.approx(scores[0].values["nsd"]) and share is not None and 0 < share < 1


def test_a_flat_case_stays_flat_and_a_stack_of_slices_does_not() -> None:
    """One slice of 5 x 5 counts its contour; the thickness of the slice says nothing."""
    reference = np.zeros((1, 9, 9), int)
    reference[:, 2:7, 2:7] = 1
    prediction = np.roll(reference, 1, axis=1)
    thin, thick = (
        score_segmentation(reference, prediction, {"a": (1,)}, spacing_mm=(z, 1.0, 1.0), tolerance_mm=0.5)["a"]
        for z in (1.0, 9.0)
    )
    assert thin.values["nsd"] == thick.values["nsd"]
    assert (thin.reference_ml, thick.reference_ml) == (0.025, 0.225)
    stack = score_segmentation(
        np.pad(reference, ((1, 1), (0, 0), (0, 0))),
        np.pad(prediction, ((1, 1), (0, 0), (0, 0))),
        {"a": (1,)},
        spacing_mm=ONE_MM,
        tolerance_mm=0.5,
    )["a"]
    assert stack.values["nsd"] != thin.values["nsd"]


def test_a_missing_prediction_loses_the_whole_volume_of_each_region() -> None:
    reference = np.array([[[1, 1, 2, 0]]])
    scores = score_segmentation(reference, None, {"a": (1,), "b": (2,)}, spacing_mm=(1.0, 2.0, 5.0), tolerance_mm=1.0)
    assert {name: told(score) for name, score in scores.items()} == {
        "a": (0.0, 0.0, 0.02, 1.0, "missing_prediction", 0.02, None),
        "b": (0.0, 0.0, 0.01, 1.0, "missing_prediction", 0.01, None),
    }


def test_a_score_without_volumes_has_none() -> None:
    score = RegionScore({})
    assert (score.reason, score.reference_ml, score.prediction_ml) == ("", 0.0, None)


def test_the_union_of_regions_is_ascending_and_leaves_out_background_and_ignore() -> None:
    labels: dict[str, int | list[int]] = {"background": 0, "late": 5, "both": [1, 2], "with background": [0, 2], "ignore": 6}
    assert region_labels(labels) == {
        "late": (5,),
        "both": (1, 2),
        "with background": (0, 2),
        "foreground": (1, 2, 5),
    }


def test_a_region_named_foreground_that_is_the_union_is_the_union() -> None:
    assert region_labels({"background": 0, "foreground": [2, 1], "b": 2}) == {"foreground": (1, 2), "b": (2,)}


def test_labels_without_foreground_are_named_in_the_refusal() -> None:
    with pytest.raises(LabelError, match=r"got \{'background': 0, 'ignore': 1\}"):
        region_labels({"background": 0, "ignore": 1})


def test_an_ignore_label_that_is_no_number_is_none() -> None:
    assert ignore_label({"background": 0, "ignore": [1, 2]}) is None


def test_where_all_of_the_reference_is_ignored_every_score_is_undefined() -> None:
    reference, prediction = np.full((1, 2, 2), 3), np.ones((1, 2, 2), int)
    for found in (prediction, None):
        scores = score_segmentation(reference, found, {"a": (1,), "b": (2,)}, spacing_mm=ONE_MM, tolerance_mm=1.0, ignore=3)
        for score in (scores["a"], scores["b"]):
            assert set(score.values.values()) == {None}
            assert (score.reason, score.reference_ml, score.prediction_ml) == ("all_ignored", None, None)
    without = score_segmentation(reference, prediction, {"a": (1,)}, spacing_mm=ONE_MM, tolerance_mm=1.0)["a"]
    assert without.reason == "empty_reference"
    other = score_segmentation(prediction, prediction, {"a": (1,)}, spacing_mm=ONE_MM, tolerance_mm=1.0, ignore=3)["a"]
    assert other.values["dsc"] == 1.0
