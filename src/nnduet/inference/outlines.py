"""Pictures of a case: a slice of the image with the outlines of prediction and reference.

The prediction is a translucent fill with a solid line in the colour of its label, just inside its border. The reference is a
double line, white inside and black outside, just outside its border, so that both stay visible where they agree and can be
told apart without seeing colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor
from scipy.ndimage import maximum_filter, minimum_filter

from nnduet.errors import GeometryError, LabelError, SettingsError

__all__ = ["PALETTE", "PLANES", "check_settings", "label_colour", "legend", "render_overlay"]

PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Colours that people with any common colour blindness can tell apart, without the black one.

Source: Okabe and Ito, Color Universal Design (2008); the table in Wong, Nature Methods 8 (2011), 441.
"""

PLANES = ("axial", "coronal", "sagittal")
"""Planes by the axis of (Z, Y, X) that they cut."""

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_WINDOW_PERCENTILES = (0.5, 99.5)
_MID_GREY = 128
_FILL = 0.35  # share of the label's colour
_GAP = 4  # pixels between planes
_LONGEST_BY_HEIGHT = 3  # a flat plane is made lower instead of wider
_SIZES = (32, 4096)

Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]


def legend(labels: Mapping[str, int]) -> list[tuple[str, str]]:
    """Name and ``#rrggbb`` of every label above 0, ascending by value; no labels, or only the background, give an empty list.

    The colours are those of :func:`render_overlay` with the same ``labels``; an eighth label has the colour of the first.
    """
    return [
        (name, label_colour(value, labels)) for name, value in sorted(labels.items(), key=lambda item: item[1]) if value > 0
    ]


def label_colour(value: int, labels: Mapping[str, int] | None) -> str:
    """By place among the declared labels; an undeclared label as if all labels up to it were declared."""
    declared = sorted({number for number in (labels or {}).values() if number > 0})
    place = declared.index(value) if value in declared else value - 1
    return PALETTE[place % len(PALETTE)]


def render_overlay(
    image: npt.NDArray[Any],
    prediction: npt.NDArray[Any] | None,
    reference: npt.NDArray[Any] | None = None,
    *,
    spacing_mm: tuple[float, float, float],
    direction: Sequence[float] = _IDENTITY,
    labels: Mapping[str, int] | None = None,
    size: int = 320,
    planes: Sequence[str] = ("axial",),
    margin_mm: float | None = 20.0,
) -> Image.Image:
    """Draw the slice of each plane with most foreground of the reference, else of the prediction, else the middle one.

    Grey values are the shown part's 0.5th to 99.5th percentile, its minimum to maximum where these are equal, mid grey where
    the part is constant; values that are not finite are black. Masks are shown voxel by voxel, images interpolated linearly.
    The same input gives the same pixels.

    Args:
        image: (Z, Y, X) of any real dtype. A single slice (1, Y, X) is drawn as stored, whatever ``planes`` and ``direction``.
        prediction: integers (Z, Y, X), 0 for background; None or an empty mask draws nothing.
        reference: the same.
        spacing_mm: (Z, Y, X); pixels of the picture are square in millimetres.
        direction: nine cosines as in :class:`nnduet.io.geometry.Geometry`. Volumes are turned by whole axes, so that anterior
            (axial) or superior (others) is above, and the patient's right, or anterior (sagittal), on the left.
        labels: {name: value}, for the colours, see :func:`legend`.
        size: height of the picture in pixels.
        planes: of PLANES, from left to right. A plane over three times as wide as high is drawn lower, centred on black.
        margin_mm: what is shown around the foreground of the slice; None, or a slice without foreground, shows all of it.

    Returns:
        RGB picture, ``size`` pixels high.

    Raises:
        GeometryError: the image is not (Z, Y, X) or empty, a mask has another shape, or a spacing is not above 0.
        LabelError: a mask is not of integers.
        SettingsError: unknown or no planes, a size outside 32 to 4096, or a negative margin.
    """
    _check(image, {"prediction": prediction, "reference": reference}, spacing_mm)
    check_settings(planes, size, margin_mm)
    masks = (np.zeros(image.shape, np.uint8) if mask is None else mask for mask in (prediction, reference))
    volumes = [image, *masks]
    if image.shape[0] == 1:
        planes = PLANES[:1]
    else:
        axes, flips, spacing_mm = _towards_lps(direction, spacing_mm)
        volumes = [np.flip(volume.transpose(axes), flips) for volume in volumes]
    panels = [_panel(_slices(plane, volumes), _pixel_mm(plane, spacing_mm), labels, size, margin_mm) for plane in planes]
    picture = Image.new("RGB", (sum(panel.width + _GAP for panel in panels) - _GAP, size))
    left = 0
    for panel in panels:
        picture.paste(panel, (left, (size - panel.height) // 2))
        left += panel.width + _GAP
    return picture


def _check(
    image: npt.NDArray[Any], masks: Mapping[str, npt.NDArray[Any] | None], spacing_mm: tuple[float, float, float]
) -> None:
    if image.ndim != 3 or not image.size:
        raise GeometryError(f"image: expected (Z, Y, X) with voxels, got shape {image.shape}")
    if len(spacing_mm) != 3 or not all(0 < value < np.inf for value in spacing_mm):
        raise GeometryError(f"spacing_mm: expected three finite numbers above 0, got {spacing_mm}")
    for name, mask in masks.items():
        if mask is not None and mask.shape != image.shape:
            raise GeometryError(f"{name}: expected the shape of the image, {image.shape}, got {mask.shape}")
        if mask is not None and mask.dtype.kind not in "iub":
            raise LabelError(f"{name}: expected integers, got {mask.dtype}")


def check_settings(planes: Sequence[str], size: int, margin_mm: float | None) -> None:
    """Refuse impossible arguments of :func:`render_overlay`.

    Raises:
        SettingsError: unknown or no planes, a size outside 32 to 4096, or a negative margin.
    """
    if not planes or not set(planes) <= set(PLANES):
        raise SettingsError(f"planes: expected some of {', '.join(PLANES)}, got {', '.join(planes) or 'none'}")
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise SettingsError(f"size: expected {_SIZES[0]} to {_SIZES[1]} pixels, got {size}")
    if margin_mm is not None and not 0 <= margin_mm < np.inf:
        raise SettingsError(f"margin_mm: expected a number from 0, got {margin_mm}")


def _towards_lps(
    direction: Sequence[float], spacing_mm: tuple[float, float, float]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, float, float]]:
    """How to transpose and then flip axes (Z, Y, X) for the stored axes to point most to superior, posterior and left."""
    cosines = np.reshape(direction, (3, 3))[::-1, ::-1]  # rows: world Z, Y, X; columns: stored axes Z, Y, X
    axes = max(permutations(range(3)), key=lambda order: sum(abs(cosines[world, axis]) for world, axis in enumerate(order)))
    flips = tuple(world for world, axis in enumerate(axes) if cosines[world, axis] < 0)
    z, y, x = (spacing_mm[axis] for axis in axes)
    return axes, flips, (z, y, x)


def _slices(plane: str, volumes: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The shown slices (H, W) of image, prediction and reference; of coronal and sagittal ones the top row is superior."""
    axis = PLANES.index(plane)
    prediction, reference = (np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})) for mask in volumes[1:])
    counts = reference if np.any(reference) else prediction
    index = int(np.argmax(counts)) if np.any(counts) else volumes[0].shape[axis] // 2
    slices = [np.take(volume, index, axis=axis) for volume in volumes]
    return slices if plane == "axial" else [part[::-1] for part in slices]


def _pixel_mm(plane: str, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    height, width = (spacing for axis, spacing in enumerate(spacing_mm) if axis != PLANES.index(plane))
    return height, width


def _panel(
    slices: Sequence[npt.NDArray[Any]],
    pixel_mm: tuple[float, float],
    labels: Mapping[str, int] | None,
    size: int,
    margin_mm: float | None,
) -> Image.Image:
    """Draw one plane from its slices (H, W) of image, prediction and reference."""
    window = _crop((slices[1] != 0) | (slices[2] != 0), pixel_mm, margin_mm)
    grey, prediction, reference = (part[window] for part in slices)
    height_mm, width_mm = (number * mm for number, mm in zip(grey.shape, pixel_mm, strict=True))
    pixels_per_mm = min(size / height_mm, _LONGEST_BY_HEIGHT * size / width_mm)
    height, width = (max(1, round(length * pixels_per_mm)) for length in (height_mm, width_mm))
    shown = Image.fromarray(_windowed(grey)).resize((width, height), Image.Resampling.BILINEAR)
    canvas = np.repeat(np.asarray(shown, dtype=np.float32)[..., None], 3, axis=2)
    line = max(1, round(size / 200))
    predicted = _enlarged(prediction, height, width)
    colours = _coloured(predicted, labels)
    inside = predicted > 0
    canvas[inside] = (1 - _FILL) * canvas[inside] + _FILL * colours[inside]
    _draw_reference(canvas, _enlarged(reference, height, width), line)
    border = inside & _is_border(predicted, line)
    canvas[border] = colours[border]
    return Image.fromarray(np.rint(canvas).astype(np.uint8))


def _crop(foreground: npt.NDArray[np.bool_], pixel_mm: tuple[float, float], margin_mm: float | None) -> tuple[slice, slice]:
    if margin_mm is None or not foreground.any():
        return slice(None), slice(None)
    rows, columns = np.nonzero(foreground)
    return _span(rows, margin_mm / pixel_mm[0]), _span(columns, margin_mm / pixel_mm[1])


def _span(occupied: npt.NDArray[np.intp], margin: float) -> slice:
    around = int(np.ceil(margin))
    return slice(max(0, int(occupied.min()) - around), int(occupied.max()) + 1 + around)


def _windowed(values: npt.NDArray[Any]) -> Pixels:
    """Grey values (H, W) from 0 to 255."""
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size or finite.min() == finite.max():
        return (_MID_GREY * np.isfinite(numbers)).astype(np.float32)
    low, high = np.percentile(finite, _WINDOW_PERCENTILES)
    if low == high:
        low, high = finite.min(), finite.max()
    numbers[~np.isfinite(numbers)] = low
    scaled: Pixels = (255 * np.clip((numbers - low) / (high - low), 0, 1)).astype(np.float32)
    return scaled


def _enlarged(mask: Labels, height: int, width: int) -> Labels:
    """Nearest neighbours, with pixel edges where Pillow's interpolation of the image has them."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip((height, width), mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)].astype(np.int32)


def _draw_reference(canvas: Pixels, mask: Labels, line: int) -> None:
    """A white, then a black line on the lower side of every border; the background is the lowest label."""
    near, far = (maximum_filter(mask, size=2 * width + 1) > mask for width in (line, 2 * line))
    canvas[far] = 0
    canvas[near] = 255


def _is_border(mask: Labels, line: int) -> npt.NDArray[np.bool_]:
    """Pixels within ``line`` of another label."""
    width = 2 * line + 1
    border: npt.NDArray[np.bool_] = (maximum_filter(mask, size=width) != mask) | (minimum_filter(mask, size=width) != mask)
    return border


def _coloured(mask: Labels, labels: Mapping[str, int] | None) -> Pixels:
    """The colour of each pixel's label (H, W, 3), black for the background."""
    colours = np.zeros((*mask.shape, 3), dtype=np.float32)
    for value in np.unique(mask[mask > 0]).tolist():
        colours[mask == value] = ImageColor.getrgb(label_colour(value, labels))
    return colours
