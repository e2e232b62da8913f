"""Whether float32, in which every network computes, can hold the contrast of an image."""

from __future__ import annotations

import numpy as np

from nnduet.errors import ValuesError

__all__ = ["LEAST_STEPS", "check_contrast"]

LEAST_STEPS = 64
"""Into so many steps at least float32 must divide the range of an image's values: as many as images of six bits have."""


def check_contrast(low: float, high: float, what: str) -> None:
    """Refuse an image whose different values, such as 2**40 and 2**40 + 1, are one value in float32, or nearly.

    Args:
        low, high: the least and the largest value, as stored; equal for a constant image, which has no contrast to lose.
        what: what the message begins with.

    Raises:
        ValuesError: the values lie beyond float32, or its neighbouring numbers lie further apart there than a
            :data:`LEAST_STEPS`-th of the range.

    Examples:
        >>> check_contrast(-1000, 3000, "image")
        >>> check_contrast(2**40, 2**40 + 1, "image")
        Traceback (most recent call last):
        ...
        nnduet.errors.ValuesError: ...
    """
    with np.errstate(over="ignore"):
        largest = np.float32(max(abs(float(low)), abs(float(high))))
    if not np.isfinite(largest):
        raise ValuesError(f"{what}: expected values that float32 can hold, got {low} to {high}")
    if low != high and float(np.spacing(largest)) * LEAST_STEPS > float(high) - float(low):
        raise ValuesError(f"{what}: its values lie from {low} to {high}; float32 cannot hold such small differences there")
