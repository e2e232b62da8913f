"""The formats of images that are read and written: one entry each, and the one place that takes endings off file names."""

from __future__ import annotations

from pathlib import Path

from nnduet.errors import UnreadableFileError
from nnduet.io.nifti import NIFTI
from nnduet.io.png import PNG
from nnduet.io.readers import Reader

__all__ = [
    "READERS",
    "file_ending",
    "image_endings",
    "is_image_name",
    "listed_endings",
    "reader_of",
    "readers_named",
    "split_ending",
]

READERS: tuple[Reader, ...] = (NIFTI, PNG)
"""A format is added here, and by the file with its reader; nothing else names formats."""


def image_endings() -> tuple[str, ...]:
    """The endings of all formats, in their order."""
    return tuple(ending for reader in READERS for ending in reader.endings)


def listed_endings() -> str:
    """The endings for messages, e.g. ".nii.gz, .nii or .png"."""
    *others, last = image_endings()
    return f"{', '.join(others)} or {last}"


def split_ending(name: str) -> tuple[str, str]:
    """A file name without its ending, and the ending as it stands there, in any case; an empty one for other files."""
    matches = [ending for ending in image_endings() if name.lower().endswith(ending)]
    length = max(map(len, matches), default=0)
    return name[: len(name) - length], name[len(name) - length :]


def is_image_name(name: str) -> bool:
    """Whether a file of that name should be an image."""
    return bool(split_ending(name)[1])


def readers_named(name: str) -> tuple[Reader, ...]:
    """The formats that have the ending of a name, or that ending; none for other files."""
    ending = split_ending(name)[1].lower()
    return tuple(reader for reader in READERS if ending in reader.endings)


def file_ending(path: Path) -> str:
    """The ending of an image in lower case, e.g. ``.nii.gz``.

    Raises:
        UnreadableFileError: the name ends otherwise.
    """
    ending = split_ending(path.name)[1].lower()
    if not ending:
        known = ", ".join(image_endings())
        raise UnreadableFileError(f"{path}: expected a file name ending in {known}", remedy=f"save the image as one of {known}")
    return ending


def reader_of(path: Path, first_bytes: bytes = b"") -> Reader:
    """Of the formats with this ending the one that recognises the bytes; else the first, whose checks say what is wrong.

    Raises:
        UnreadableFileError: no format has the ending.
    """
    file_ending(path)
    readers = readers_named(path.name)
    return next((reader for reader in readers if reader.recognises(first_bytes, path)), readers[0])
