"""The 95th percentile of surface distances: by hand, against MONAI and against every pair of surface elements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnduet.evaluation.metrics.mask_pairs import MaskPair
from nnduet.evaluation.metrics.segmentation import hausdorff_distance_95, normalized_surface_distance
from nnduet.evaluation.region_scores import score_segmentation

WEIGHTS = (128, 64, 32, 16, 8, 4, 2, 1)


def box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*b) for b in bounds)] = True
    return mask


def hd95(reference: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> float:
    found = hausdorff_distance_95(MaskPair(reference, prediction, spacing_mm))
    assert found is not None
    return found


def test_a_box_that_is_moved_by_five_voxels_is_five_voxels_away() -> None:
    """The face that was left behind is more than a twentieth of the surface."""
    cube = box((20, 24, 26), (4, 12), (5, 13), (6, 14))
    for axis, spacing in enumerate((5.0, 0.7, 0.8)):
        assert hd95(cube, np.roll(cube, 5, axis=axis), (5.0, 0.7, 0.8)) == pytest.approx(5 * spacing)


def test_the_contour_of_a_slice_knows_no_thickness() -> None:
    rectangle = box((1, 40, 40), (0, 1), (10, 20), (10, 25))
    assert hd95(rectangle, np.roll(rectangle, 5, axis=2), (99.0, 3.0, 0.8)) == pytest.approx(4.0)
    assert hd95(rectangle, np.roll(rectangle, 2, axis=1), (99.0, 3.0, 0.8)) == pytest.approx(6.0)


def test_less_than_a_twentieth_of_the_surface_may_be_anywhere_and_more_may_not() -> None:
    """A voxel has a surface of 8 * sqrt(3) / 8 = 1.73 with its bevelled corners, the cube of 27 voxels one of 43."""
    reference = box((9, 9, 60), (2, 5), (2, 5), (2, 5))
    one, three = reference.copy(), reference.copy()
    one[4, 4, 50] = True
    three[4, 4, 50] = three[4, 4, 54] = three[4, 4, 58] = True
    assert hd95(reference, one) == 0.0
    far = hd95(reference, three)
    assert far is not None and far == hd95(three, reference) and far > 40


def test_nineteen_of_twenty_equal_parts_are_95_percent() -> None:
    """Twenty single pixels, of which one has moved."""
    reference = np.zeros((1, 3, 90), bool)
    reference[0, 1, 1:61:3] = True
    prediction = reference.copy()
    prediction[0, 1, 58], prediction[0, 1, 85] = False, True
    assert hd95(reference, prediction) == 0.0


def test_the_larger_of_both_directions_counts() -> None:
    """All of the small cube lies within 1 mm of the long box, most of the long box is far from the small cube."""
    small, long = box((7, 7, 40), (2, 5), (2, 5), (2, 5)), box((7, 7, 40), (2, 5), (2, 5), (2, 35))
    far = hd95(small, long)
    assert far is not None and far == hd95(long, small) and far > 25


@pytest.mark.parametrize("seed", range(12))
def test_random_masks_have_the_percentile_of_all_pairs_of_elements(seed: int) -> None:
    """As ``compute_robust_hausdorff`` of surface-distance: distances sorted, areas added up to 95 %, the larger of both."""
    rng = np.random.default_rng(seed)
    shape = (1, 9, 11) if seed % 3 == 0 else (4, 6, 7)
    spacing_mm = tuple(rng.choice([0.4, 0.7, 1.0, 2.5, 5.0], 3).tolist())
    reference, prediction = (rng.random(shape) < share for share in (0.5, 0.2))
    elements = [_elements(mask, spacing_mm) for mask in (reference, prediction)]
    directed = []
    for (points, areas), (others, _) in itertools.permutations(elements):
        found = sorted(zip(cdist(points, others).min(axis=1), areas, strict=True))
        reached = np.cumsum([area for _, area in found]) >= 0.95 * sum(area for _, area in found) - 1e-9
        directed.append(found[int(np.argmax(reached))][0])
    assert hd95(reference, prediction, spacing_mm) == pytest.approx(max(directed), abs=1e-9)


def _elements(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, list[float]]:
    """Places and sizes of the surface elements, corner by corner, with MONAI's table of sizes."""
    from monai.metrics.utils import get_code_to_measure_table

    flat = mask.shape[0] == 1
    mask, spacing_mm = (mask[0], spacing_mm[1:]) if flat else (mask, spacing_mm)
    table = get_code_to_measure_table(list(spacing_mm))[0]
    padded = np.pad(mask, 1)
    places, sizes = [], []
    for corner in np.ndindex(*(size - 1 for size in padded.shape)):
        around = padded[tuple(slice(index, index + 2) for index in corner)].ravel()
        code = int(np.dot(around, WEIGHTS[-around.size :]))
        if code not in (0, 2**around.size - 1):
            places.append(np.array(corner) * spacing_mm)
            sizes.append(float(table[code]))
    return np.array(places), sizes


@pytest.mark.parametrize("seed", range(6))
def test_ellipsoids_are_as_far_apart_as_monai_says_within_a_voxel(seed: int) -> None:
    """MONAI measures between the centres of border voxels, each of which counts alike."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:20, :40, :40]
    spacing_mm = (2.0, 0.8, 1.0)
    masks = []
    for _ in range(2):
        centre, radii = rng.uniform((8, 18, 18), (12, 22, 22)), rng.uniform((4, 9, 8), (8, 13, 12))
        masks.append(np.asarray(sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii, strict=True)) < 1))
    tensors = [torch.from_numpy(mask).float()[None, None] for mask in masks]
    expected = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=list(spacing_mm))
    assert hd95(masks[0], masks[1], spacing_mm) == pytest.approx(float(expected), abs=float(np.linalg.norm(spacing_mm)))


@pytest.mark.parametrize("seed", range(6))
def test_a_tolerance_of_hd95_has_a_surface_distance_of_at_least_95_percent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = (rng.random((5, 9, 9)) < 0.3 for _ in range(2))
    found = hd95(reference, prediction, (2.5, 0.7, 0.7))
    share = normalized_surface_distance(MaskPair(reference, prediction, (2.5, 0.7, 0.7), found))
    assert share is not None and share >= 0.95 - 1e-9


def test_of_an_empty_mask_there_is_no_distance_and_the_reason_is_told() -> None:
    empty, full = np.zeros((3, 3, 3), int), np.ones((3, 3, 3), int)
    for reference, prediction, reason in (
        (empty, empty, "both_empty"),
        (empty, full, "empty_reference"),
        (full, empty, "empty_prediction"),
        (full, None, "missing_prediction"),
    ):
        score = score_segmentation(reference, prediction, {"a": (1,)}, spacing_mm=(1.0, 1.0, 1.0), tolerance_mm=1.0)["a"]
        assert (score.values["hd95"], score.reason) == (None, reason)
    assert hd95(full > 0, full > 0) == 0.0
