"""Percentile bootstrap over cases or patients, for metrics written on case weights.

A resample with replacement is the same as a count per case, so every metric of this room takes ``weights`` (R, N) and returns
(R,) values, NaN where undefined. Row 0 of the weights is all ones: the sample itself. One code path gives value and interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnduet.errors import SettingsError
from nnduet.records import left_out_when

__all__ = ["Estimate", "FloatArray", "Resamples", "draw_resamples", "ratio", "weighted_mean"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, as files hold it.

    Attributes:
        value: None where undefined; ``reason`` then says why.
        ci95: ends of the interval, None where it cannot be given; ``ci95_reason`` says why where there is a value.
        n_defined: cases that enter the value, 0 where it is undefined.
        undefined_resamples: resamples without a value, which are left out of the interval.
        tolerance_mm: of a surface distance.
        absent_classes: classes that a mean over classes leaves out.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    n_defined: int = 0
    undefined_resamples: int = 0
    reason: str = left_out_when("")
    ci95_reason: str = left_out_when("")
    tolerance_mm: float | None = left_out_when(None)
    absent_classes: tuple[str, ...] | None = left_out_when(None)


@dataclass(frozen=True)
class Resamples:
    """Case counts ``weights`` (1 + R, N) float64, row 0 all ones; ``num_units`` cases or patients were drawn from."""

    weights: FloatArray
    num_units: int

    def estimate(self, values: FloatArray, *, n_defined: int, reason: str) -> Estimate:
        """Value of row 0 with its 95 % percentile interval (2.5th and 97.5th percentile of the other rows).

        Args:
            values: (1 + R,), NaN where the metric is undefined; such resamples are left out of the interval and counted.
            n_defined: how many cases enter the value.
            reason: why the value is undefined, used only if it is.

        Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
        """
        drawn = values[1:]
        defined = drawn[np.isfinite(drawn)]
        undefined = int(drawn.size - defined.size)
        if not np.isfinite(values[0]):
            return Estimate(None, None, 0, undefined, reason)
        why_not = self._why_no_interval(n_defined, defined.size)
        if why_not:
            return Estimate(float(values[0]), None, n_defined, undefined, ci95_reason=why_not)
        low, high = np.percentile(defined, (2.5, 97.5))
        return Estimate(float(values[0]), (float(low), float(high)), n_defined, undefined)

    def _why_no_interval(self, n_defined: int, num_defined_resamples: int) -> str:
        if len(self.weights) == 1:
            return "no_resamples_asked"
        if min(n_defined, self.num_units) < 2:
            return "fewer_than_2_cases_or_patients"
        return "" if num_defined_resamples else "undefined_in_every_resample"


def draw_resamples(groups: Sequence[str], *, num_resamples: int, seed: int) -> Resamples:
    """Draw whole groups with replacement, as many as there are: one case each, or all cases of a patient (cluster bootstrap).

    Args:
        groups: group of each of the N cases; may be empty.
        num_resamples: R >= 0; 0 means values without intervals.
        seed: same seed, same groups, same resamples.

    Raises:
        SettingsError: ``num_resamples`` is negative.

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8 (clusters drawn, not split).

    Examples:
        >>> resamples = draw_resamples(["p1", "p1", "p2"], num_resamples=2, seed=0)
        >>> resamples.num_units, resamples.weights.shape, resamples.weights[0].tolist()
        (2, (3, 3), [1.0, 1.0, 1.0])
        >>> bool((resamples.weights[:, 0] == resamples.weights[:, 1]).all())  # cases of a patient are drawn together
        True
    """
    if num_resamples < 0:
        raise SettingsError(f"num_bootstrap: expected 0 or more, got {num_resamples}")
    units, unit_of_case = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    weights = np.ones((1 + num_resamples, len(groups)))
    if len(units):
        counts = np.random.default_rng(seed).multinomial(len(units), np.full(len(units), 1 / len(units)), size=num_resamples)
        weights[1:] = counts[:, unit_of_case]
    return Resamples(weights, len(units))


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Elementwise quotient, NaN (no warning) where the denominator is not above 0.

    Examples:
        >>> ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0]))
        array([0.5, nan])
    """
    quotient: FloatArray = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean of ``values`` (N,) per row of ``weights`` (R, N); NaN values are left out; NaN (R,) if none is left.

    Examples:
        >>> weights = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]])  # the sample, then a resample that drew the first case twice
        >>> weighted_mean(np.array([0.5, 1.0, np.nan]), weights).round(3).tolist()
        [0.75, 0.667]
    """
    defined = np.isfinite(values)
    kept = weights[:, defined]
    return ratio(kept @ values[defined], kept.sum(axis=1))
