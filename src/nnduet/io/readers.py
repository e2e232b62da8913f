"""The protocol of image formats: what every reader says, reads and writes, and what is known of an image from its header."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.io.geometry import Geometry

__all__ = ["FIRST_BYTES", "ImageHeader", "Reader", "Voxels"]

Voxels = npt.NDArray[Any]
"""(C, Z, Y, X), native integers or float32."""

FIRST_BYTES = 4096
"""So many bytes of a file a reader is shown to recognise it by."""


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image from its header.

    ``notes`` tells what was chosen where the file contradicts itself; ``is_canonical`` is False where other readers might
    choose otherwise, so that the file should be rewritten before they see it. ``is_plain`` means stored values are the values.
    ``num_channels`` are values per voxel in this one file.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()
    is_canonical: bool = True
    is_plain: bool = True
    num_channels: int = 1


@dataclass(frozen=True)
class Reader(ABC):
    """A format of images: a frozen object without state, listed in :data:`nnduet.io.formats.READERS`.

    What holds for files of every format (presence, rivals, emptiness, Git LFS) is checked before a reader sees them, by
    ``images``. Voxels are (C, Z, Y, X), masks have C = 1, pictures Z = 1.

    Attributes:
        name: as messages call the format, e.g. "NIfTI".
        endings: of file names, lower case, with the leading dot; no ending belongs to two formats that look alike.
        dataset_ending: the one that converted datasets, and masks of models trained on them, have.
    """

    name: str
    endings: tuple[str, ...]
    dataset_ending: str

    @abstractmethod
    def recognises(self, first_bytes: bytes, path: Path) -> bool:
        """Whether a file that begins with these bytes (up to :data:`FIRST_BYTES`) is of this format, whatever its name."""

    @abstractmethod
    def read_header(self, path: Path, max_bytes: int) -> ImageHeader:
        """What the header promises; what follows it stays unchecked. Raises as :meth:`check`."""

    @abstractmethod
    def check(self, path: Path, max_bytes: int) -> ImageHeader:
        """Check a file from first to last byte in bounded memory.

        Raises:
            UnreadableFileError: another format, or a kind of this one that is not read.
            CorruptFileError: bytes are missing, changed or too many, or values are not finite.
            TooLargeError: the voxels would need more than ``max_bytes``.
            GeometryError: an impossible grid.
        """

    @abstractmethod
    def read(self, path: Path, max_bytes: int) -> tuple[ImageHeader, Voxels]:
        """Header and voxels after the checks of :meth:`check`: native integers where unscaled, else float32."""

    @abstractmethod
    def encode(self, path: Path, voxels: Voxels, geometry: Geometry) -> bytes:
        """The bytes of a file of that name; the same input gives the same bytes.

        Raises:
            GeometryError: the format cannot hold such voxels on such a grid.
        """

    def read_values(self, path: Path, max_bytes: int) -> tuple[ImageHeader, Voxels]:
        """As :meth:`read`, for masks: the values that stand in the file, where a format shows others (palettes, few bits)."""
        return self.read(path, max_bytes)

    def rivals(self, path: Path) -> tuple[Path, ...]:
        """Names beside ``path`` that some library would open in its place; none as a rule."""
        return ()
