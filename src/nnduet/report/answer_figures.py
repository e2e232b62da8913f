"""Figures of answers whose truth is known: ROC, reliability, sureness, risk against coverage.

Told apart without colour. What would crowd a plot is said in the title, which the page shows below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnduet.report.drawing import DASHES, HATCHES, INK, PALETTE, Drawing, finished, new_figure, own_style, short_name

__all__ = ["confidence_histogram", "reliability_diagram", "risk_coverage", "roc_curves"]

Array = NDArray[np.float64]
NUM_RESAMPLES = 200
NUM_BINS = 10


def roc_curves(truth: NDArray[np.bool_], scores: Array, names: Sequence[str], title: str) -> Drawing:
    """One curve per column, each class against the rest, with 95 % bands over resampled cases.

    Args:
        truth: (N, C) whether a case is of the class; a column without both kinds has no curve.
        scores: (N, C) probabilities.
        names: (C,).
    """
    grid = np.linspace(0, 1, 101)
    with own_style():
        figure, (axes,) = new_figure(height=3.4)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, alpha=0.5)
        for index, name in enumerate(names):
            positive, score = truth[:, index], scores[:, index]
            if not 0 < positive.sum() < positive.size:
                continue
            colour, dash = PALETTE[index % len(PALETTE)], DASHES[index % len(DASHES)]
            low, high = np.nanpercentile(_resampled_rocs(positive, score, grid), (2.5, 97.5), axis=0)
            axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
            label = f"{short_name(name)} (n={int(positive.sum())})"
            axes.plot(grid, _roc(positive, score, grid), color=colour, linestyle=dash, label=label)
        axes.set_xlabel("1 − specificity")
        axes.set_ylabel("sensitivity")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right")
        return finished(figure, title)


def _roc(positive: NDArray[np.bool_], score: Array, grid: Array) -> Array:
    """Sensitivity at each share of false positives of ``grid``, linear between thresholds (ties together)."""
    order = np.argsort(-score, kind="stable")
    hits, alarms = np.cumsum(positive[order]), np.cumsum(~positive[order])
    last = np.r_[np.diff(score[order]) != 0, True]  # equal scores are one threshold
    return np.interp(grid, np.r_[0, alarms[last] / alarms[-1]], np.r_[0, hits[last] / hits[-1]])


def _resampled_rocs(positive: NDArray[np.bool_], score: Array, grid: Array) -> Array:
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(NUM_RESAMPLES):
        drawn = rng.integers(0, positive.size, positive.size)
        if 0 < positive[drawn].sum() < positive.size:
            curves.append(_roc(positive[drawn], score[drawn], grid))
    return np.array(curves or [np.full(grid.size, np.nan)])


def reliability_diagram(confidence: Array, correct: NDArray[np.bool_], title: str) -> Drawing:
    """Share of right answers over their mean probability in ten equal bins; the area of a point is its number of cases."""
    bins = np.clip((confidence * NUM_BINS).astype(int), 0, NUM_BINS - 1)
    with own_style():
        figure, (axes,) = new_figure(height=3.4)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, alpha=0.5)
        for index in np.unique(bins):
            inside = bins == index
            share, count = float(correct[inside].mean()), int(inside.sum())
            error = 1.96 * np.sqrt(max(share * (1 - share), 0.25 / count) / count)
            x = float(confidence[inside].mean())
            axes.plot([x, x], [max(share - error, 0), min(share + error, 1)], color=PALETTE[0], linewidth=1)
            axes.scatter([x], [share], s=8 + 180 * count / confidence.size, color=PALETTE[0], edgecolors=INK, linewidths=0.6)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share of right answers")
        return finished(figure, f"{title}: the area of a point is its number of cases")


def confidence_histogram(confidence: Array, correct: NDArray[np.bool_], title: str) -> Drawing:
    """How sure right and wrong answers were: stacked counts, wrong ones hatched."""
    edges = np.linspace(0, 1, 2 * NUM_BINS + 1)
    right, wrong = (np.histogram(confidence[chosen], edges)[0] for chosen in (correct, ~correct))
    with own_style():
        figure, (axes,) = new_figure()
        axes.bar(edges[:-1], right, np.diff(edges), align="edge", color=PALETTE[0], edgecolor=INK, linewidth=0.5, label="right")
        axes.bar(
            edges[:-1],
            wrong,
            np.diff(edges),
            bottom=right,
            align="edge",
            color=PALETTE[1],
            edgecolor=INK,
            linewidth=0.5,
            hatch=HATCHES[1],
            label="wrong",
        )
        axes.set_xlim(float(edges[max(int(np.argmax(right + wrong > 0)) - 1, 0)]), 1)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("cases")
        axes.legend()
        return finished(figure, title)


def risk_coverage(confidence: Array, correct: NDArray[np.bool_], title: str) -> Drawing:
    """Share of wrong answers among the most confident share of cases. Source: El-Yaniv and Wiener, JMLR 11 (2010)."""
    wrong = ~correct[np.argsort(-confidence, kind="stable")]
    coverage = np.arange(1, wrong.size + 1) / wrong.size
    with own_style():
        figure, (axes,) = new_figure()
        axes.plot(coverage, np.cumsum(wrong) / np.arange(1, wrong.size + 1), color=PALETTE[0])
        axes.axhline(float(wrong.mean()), color=INK, linestyle="--", linewidth=0.8)
        axes.set_xlabel("share of cases answered, surest first")
        axes.set_ylabel("share of wrong answers")
        axes.set_ylim(bottom=0)
        return finished(figure, f"{title}: the broken line is that of all cases")
