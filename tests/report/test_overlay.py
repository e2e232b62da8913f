"""Pictures of a case: which slice, which part of it, which colours, and that the two outlines differ in more than colour."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import ImageColor

from nnduet.errors import GeometryError, LabelError, SettingsError
from nnduet.inference.outlines import PALETTE, legend, render_overlay

WHOLE: dict[str, Any] = {"spacing_mm": (1.0, 1.0, 1.0), "size": 80, "margin_mm": None}
ORANGE, SKY_BLUE = (ImageColor.getrgb(colour) for colour in PALETTE[:2])
GREY, WHITE, BLACK = (128, 128, 128), (255, 255, 255), (0, 0, 0)


def volume(*boxes: tuple[int, tuple[slice, slice, slice]], shape: tuple[int, int, int] = (4, 8, 8)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    for value, box in boxes:
        mask[box] = value
    return mask


def block(first: int, last: int) -> tuple[slice, slice, slice]:
    return slice(None), slice(first, last), slice(first, last)


def render(image: np.ndarray, *masks: np.ndarray | None, **changes: object) -> np.ndarray:
    return np.asarray(render_overlay(image, *masks, **WHOLE | changes))


def has(picture: np.ndarray, colour: tuple[int, ...]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


def test_a_constant_image_without_masks_is_mid_grey() -> None:
    picture = render(np.full((4, 8, 8), 7.5), None)
    assert picture.shape == (80, 80, 3)
    assert picture.dtype == np.uint8
    assert (picture == GREY).all()


def test_the_prediction_is_a_translucent_fill_with_a_solid_line_inside_its_border() -> None:
    picture = render(np.zeros((4, 8, 8)), volume((1, block(2, 6))))  # ten pixels a voxel: rows and columns 20 to 59
    assert tuple(picture[20, 20]) == tuple(picture[59, 59]) == ORANGE
    assert tuple(picture[19, 30]) == tuple(picture[60, 30]) == GREY
    assert tuple(picture[40, 40]) == tuple(round(0.65 * 128 + 0.35 * value) for value in ORANGE)


def test_the_reference_is_a_white_and_a_black_line_outside_its_border_and_no_fill() -> None:
    picture = render(np.zeros((4, 8, 8)), None, volume((1, block(2, 6))))
    assert tuple(picture[19, 30]) == tuple(picture[60, 30]) == WHITE
    assert tuple(picture[18, 30]) == tuple(picture[61, 30]) == BLACK
    assert tuple(picture[17, 30]) == tuple(picture[20, 30]) == tuple(picture[40, 40]) == GREY


def test_both_outlines_are_seen_where_they_agree() -> None:
    mask = volume((1, block(2, 6)))
    picture = render(np.zeros((4, 8, 8)), mask, mask)
    assert [tuple(picture[row, 30]) for row in (18, 19, 20)] == [BLACK, WHITE, ORANGE]


def test_a_reference_inside_a_larger_prediction_keeps_its_white() -> None:
    picture = render(np.zeros((4, 8, 8)), volume((1, block(1, 7))), volume((1, block(3, 5))))
    assert tuple(picture[29, 35]) == WHITE


def test_touching_labels_are_parted_by_lines_of_both_kinds() -> None:
    mask = volume((1, block(2, 6)), (2, (slice(None), slice(2, 6), slice(4, 6))))
    prediction, reference = render(np.zeros((4, 8, 8)), mask), render(np.zeros((4, 8, 8)), None, mask)
    assert tuple(prediction[40, 39]) == ORANGE
    assert tuple(prediction[40, 40]) == SKY_BLUE
    assert [tuple(reference[40, column]) for column in (38, 39, 40)] == [BLACK, WHITE, GREY]


def test_the_slice_with_most_reference_is_shown_else_with_most_prediction_else_the_middle_one() -> None:
    image = np.repeat(np.arange(5.0), 64).reshape(5, 8, 8)
    image[:, 0, 0], image[:, 0, 1] = 0, 4  # every slice has the same window, so that its grey says which one it is
    prediction = volume((1, (slice(1, 2), slice(2, 6), slice(2, 6))), shape=(5, 8, 8))
    reference = volume((1, (slice(3, 4), slice(3, 5), slice(3, 5))), shape=(5, 8, 8))
    nothing = np.zeros_like(reference)
    greys = [
        round(render(image, *masks)[79, 79, 0] / 255 * 4)
        for masks in ((prediction, reference), (prediction, nothing), (prediction,), (nothing, nothing), (None,))
    ]
    assert greys == [3, 1, 1, 2, 2]


def test_the_picture_is_cropped_to_prediction_and_reference_with_a_margin_in_millimetres() -> None:
    image = np.zeros((1, 100, 100))
    prediction = volume((1, (slice(None), slice(40, 50), slice(40, 50))), shape=image.shape)
    reference = volume((1, (slice(None), slice(45, 60), slice(40, 50))), shape=image.shape)
    picture = render(image, prediction, reference, spacing_mm=(1, 2, 2), margin_mm=10.0)  # rows 35 to 64, columns 35 to 54
    assert picture.shape == (80, 53, 3)
    assert render(image, prediction, reference, margin_mm=None).shape == (80, 80, 3)


def test_a_margin_beyond_the_image_ends_at_its_border() -> None:
    assert render(np.zeros((4, 8, 8)), volume((1, block(2, 6))), margin_mm=1000.0).shape == (80, 80, 3)


def test_pixels_are_square_in_millimetres() -> None:
    assert render(np.zeros((4, 8, 8)), None, spacing_mm=(1, 1, 2)).shape == (80, 160, 3)
    assert render(np.zeros((4, 8, 8)), None, spacing_mm=(4, 1, 1), planes=("coronal",)).shape == (80, 40, 3)


def test_planes_stand_side_by_side_in_the_asked_order() -> None:
    picture = render(np.zeros((4, 8, 8)), None, spacing_mm=(4, 1, 1), planes=("sagittal", "axial"))
    assert picture.shape == (80, 40 + 4 + 80, 3)
    assert (picture[:, 40:44] == 0).all()


def test_a_very_flat_plane_is_made_lower_instead_of_wider() -> None:
    picture = render(np.zeros((2, 8, 80)), None, planes=("coronal",))
    assert picture.shape == (80, 240, 3)
    assert (picture[[0, 79]] == 0).all()
    assert tuple(picture[40, 120]) == GREY


def test_a_single_slice_is_drawn_once_whatever_planes_are_asked() -> None:
    assert render(np.zeros((1, 8, 16)), None, planes=("coronal", "sagittal")).shape == (80, 160, 3)


def test_superior_is_above_in_coronal_and_sagittal_planes() -> None:
    image = np.zeros((8, 8, 8))
    image[6:] = 1
    for plane in ("coronal", "sagittal"):
        picture = render(image, None, planes=(plane,))
        assert tuple(picture[5, 40]) == WHITE
        assert tuple(picture[75, 40]) == BLACK


@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_the_picture_is_the_same_however_the_volume_is_stored(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(5, 6, 7)), volume((1, (slice(1, 3), slice(2, 5), slice(1, 4))), shape=(5, 6, 7))
    spacing_mm, planes = (3.0, 2.0, 1.0), ("axial", "coronal", "sagittal")
    expected = render(image, mask, spacing_mm=spacing_mm, planes=planes)
    # the stored axis i runs along the world's axis axes[i] of (Z, Y, X), backwards where its sign is -1
    flips = tuple(i for i in range(3) if signs[i] < 0)
    stored = [np.flip(array.transpose(axes), flips) for array in (image, mask)]
    cosines = np.zeros((3, 3))
    for i in range(3):
        cosines[2 - axes[i], 2 - i] = signs[i]  # row: world (x, y, z); column: stored (x, y, z)
    stored_mm = tuple(spacing_mm[axis] for axis in axes)
    drawn = render(*stored, planes=planes, spacing_mm=stored_mm, direction=tuple(cosines.ravel()))
    np.testing.assert_array_equal(drawn, expected)


def test_the_window_leaves_out_single_extreme_voxels_of_the_shown_part() -> None:
    image = np.tile(np.linspace(0, 100, 50), (1, 50, 1))
    image[0, 0, 0] = 1e6
    picture = render(image, None)
    assert picture[40, 79, 0] > 250
    assert picture[40, 0, 0] < 5


def test_one_bright_pixel_on_a_constant_image_is_still_seen() -> None:
    image = np.zeros((1, 80, 80), dtype=np.int16)
    image[0, 40, 40] = 9
    picture = render(image, None)
    assert tuple(picture[40, 40]) == WHITE
    assert tuple(picture[0, 0]) == BLACK


def test_values_that_are_not_finite_are_black() -> None:
    image = np.full((1, 80, 80), np.nan)
    assert (render(image, None) == 0).all()
    image[0, :, 40:] = 5
    image[0, 60:, 40:] = 9
    picture = render(image, None)
    assert tuple(picture[10, 10]) == BLACK
    assert tuple(picture[70, 70]) == WHITE


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.float16, np.float32, np.float64])
def test_images_of_any_real_type_are_drawn(dtype: type) -> None:
    image: np.ndarray = np.zeros((1, 80, 80), dtype=dtype)
    image[:, :, 40:] = 1
    picture = render(image, None)
    assert tuple(picture[0, 0]) == BLACK
    assert tuple(picture[0, 79]) == WHITE


def test_the_legend_has_the_colours_of_the_picture() -> None:
    labels = {"background": 0, "lesion": 12, "organ": 4}
    assert legend(labels) == [("organ", PALETTE[0]), ("lesion", PALETTE[1])]
    assert legend({"background": 0}) == legend({}) == []
    mask = volume((12, block(2, 6)))
    assert has(render(np.zeros((4, 8, 8)), mask, labels=labels), SKY_BLUE)
    assert not has(render(np.zeros((4, 8, 8)), mask), SKY_BLUE)  # undeclared, label 12 has the fifth colour


def test_the_inputs_are_left_as_they_were() -> None:
    image, mask = np.random.default_rng(0).normal(size=(4, 8, 8)), volume((1, block(2, 6)))
    image[0, 0, 0] = np.nan
    before = image.copy(), mask.copy()
    render(image, mask, mask, planes=("axial", "coronal"))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.zeros((8, 8)), None), {}, GeometryError, r"image: expected \(Z, Y, X\).*got shape \(8, 8\)"),
        ((np.zeros((0, 8, 8)), None), {}, GeometryError, r"got shape \(0, 8, 8\)"),
        ((np.zeros((4, 8, 8)), np.zeros((4, 8, 9), int)), {}, GeometryError, r"prediction.*\(4, 8, 8\), got \(4, 8, 9\)"),
        ((np.zeros((4, 8, 8)), None, np.zeros((4, 8, 9), int)), {}, GeometryError, "reference: expected the shape"),
        ((np.zeros((4, 8, 8)), np.zeros((4, 8, 8))), {}, LabelError, "prediction: expected integers, got float64"),
        ((np.zeros((4, 8, 8)), None), {"spacing_mm": (1, 0, 1)}, GeometryError, "spacing_mm"),
        ((np.zeros((4, 8, 8)), None), {"planes": ()}, SettingsError, "planes: expected some of axial.*got none"),
        ((np.zeros((4, 8, 8)), None), {"planes": ("frontal",)}, SettingsError, "got frontal"),
        ((np.zeros((4, 8, 8)), None), {"size": 3}, SettingsError, "size: expected 32 to 4096 pixels, got 3"),
        ((np.zeros((4, 8, 8)), None), {"margin_mm": -1.0}, SettingsError, "margin_mm"),
    ],
)
def test_impossible_requests_are_refused_by_name(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        render(*arguments, **options)
