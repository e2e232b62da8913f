"""Several masks of one case as one map of codes, and back: nnU-Net reads one mask per case.

A code is a number whose digits are the voxel's labels, one digit per mask: code = label_0 + base * label_1 + base² * label_2 …,
where base is the number of labels of one mask, background included. With labels RV 1, MYO 2, LV 3 and masks ED, ES, a voxel
that is RV at ED and LV at ES has code 1 + 4 * 3 = 13. nnU-Net's regions are the codes that share a digit, so that one network
learns all masks and they may overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.errors import DatasetError, GeometryError, LabelError, SettingsError
from nnduet.names import check_distinct_names, check_name
from nnduet.nnunet_types import DatasetJson

__all__ = ["MASKS_KEY", "MaskCodes", "check_mask_names", "decode_codes", "encode_masks"]

MASKS_KEY = "masks"
"""Of ``dataset.json``: mask name to label name to value in that mask."""

MAX_CODES = 2**15
"""nnU-Net keeps preprocessed segmentations as int16 (default_preprocessor.py, ``run_case_save``)."""

IntegerMap = npt.NDArray[np.integer[Any]]


def encode_masks(masks: Sequence[IntegerMap], base: int) -> IntegerMap:
    """One map of codes from masks of the same shape: sum over i of ``masks[i] * base**i``.

    Args:
        masks: at least one, integers from 0 to base - 1, e.g. (Z, Y, X).
        base: number of labels of one mask, background included.

    Returns:
        The codes in the masks' shape, uint8, or uint16 where there are more than 256 codes.

    Raises:
        GeometryError: the masks differ in shape.
        LabelError: a label outside 0 to base - 1.

    Examples:
        >>> encode_masks([np.array([1, 0]), np.array([3, 2])], base=4)  # 1 + 4 * 3, and 0 + 4 * 2
        array([13,  8], dtype=uint8)
    """
    dtype = _code_type(base ** len(masks))
    codes = np.zeros(masks[0].shape, dtype)
    for place, mask in enumerate(masks):
        if mask.shape != codes.shape:
            raise GeometryError(f"mask {place}: expected shape {codes.shape} like the first mask, got {mask.shape}")
        _check_range(mask, base, f"mask {place}")
        codes += mask.astype(dtype) * base**place
    return codes


def decode_codes(codes: IntegerMap, base: int, num_masks: int) -> list[IntegerMap]:
    """The masks that :func:`encode_masks` combined, in their order and the codes' shape; uint8, uint16 if base exceeds 256.

    Raises:
        LabelError: a code outside 0 to base**num_masks - 1.

    Examples:
        >>> [mask.tolist() for mask in decode_codes(np.array([13, 8]), base=4, num_masks=2)]
        [[1, 0], [3, 2]]
    """
    _check_range(codes, base**num_masks, "codes")
    wide = codes.astype(np.uint16)
    return [(wide // base**place % base).astype(_code_type(base)) for place in range(num_masks)]


def _code_type(number: int) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype(np.uint8 if number <= 256 else np.uint16)


def _check_range(values: IntegerMap, end: int, what: str) -> None:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high >= end:
        raise LabelError(f"{what}: values expected from 0 to {end - 1}, got {low} to {high}")


def check_mask_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be folders everywhere.

    Raises:
        SettingsError: fewer than two names, see ``names.check_name``, or two that differ only in case or unicode form.
    """
    if len(names) < 2:
        raise SettingsError(f"named masks: expected at least two, got {list(names)}; a single mask needs no name")
    for name in names:
        check_name(name, "mask")
    check_distinct_names(names, "masks")


@dataclass(frozen=True)
class MaskCodes:
    """How the masks of a dataset are combined.

    Attributes:
        names: of the masks, in the order of the digits.
        labels: of one mask without background, name to value; the values are 1, 2, … in this order.
    """

    names: tuple[str, ...]
    labels: Mapping[str, int]

    @classmethod
    def of(cls, names: Sequence[str], labels: Mapping[str, Any]) -> MaskCodes:
        """Codes for masks that all have ``labels``, a ``dataset.json["labels"]`` with background and without gaps.

        Raises:
            SettingsError: impossible names.
            DatasetError: an ignore label, regions, two names of one value, or more codes than nnU-Net can keep.

        Examples:
            >>> codes = MaskCodes.of(["ED", "ES"], {"background": 0, "RV": 1, "LV": 2})
            >>> codes.base, codes.num_codes
            (3, 9)
        """
        check_mask_names(names)
        if "ignore" in labels:
            raise DatasetError(f"labels: several masks cannot have an ignore label, got {dict(labels)}")
        values = list(labels.values())
        if any(not isinstance(value, int) for value in values) or sorted(values) != list(range(len(values))):
            raise DatasetError(f"labels: several masks need one value per name from 0 (background) on, got {dict(labels)}")
        if len(values) ** len(names) > MAX_CODES:
            raise DatasetError(
                f"{len(names)} masks of {len(values)} labels make {len(values)}**{len(names)} codes; nnU-Net keeps {MAX_CODES}"
            )
        return cls(tuple(names), dict(sorted(((name, v) for name, v in labels.items() if v), key=lambda item: item[1])))

    @classmethod
    def from_json(cls, dataset_json: DatasetJson) -> MaskCodes | None:
        """The codes of a ``dataset.json``; None where every case has one mask.

        Raises:
            DatasetError: masks, labels and regions_class_order contradict each other.
        """
        masks = dataset_json.get(MASKS_KEY)
        if masks is None:
            return None
        try:
            codes = cls.of(tuple(masks), {"background": 0, **next(iter(masks.values()))})
        except (AttributeError, StopIteration, TypeError) as error:
            raise DatasetError(f"masks: expected an object of objects of labels, got {masks!r}") from error
        for key, expected in codes.to_json().items():
            if key not in dataset_json or _ordered(dataset_json[key]) != _ordered(expected):
                raise DatasetError(f"{key}: expected {expected} for the masks {codes.names}, got {dataset_json.get(key)}")
        return codes

    @property
    def base(self) -> int:
        """Number of labels of one mask, background included."""
        return len(self.labels) + 1

    @property
    def num_codes(self) -> int:
        """Number of codes, 0 (background everywhere) included."""
        return int(self.base ** len(self.names))

    def to_json(self) -> dict[str, object]:
        """``labels``, ``regions_class_order`` and ``masks`` of ``dataset.json``; regions ``<mask> <label>``, mask by mask.

        Examples:
            >>> MaskCodes(("ED", "ES"), {"LV": 1}).to_json()["labels"]
            {'background': 0, 'ED LV': [1, 3], 'ES LV': [2, 3]}
        """
        digits = decode_codes(np.arange(self.num_codes), self.base, len(self.names))
        pairs = list(enumerate(self.names))
        regions = {
            f"{name} {label}": np.flatnonzero(digits[place] == value).tolist()
            for place, name in pairs
            for label, value in self.labels.items()
        }
        return {
            "labels": {"background": 0, **regions},
            "regions_class_order": [value * self.base**place for place, _ in pairs for value in self.labels.values()],
            MASKS_KEY: {name: dict(self.labels) for name in self.names},
        }

    def encode(self, masks: Sequence[IntegerMap]) -> IntegerMap:
        """:func:`encode_masks` of one mask per name."""
        assert len(masks) == len(self.names)
        return encode_masks(masks, self.base)

    def decode(self, codes: IntegerMap) -> dict[str, IntegerMap]:
        """:func:`decode_codes` by mask name."""
        return dict(zip(self.names, decode_codes(codes, self.base, len(self.names)), strict=True))


def _ordered(value: object) -> object:
    """``value`` with objects as lists of pairs, because the order of labels is the order of the network's outputs."""
    return [(key, _ordered(item)) for key, item in value.items()] if isinstance(value, Mapping) else value
