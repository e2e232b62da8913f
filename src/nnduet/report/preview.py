"""The picture of ``nnduet preview``: a PNG drawn from files, which replaces none that this did not draw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.inference.outlines import PLANES, check_settings, label_colour, render_overlay
from nnduet.io.files import write_bytes_atomically
from nnduet.io.images import check_same_geometry, read_image, read_segmentation

__all__ = ["preview_files"]

_NOTE, _MAKER = "Software", "nnduet preview"


def preview_files(
    image: Path,
    prediction: Path,
    output: Path,
    *,
    reference: Path | None = None,
    planes: Sequence[str] = PLANES[:1],
    size: int = 320,
    margin_mm: float | None = 20.0,
) -> dict[str, Any]:
    """Draw files as :func:`~nnduet.inference.outlines.render_overlay` does and write ``output``, a PNG, atomically.

    Missing folders are made. An image or mask is never overwritten, nor another picture that this did not draw.

    Returns:
        ``output``, ``width`` and ``height`` in pixels, and ``colours``, {label in a mask: "#rrggbb"}.

    Raises:
        GeometryError: a mask lies on another grid than the image; with both headers.
        UnreadableFileError, CorruptFileError, AmbiguousFileError, TooLargeError, LabelError: a file cannot be used.
        SettingsError: ``output`` does not end in .png, or as :func:`~nnduet.inference.outlines.render_overlay`.
        OutputExistsError: there is a file at ``output`` that is no preview.
    """
    if output.suffix.lower() != ".png":
        raise SettingsError(f"output: expected a name that ends in .png, got {output}")
    check_settings(planes, size, margin_mm)
    _check_own_picture(output)
    shown, masks = read_image(image), {"mask": prediction} | ({"reference": reference} if reference else {})
    geometry = shown.geometry
    arrays = []
    for what, path in masks.items():
        mask, _ = read_segmentation(path)
        check_same_geometry(geometry, mask.geometry, image.name, f"{what} {path}")
        arrays.append(mask.array)
    picture = render_overlay(
        shown.array,
        *arrays,
        spacing_mm=geometry.spacing_mm,
        direction=geometry.direction,
        size=size,
        planes=planes,
        margin_mm=margin_mm,
    )
    write_bytes_atomically(output, _png(picture))
    found = sorted({int(value) for array in arrays for value in np.unique(array)} - {0})
    colours = {str(value): label_colour(value, None) for value in found}
    return {"output": str(output), "width": picture.width, "height": picture.height, "colours": colours}


def _png(picture: Image.Image) -> bytes:
    """The file, with a note of who drew it."""
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text(_NOTE, _MAKER)
    picture.save(buffer, format="PNG", pnginfo=note)
    return buffer.getvalue()


def _check_own_picture(path: Path) -> None:
    """Refuse to replace what this did not draw; a link is replaced, what it leads to stays."""
    if not path.exists():
        return
    try:
        with Image.open(path) as picture:
            own = picture.info.get(_NOTE) == _MAKER
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        own = False
    if not own:
        raise OutputExistsError(f"{path}: `{_MAKER}` did not draw this and does not replace it; choose another name with -o")
