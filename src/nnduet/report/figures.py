"""Figures as SVG text that takes its ink from the page, so that one figure serves light and dark; told apart without colour.

Every function returns a :class:`Drawing`; all texts in its ``<svg>`` are escaped. What would crowd a plot is said in the title,
which the page shows below it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = [
    "PALETTE",
    "Drawing",
    "answer_histogram",
    "bland_altman",
    "confidence_histogram",
    "importance_bars",
    "reliability_diagram",
    "risk_coverage",
    "roc_curves",
    "score_distributions",
    "training_curves",
    "value_histogram",
]

Array = NDArray[np.float64]
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colour-blind safe, of middling lightness on white and black: Okabe and Ito, 2008, without black and yellow."""
_DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
_INK = "#010203"  # stands for the colour of the page's text
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.pad": 7,
    "ytick.major.pad": 5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a class may be called $x$
}
NUM_RESAMPLES = 200
_LONGEST_NAME = 18
NUM_BINS = 10


@dataclass(frozen=True)
class Drawing:
    """A figure: its title as plain text, and the ``<svg>`` with that title for screen readers."""

    title: str
    svg: str


def _own_style() -> AbstractContextManager[None]:
    """Matplotlib's own defaults with :data:`_STYLE`, whatever the process or the user has set; put back afterwards.

    nnU-Net's logger sets seaborn's style for a whole process, and users have a ``matplotlibrc``.
    """
    return style.context(["default", _STYLE])


def _short(name: str) -> str:
    """A name that leaves room for the plot; whole names stand in the tables."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _figure(columns: int = 1, *, width: float = 4.0, height: float = 3.0) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(1, columns, squeeze=False)))


def _drawing(figure: Figure, title: str) -> Drawing:
    """The figure without its XML header, a title in front, ink as ``currentColor``, scaling with the page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL).replace(_INK, "currentColor")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return Drawing(title, f'{head} role="img" class="figure"><title>{escape(title)}</title>{rest}')


def score_distributions(scores: Mapping[str, Array], label: str, *, limits: tuple[float, float] | None = None) -> Drawing:
    """A strip of points and a box (quartiles, median) per region; undefined values are left out.

    Args:
        scores: {region: (N,) values, NaN where undefined}.
        label: of the axis, with its unit.
    """
    with _own_style():
        figure, (axes,) = _figure(height=0.6 + 0.45 * len(scores))
        rng = np.random.default_rng(0)
        names = list(scores)[::-1]
        for row, name in enumerate(names):
            values = scores[name][np.isfinite(scores[name])]
            axes.plot(values, row + rng.uniform(-0.18, 0.18, values.size), ".", color=PALETTE[0], markersize=3, alpha=0.6)
            if values.size:
                low, middle, high = np.percentile(values, (25, 50, 75))
                axes.plot([low, high], [row, row], color=_INK, linewidth=4, alpha=0.35, solid_capstyle="butt")
                axes.plot([middle, middle], [row - 0.28, row + 0.28], color=_INK, linewidth=1.5)
        axes.set_yticks(range(len(names)), [_short(name) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if limits:
            axes.set_xlim(*limits)
        return _drawing(figure, f"{label}: points are cases, bars quartiles, lines medians")


def bland_altman(reference: Array, prediction: Array, region: str) -> Drawing:
    """Difference of volumes over their mean, in ml, with bias and limits of agreement (bias ± 1.96 SD).

    Source: Bland and Altman, Lancet 327 (1986).
    """
    mean, difference = (reference + prediction) / 2, prediction - reference
    with _own_style():
        figure, (axes,) = _figure()
        axes.plot(mean, difference, ".", color=PALETTE[0], markersize=4, alpha=0.7)
        title = f"Volume agreement of {region} (Bland-Altman)"
        if difference.size > 1:
            bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
            for value, dash in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
                axes.axhline(value, color=_INK, linestyle=dash, linewidth=1)
            title += f": bias {bias:+.2g} ml, broken lines {bias - spread:+.2g} and {bias + spread:+.2g} ml (1.96 SD)"
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("mean of both volumes (ml)")
        axes.set_ylabel("predicted − reference (ml)")
        return _drawing(figure, title)


def roc_curves(truth: NDArray[np.bool_], scores: Array, names: Sequence[str], title: str) -> Drawing:
    """One curve per column, each class against the rest, with 95 % bands over resampled cases.

    Args:
        truth: (N, C) whether a case is of the class; a column without both kinds has no curve.
        scores: (N, C) probabilities.
        names: (C,).
    """
    grid = np.linspace(0, 1, 101)
    with _own_style():
        figure, (axes,) = _figure(height=3.4)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6, alpha=0.5)
        for index, name in enumerate(names):
            positive, score = truth[:, index], scores[:, index]
            if not 0 < positive.sum() < positive.size:
                continue
            colour, dash = PALETTE[index % len(PALETTE)], _DASHES[index % len(_DASHES)]
            low, high = np.nanpercentile(_resampled_rocs(positive, score, grid), (2.5, 97.5), axis=0)
            axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
            label = f"{_short(name)} (n={int(positive.sum())})"
            axes.plot(grid, _roc(positive, score, grid), color=colour, linestyle=dash, label=label)
        axes.set_xlabel("1 − specificity")
        axes.set_ylabel("sensitivity")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right")
        return _drawing(figure, title)


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
    with _own_style():
        figure, (axes,) = _figure(height=3.4)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6, alpha=0.5)
        for index in np.unique(bins):
            inside = bins == index
            share, count = float(correct[inside].mean()), int(inside.sum())
            error = 1.96 * np.sqrt(max(share * (1 - share), 0.25 / count) / count)
            x = float(confidence[inside].mean())
            axes.plot([x, x], [max(share - error, 0), min(share + error, 1)], color=PALETTE[0], linewidth=1)
            axes.scatter([x], [share], s=8 + 180 * count / confidence.size, color=PALETTE[0], edgecolors=_INK, linewidths=0.6)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share of right answers")
        return _drawing(figure, f"{title}: the area of a point is its number of cases")


def confidence_histogram(confidence: Array, correct: NDArray[np.bool_], title: str) -> Drawing:
    """How sure right and wrong answers were: stacked counts, wrong ones hatched."""
    edges = np.linspace(0, 1, 2 * NUM_BINS + 1)
    right, wrong = (np.histogram(confidence[chosen], edges)[0] for chosen in (correct, ~correct))
    with _own_style():
        figure, (axes,) = _figure()
        axes.bar(
            edges[:-1], right, np.diff(edges), align="edge", color=PALETTE[0], edgecolor=_INK, linewidth=0.5, label="right"
        )
        axes.bar(
            edges[:-1],
            wrong,
            np.diff(edges),
            bottom=right,
            align="edge",
            color=PALETTE[1],
            edgecolor=_INK,
            linewidth=0.5,
            hatch=_HATCHES[1],
            label="wrong",
        )
        axes.set_xlim(float(edges[max(int(np.argmax(right + wrong > 0)) - 1, 0)]), 1)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("cases")
        axes.legend()
        return _drawing(figure, title)


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
    with _own_style():
        figure, (axes,) = _figure()
        counts, _ = np.histogram(values, edges)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=PALETTE[0], edgecolor=_INK, linewidth=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        axes.set_ylabel("cases")
        return _drawing(figure, title)


def risk_coverage(confidence: Array, correct: NDArray[np.bool_], title: str) -> Drawing:
    """Share of wrong answers among the most confident share of cases. Source: El-Yaniv and Wiener, JMLR 11 (2010)."""
    wrong = ~correct[np.argsort(-confidence, kind="stable")]
    coverage = np.arange(1, wrong.size + 1) / wrong.size
    with _own_style():
        figure, (axes,) = _figure()
        axes.plot(coverage, np.cumsum(wrong) / np.arange(1, wrong.size + 1), color=PALETTE[0])
        axes.axhline(float(wrong.mean()), color=_INK, linestyle="--", linewidth=0.8)
        axes.set_xlabel("share of cases answered, surest first")
        axes.set_ylabel("share of wrong answers")
        axes.set_ylim(bottom=0)
        return _drawing(figure, f"{title}: the broken line is that of all cases")


def importance_bars(rows: Sequence[tuple[str, float, float]], title: str, label: str) -> Drawing:
    """A bar per feature or block, largest on top: name, mean and deviation of what its permutation costs."""
    with _own_style():
        figure, (axes,) = _figure(height=0.7 + 0.24 * len(rows))
        names, means, deviations = zip(*rows[::-1], strict=True)
        axes.barh(range(len(rows)), means, xerr=deviations, color=PALETTE[0], edgecolor=_INK, linewidth=0.5, ecolor=_INK)
        axes.set_yticks(range(len(rows)), [_short(name) for name in names])
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
        return _drawing(figure, title)


def training_curves(curves: Mapping[str, Array], label: str) -> Drawing:
    """A line per column over epochs, differing in dash and marker; NaN leaves a gap."""
    with _own_style():
        figure, (axes,) = _figure()
        for index, (name, values) in enumerate(curves.items()):
            known = np.flatnonzero(np.isfinite(values))
            every = max(1, len(known) // 8)
            axes.plot(
                known + 1,
                values[known],
                color=PALETTE[index % len(PALETTE)],
                linestyle=_DASHES[index % len(_DASHES)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=3,
                markevery=every,
                linewidth=1.2,
                label=_short(name),
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.legend(fontsize=9)
        return _drawing(figure, f"{label} over epochs")
