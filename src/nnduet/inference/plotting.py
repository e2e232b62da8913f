"""A figure of one prediction: the outlines over the image, for notebooks and papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from nnduet.errors import SettingsError
from nnduet.inference.outlines import legend, render_overlay
from nnduet.inference.prediction import Origin, Prediction
from nnduet.io.case_inputs import open_case
from nnduet.io.geometry import Geometry

__all__ = ["plot_prediction"]

_PIXELS_PER_INCH = 100


def plot_prediction(
    prediction: Prediction,
    *,
    planes: Sequence[str],
    channel: int,
    mask: str | None,
    margin_mm: float | None,
    size: int,
) -> Figure:
    """See :meth:`~nnduet.inference.prediction.Prediction.plot`."""
    if prediction.origin is None:
        raise SettingsError("plot: the prediction does not know its image; predict it by calling a Predictor")
    shown, labels = _mask(prediction, mask), _labels(prediction.origin)
    grid = prediction.geometry or Geometry(prediction.segmentation.shape, prediction.spacing_mm)
    picture = np.asarray(
        render_overlay(
            _channel(prediction.origin, channel),
            shown,
            spacing_mm=grid.spacing_mm,
            direction=grid.direction,
            labels=labels,
            size=size,
            planes=planes,
            margin_mm=margin_mm,
        )
    )
    return _figure(picture, "\n".join(f"{name}: {answer}" for name, answer in prediction.tasks.items()), shown, labels)


def _channel(origin: Origin, channel: int) -> NDArray[Any]:
    """(Z, Y, X)."""
    case = open_case(origin.image, origin.spacing_mm, origin.predictor.model.plans)
    if not 0 <= channel < case.num_channels:
        raise SettingsError(f"channel: expected 0 to {case.num_channels - 1}, got {channel}")
    voxels: NDArray[Any] = case.read()[channel]
    return voxels


def _mask(prediction: Prediction, name: str | None) -> NDArray[np.integer[Any]]:
    if not prediction.masks and name is None:
        return prediction.segmentation
    wanted = next(iter(prediction.masks)) if name is None else name
    if wanted not in prediction.masks:
        raise SettingsError(f"mask: expected one of {list(prediction.masks)}, got {wanted!r}")
    return prediction.masks[wanted]


def _labels(origin: Origin) -> dict[str, int]:
    """Names of values; regions of several values have none that a picture could show, their values are numbered."""
    codes, declared = origin.predictor.mask_codes, origin.predictor.model.dataset_json["labels"]
    named = dict(codes.labels if codes else declared)
    return {name: value for name, value in named.items() if isinstance(value, int)}


def _figure(picture: NDArray[np.uint8], title: str, mask: NDArray[np.integer[Any]], labels: Mapping[str, int]) -> Figure:
    height, width = (length / _PIXELS_PER_INCH for length in picture.shape[:2])
    figure = Figure(figsize=(max(width, 4), height + 0.4 + 0.2 * title.count("\n")), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(picture)
    axes.set_axis_off()
    axes.set_title(title, fontsize="small", loc="left", parse_math=False)
    found = {name: value for name, value in labels.items() if value and (mask == value).any()}
    colours = {name: colour for name, colour in legend(labels) if name in found}
    if colours:
        patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
        figure.legend(handles=patches, loc="outside lower left", ncols=4, fontsize="small", frameon=False)
    return figure
