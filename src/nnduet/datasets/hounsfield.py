"""Whether an image looks like CT, whose name decides how nnU-Net normalises it.

nnU-Net takes the channel name ``CT`` for Hounsfield units, which it scales alike in all images, and standardises every image of
another name by itself (z-score), so that the scale is lost. Source: nnunetv2 map_channel_name_to_normalization.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.datasets.checking import CheckedCase
from nnduet.io.images import read_image

__all__ = ["CT", "hounsfield_notes", "looks_like_hounsfield"]

CT = "CT"
_MAX_SAMPLES = 5
_LEAST_HU, _AIR_HU, _SOFT_TISSUE_HU = -10000, -500, (-200, 300)
_SHARE = 0.01


def looks_like_hounsfield(image: npt.NDArray[Any]) -> bool:
    """Whole numbers (99 % of the voxels), at least 1 % each of air (-500 HU or less) and of soft tissue (-200 to 300 HU).

    Values below -10000 speak against it; paddings such as -3024 do not. Any shape; an empty image does not look like CT.

    Examples:
        >>> air_and_tissue = np.repeat(np.array([-1000, 40]), 50)
        >>> looks_like_hounsfield(air_and_tissue), looks_like_hounsfield(air_and_tissue / 1000)
        (True, False)
    """
    if not image.size or image.min() > _AIR_HU or image.min() < _LEAST_HU:
        return False
    whole = image.dtype.kind in "iu" or np.mean(image == np.rint(image)) >= 1 - _SHARE
    air, soft = np.mean(image <= _AIR_HU), np.mean((image >= _SOFT_TISSUE_HU[0]) & (image <= _SOFT_TISSUE_HU[1]))
    return bool(whole and air >= _SHARE and soft >= _SHARE)


def hounsfield_notes(cases: Sequence[CheckedCase], channel_names: Sequence[str], *, max_bytes: int) -> list[str]:
    """A note for each channel that looks like CT in most of up to five cases, evenly drawn, and is not named so."""
    sample = cases[:: max(1, len(cases) // _MAX_SAMPLES)][:_MAX_SAMPLES]
    notes = []
    for channel, name in enumerate(channel_names):
        if name.casefold() == CT.casefold():
            continue
        seen = sum(looks_like_hounsfield(read_image(case.images[channel].path, max_bytes=max_bytes).array) for case in sample)
        if 2 * seen > len(sample):
            options = " ".join(
                f"--channel {CT if place == channel else repr(other)}" for place, other in enumerate(channel_names)
            )
            notes.append(
                f"channel {channel}, {name!r}, looks like Hounsfield units in {seen} of {len(sample)} cases looked at, but "
                f"nnU-Net normalises by the name and keeps their scale only for {CT}: if it is CT, convert with {options}"
            )
    return notes
