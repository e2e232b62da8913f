"""How figures are drawn: as SVG text that takes its ink from the page, so that one figure serves light and dark."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

__all__ = ["DASHES", "HATCHES", "INK", "MARKERS", "PALETTE", "Drawing", "finished", "new_figure", "own_style", "short_name"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colour-blind safe, of middling lightness on white and black: Okabe and Ito, 2008, without black and yellow."""
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
INK = "#010203"  # stands for the colour of the page's text
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
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
_LONGEST_NAME = 18


@dataclass(frozen=True)
class Drawing:
    """A figure: its title as plain text, and the ``<svg>`` with that title for screen readers."""

    title: str
    svg: str


def own_style() -> AbstractContextManager[None]:
    """Matplotlib's own defaults with :data:`_STYLE`, whatever the process or the user has set; put back afterwards.

    nnU-Net's logger sets seaborn's style for a whole process, and users have a ``matplotlibrc``.
    """
    return style.context(["default", _STYLE])


def short_name(name: str) -> str:
    """A name that leaves room for the plot: its beginning and its end; whole names stand in the tables."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


def new_figure(columns: int = 1, *, width: float = 4.0, height: float = 3.0) -> tuple[Figure, list[Any]]:
    """A figure of some inches with its axes side by side; draw within :func:`own_style`."""
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(1, columns, squeeze=False)))


def finished(figure: Figure, title: str) -> Drawing:
    """The figure without its XML header, a title in front, ink as ``currentColor``, scaling with the page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL).replace(INK, "currentColor")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return Drawing(title, f'{head} role="img" class="figure"><title>{escape(title)}</title>{rest}')
