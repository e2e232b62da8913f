"""The figure of a probe: a panel per task, a bar per block of features."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnduet.io.files import write_bytes_atomically

__all__ = ["Panel", "write_figure"]

_INCHES = (0.55, 3.6)
"""Width of a bar and height of a panel."""


@dataclass(frozen=True)
class Panel:
    """One task: ``values`` maps blocks to their scores in folds; ``constant`` is that of a constant answer."""

    title: str
    axis: str
    values: Mapping[str, Sequence[float]]
    constant: float | None


def write_figure(path: Path, panels: Sequence[Panel]) -> None:
    """Draw bars (means over folds), points (folds) and a line (constant answer) as a PNG of 150 dpi, atomically."""
    from matplotlib import style

    with style.context("default"):  # whatever the process or the user has set
        content = _drawn(panels)
    write_bytes_atomically(path, content)


def _drawn(panels: Sequence[Panel]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a screen; pyplot would look for one
    from matplotlib.figure import Figure

    longest = max(len(panel.values) for panel in panels)
    figure = Figure(figsize=(2.5 + _INCHES[0] * longest, _INCHES[1] * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for position, scores in enumerate(panel.values.values()):
            if scores:
                axes.bar(position, sum(scores) / len(scores), color="#9ecae1")
                axes.plot([position] * len(scores), scores, ".", color="#08519c")
        if panel.constant is not None:
            axes.axhline(panel.constant, color="#d94801", linestyle="--", linewidth=1, label="constant answer")
            axes.legend(fontsize="small")
        axes.set_title(panel.title)
        axes.set_ylabel(panel.axis, fontsize="small")
        axes.set_xticks(range(len(panel.values)), list(panel.values), rotation=30, ha="right", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
