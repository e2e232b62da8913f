"""Figures of scores, volumes, values, importances and trainings.

Told apart without colour. What would crowd a plot is said in the title, which the page shows below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nnduet.report.drawing import DASHES, INK, MARKERS, PALETTE, Drawing, finished, new_figure, own_style, short_name

__all__ = ["answer_histogram", "bland_altman", "importance_bars", "score_distributions", "training_curves", "value_histogram"]

Array = NDArray[np.float64]
NUM_BINS = 10


def score_distributions(scores: Mapping[str, Array], label: str, *, limits: tuple[float, float] | None = None) -> Drawing:
    """A strip of points and a box (quartiles, median) per region; undefined values are left out.

    Args:
        scores: {region: (N,) values, NaN where undefined}.
        label: of the axis, with its unit.
    """
    with own_style():
        figure, (axes,) = new_figure(height=0.6 + 0.45 * len(scores))
        rng = np.random.default_rng(0)
        names = list(scores)[::-1]
        for row, name in enumerate(names):
            values = scores[name][np.isfinite(scores[name])]
            axes.plot(values, row + rng.uniform(-0.18, 0.18, values.size), ".", color=PALETTE[0], markersize=3, alpha=0.6)
            if values.size:
                low, middle, high = np.percentile(values, (25, 50, 75))
                axes.plot([low, high], [row, row], color=INK, linewidth=4, alpha=0.35, solid_capstyle="butt")
                axes.plot([middle, middle], [row - 0.28, row + 0.28], color=INK, linewidth=1.5)
        axes.set_yticks(range(len(names)), [short_name(name) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if limits:
            axes.set_xlim(*limits)
        return finished(figure, f"{label}: points are cases, bars quartiles, lines medians")


def bland_altman(reference: Array, prediction: Array, region: str) -> Drawing:
    """Difference of volumes over their mean, in ml, with bias and limits of agreement (bias ± 1.96 SD).

    Source: Bland and Altman, Lancet 327 (1986).
    """
    mean, difference = (reference + prediction) / 2, prediction - reference
    with own_style():
        figure, (axes,) = new_figure()
        axes.plot(mean, difference, ".", color=PALETTE[0], markersize=4, alpha=0.7)
        title = f"Volume agreement of {region} (Bland-Altman)"
        if difference.size > 1:
            bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
            for value, dash in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
                axes.axhline(value, color=INK, linestyle=dash, linewidth=1)
            title += f": bias {bias:+.2g} ml, broken lines {bias - spread:+.2g} and {bias + spread:+.2g} ml (1.96 SD)"
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("mean of both volumes (ml)")
        axes.set_ylabel("predicted − reference (ml)")
        return finished(figure, title)


def answer_histogram(confidence: Array, title: str) -> Drawing:
    """How sure the answers are, where nobody knows which are right."""
    edges = np.linspace(0, 1, 2 * NUM_BINS + 1)
    return _histogram(confidence, edges, "probability of the answer", title)


def value_histogram(values: Array, label: str, title: str) -> Drawing:
    """Numbers of cases over twenty equal spans of the values (N,), N at least 1."""
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high, 2 * NUM_BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    return _histogram(values, edges, label, title)


def _histogram(values: Array, edges: Array, label: str, title: str) -> Drawing:
    with own_style():
        figure, (axes,) = new_figure()
        counts, _ = np.histogram(values, edges)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=PALETTE[0], edgecolor=INK, linewidth=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        axes.set_ylabel("cases")
        return finished(figure, title)


def importance_bars(rows: Sequence[tuple[str, float, float]], title: str, label: str) -> Drawing:
    """A bar per feature or block, largest on top: name, mean and deviation of what its permutation costs."""
    with own_style():
        figure, (axes,) = new_figure(height=0.7 + 0.24 * len(rows))
        names, means, deviations = zip(*rows[::-1], strict=True)
        axes.barh(range(len(rows)), means, xerr=deviations, color=PALETTE[0], edgecolor=INK, linewidth=0.5, ecolor=INK)
        axes.set_yticks(range(len(rows)), [short_name(name) for name in names])
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
        return finished(figure, title)


def training_curves(curves: Mapping[str, Array], label: str) -> Drawing:
    """A line per column over epochs, differing in dash and marker; NaN leaves a gap."""
    with own_style():
        figure, (axes,) = new_figure()
        for index, (name, values) in enumerate(curves.items()):
            known = np.flatnonzero(np.isfinite(values))
            every = max(1, len(known) // 8)
            axes.plot(
                known + 1,
                values[known],
                color=PALETTE[index % len(PALETTE)],
                linestyle=DASHES[index % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=3,
                markevery=every,
                linewidth=1.2,
                label=short_name(name),
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.legend(fontsize=9)
        return finished(figure, f"{label} over epochs")
