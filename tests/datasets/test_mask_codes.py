"""Several masks as one map of codes: worked by hand, lossless, and refused where it cannot be."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from nnduet.datasets.mask_codes import MaskCodes, decode_codes, encode_masks
from nnduet.errors import DatasetError, GeometryError, LabelError, SettingsError

HEART = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


def test_codes_are_numbers_with_a_digit_per_mask() -> None:
    ed, es = np.array([[[0, 1, 3, 2]]], np.uint8), np.array([[[0, 3, 3, 0]]], np.uint8)
    codes = encode_masks([ed, es], 4)
    assert codes.tolist() == [[[0, 1 + 4 * 3, 3 + 4 * 3, 2]]] and codes.dtype == np.uint8
    assert [mask.tolist() for mask in decode_codes(codes, 4, 2)] == [ed.tolist(), es.tolist()]


@pytest.mark.parametrize(("base", "num_masks", "dtype"), [(4, 4, np.uint8), (17, 2, np.uint16), (2, 15, np.uint16)])
def test_all_combinations_survive_the_way_there_and_back(base: int, num_masks: int, dtype: type) -> None:
    every_code = np.arange(base**num_masks)
    masks = decode_codes(every_code, base, num_masks)
    codes = encode_masks(masks, base)
    assert codes.dtype == dtype and all(mask.dtype == np.uint8 for mask in masks)
    np.testing.assert_array_equal(codes, every_code)
    assert len(set(zip(*(mask.tolist() for mask in masks), strict=True))) == base**num_masks


def test_a_narrow_map_of_wide_codes_is_decoded() -> None:
    assert [mask.tolist() for mask in decode_codes(np.array([18], np.uint8), 17, 3)] == [[1], [1], [0]]


def test_masks_of_another_shape_and_foreign_labels_are_refused() -> None:
    mask = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(GeometryError, match=r"mask 1: expected shape \(1, 2, 2\)"):
        encode_masks([mask, mask[:, :1]], 4)
    with pytest.raises(LabelError, match="mask 1: values expected from 0 to 3, got 4 to 4"):
        encode_masks([mask, mask + 4], 4)
    with pytest.raises(LabelError, match="from 0 to 3, got -1"):
        encode_masks([np.array([-1]), np.array([0])], 4)
    with pytest.raises(LabelError, match="codes: values expected from 0 to 15, got 16 to 16"):
        decode_codes(np.array([16]), 4, 2)


def test_empty_masks_make_an_empty_map() -> None:
    empty = np.zeros((0, 2, 2), np.uint8)
    assert encode_masks([empty, empty], 4).shape == decode_codes(empty, 4, 2)[1].shape == (0, 2, 2)


def test_regions_are_the_codes_that_share_a_digit() -> None:
    description = MaskCodes.of(("ED", "ES"), {"background": 0, "wall": 2, "blood": 1}).to_json()
    assert list(cast(dict[str, Any], description["labels"]).items()) == [
        ("background", 0),
        ("ED blood", [1, 4, 7]),
        ("ED wall", [2, 5, 8]),
        ("ES blood", [3, 4, 5]),
        ("ES wall", [6, 7, 8]),
    ]
    assert description["regions_class_order"] == [1, 2, 3, 6]
    assert description["masks"] == {"ED": {"blood": 1, "wall": 2}, "ES": {"blood": 1, "wall": 2}}


def test_codes_are_read_back_from_dataset_json() -> None:
    codes = MaskCodes.of(("ED", "ES"), HEART)
    assert MaskCodes.from_json({"file_ending": ".png", **codes.to_json()}) == codes
    assert MaskCodes.from_json({"labels": HEART}) is None
    assert (codes.base, codes.num_codes) == (4, 16)
    masks = codes.decode(codes.encode([np.array([1, 0]), np.array([3, 2])]))
    assert {name: mask.tolist() for name, mask in masks.items()} == {"ED": [1, 0], "ES": [3, 2]}


def test_a_dataset_json_that_contradicts_itself_is_refused() -> None:
    sound: dict[str, Any] = dict(MaskCodes.of(("ED", "ES"), HEART).to_json())
    turned = dict(reversed(sound["labels"].items()))
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("labels", {"labels": HEART}),
        ("labels", {"labels": turned}),
        ("regions_class_order", {"regions_class_order": [1, 2, 3]}),
        ("masks", {"masks": {"ED": sound["masks"]["ED"], "ES": {"RV": 1}}}),
        ("masks", {"masks": ["ED", "ES"]}),
        ("masks", {"masks": {}}),
        ("masks", {"masks": {"ED": 1, "ES": 1}}),
    ]
    for key, change in wrong:
        with pytest.raises(DatasetError, match=f"{key}: expected"):
            MaskCodes.from_json(sound | change)
    with pytest.raises(DatasetError, match="regions_class_order: expected"):
        MaskCodes.from_json({key: sound[key] for key in ("labels", "masks")})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({**HEART, "ignore": 4}, "cannot have an ignore label"),
        ({"background": 0, "whole": [1, 2], "core": 2}, "one value per name"),
        ({"background": 0, "a": 1, "b": 1}, "one value per name"),
        ({"background": 0, "a": 2}, "one value per name"),
        ({"background": 0} | {f"l{i}": i for i in range(1, 182)}, r"182\*\*2 codes; nnU-Net keeps 32768"),
    ],
)
def test_labels_that_cannot_be_combined_are_refused(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        MaskCodes.of(("ED", "ES"), labels)


def test_a_single_mask_needs_no_codes() -> None:
    with pytest.raises(SettingsError, match="at least two"):
        MaskCodes.of(("ED",), HEART)
