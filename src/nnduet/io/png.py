"""PNG files: guarded readers of grey images and of the values of masks, and deterministic encoding.

Pillow reads headers and pixels. It verifies neither the last chunk nor the number of rows: a file that ends early gives black
rows without an error. So the chunks are walked here first, their checksums verified and the bytes of the pixels counted.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngStream

from nnduet.errors import CorruptFileError, GeometryError, TooLargeError, UnreadableFileError
from nnduet.io.geometry import Geometry
from nnduet.io.readers import ImageHeader, Reader, Voxels

__all__ = ["PNG"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = 13
_GREY_BITS = {"1": 1, "L;2": 2, "L;4": 4, "L": 8, "I;16B": 16}
_PALETTE_BITS = {"P;1": 1, "P;2": 2, "P;4": 4, "P": 8}
_COLOURS = {"RGB": "RGB", "LA": "grey with alpha", "RGBA": "RGBA"}
"""What Pillow calls the layout of a file's pixels (``PngStream.im_rawmode``), up to the semicolon of 16 bits."""
_SPREAD = {2: 85, 4: 17}
"""Pillow spreads few grey bits over 0 to 255."""
_SAVE_AGAIN = "save the picture as the message says, then run the same command again"


@dataclass(frozen=True)
class PngReader(Reader):
    """PNG of one grey value per pixel, 8 or 16 bits; as a mask also the numbers of a palette's colours, or fewer bits."""

    def recognises(self, first_bytes: bytes, path: Path) -> bool:
        return first_bytes.startswith(_SIGNATURE)

    def read_header(self, path: Path, max_bytes: int) -> ImageHeader:
        with path.open("rb") as stream:
            return _described(_plain_grey(_read_header(stream, path, max_bytes), path))

    def check(self, path: Path, max_bytes: int) -> ImageHeader:
        """Walk all chunks, verify their checksums and count the pixel bytes, in bounded memory."""
        return _described(_plain_grey(_check(path, max_bytes), path))

    def read(self, path: Path, max_bytes: int) -> tuple[ImageHeader, Voxels]:
        header = self.check(path, max_bytes)
        return header, _pixels(path, header.dtype)

    def read_values(self, path: Path, max_bytes: int) -> tuple[ImageHeader, Voxels]:
        """The values that stand in the file: of a palette the numbers of its colours, of 1, 2 and 4 bits 0 to 1, 3 and 15.

        Such files are not canonical, for nnU-Net reads colours of them.
        """
        png = _check(path, max_bytes)
        header = replace(_described(png), is_canonical=png.bits >= 8 and not png.has_palette)
        values = _pixels(path, header.dtype)
        return header, values if png.has_palette else values // _SPREAD.get(png.bits, 1)

    def encode(self, path: Path, voxels: Voxels, geometry: Geometry) -> bytes:
        if voxels.shape[:2] != (1, 1) or voxels.dtype not in (np.uint8, np.uint16):
            raise GeometryError(f"a PNG holds (1, Y, X) of uint8 or uint16, got {voxels.shape[1:]} of {voxels.dtype}")
        buffer = io.BytesIO()
        PillowImage.fromarray(np.ascontiguousarray(voxels[0, 0])).save(buffer, format="PNG")
        return buffer.getvalue()


PNG = PngReader("PNG", (".png",), ".png")


@dataclass(frozen=True)
class _Png:
    """Size and depth of a PNG with one value per pixel: grey, or the number of a colour in a palette."""

    height: int
    width: int
    bits: int
    has_palette: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, without its filter."""
        return (self.width * self.bits + 7) // 8


def _described(png: _Png) -> ImageHeader:
    return ImageHeader(Geometry((1, png.height, png.width)), np.dtype(np.uint16 if png.bits == 16 else np.uint8))


def _plain_grey(png: _Png, path: Path) -> _Png:
    if png.has_palette or png.bits < 8:
        kind = "palette" if png.has_palette else f"{png.bits}-bit grey"
        raise UnreadableFileError(f"{path}: expected an 8- or 16-bit greyscale PNG, got {kind}; convert it to greyscale")
    return png


def _check(path: Path, max_bytes: int) -> _Png:
    with path.open("rb") as stream:
        header, kind = _read_header(stream, path, max_bytes), b"IHDR"
        counter = _PixelCounter(header.height * (1 + header.row_bytes))
        while kind != b"IEND":
            kind = _walk_chunk(stream, path, counter.feed)
            if kind == b"acTL":
                raise UnreadableFileError(f"{path}: an animated PNG; save one frame", remedy=_SAVE_AGAIN)
    if not counter.is_complete:
        raise CorruptFileError(f"{path}: the pixels do not fill {header.height}x{header.width}")
    return header


def _read_header(stream: IO[bytes], path: Path, max_bytes: int) -> _Png:
    """By Pillow's parser of chunks rather than ``Image.open``, which gives no size for pictures that it finds too large."""
    if stream.read(len(_SIGNATURE)) != _SIGNATURE:
        raise UnreadableFileError(f"{path}: no PNG signature")
    chunks = PngStream(stream)
    try:
        kind, position, length = chunks.read()
        if kind != b"IHDR" or length != _HEADER_BYTES:
            raise CorruptFileError(f"{path}: expected a PNG header chunk, got {kind!r}")
        chunks.crc(kind, chunks.call(kind, position, length))
    except struct.error as error:
        raise CorruptFileError(f"{path}: the PNG is cut off") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptFileError(f"{path}: expected a PNG header chunk: {error}") from error
    return _understood(chunks, path, max_bytes)


def _understood(chunks: PngStream, path: Path, max_bytes: int) -> _Png:
    layout, (width, height) = chunks.im_rawmode or "", chunks.im_size
    bits = _GREY_BITS.get(layout) or _PALETTE_BITS.get(layout)
    if bits is None:
        kind = _COLOURS.get(layout.partition(";")[0], "an unknown kind of pixels")
        raise UnreadableFileError(
            f"{path}: expected an 8- or 16-bit greyscale PNG, got {kind}; convert it to greyscale", remedy=_SAVE_AGAIN
        )
    if "interlace" in chunks.im_info:
        raise UnreadableFileError(f"{path}: an interlaced PNG; save it without interlacing", remedy=_SAVE_AGAIN)
    if min(width, height) == 0:
        raise GeometryError(f"{path}: PNG of {height}x{width} pixels")
    if height * width * bits // 8 > max_bytes:
        raise TooLargeError(f"{path}: the header promises {height}x{width} pixels of {bits} bits; the limit is {max_bytes}")
    return _Png(height, width, bits, layout in _PALETTE_BITS)


class _PixelCounter:
    """Decompresses pixel data only to count it."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self._stream = zlib.decompressobj()

    def feed(self, block: bytes) -> None:
        """Count the bytes that this piece of the stream holds; no more than one beyond the promise are ever made."""
        while block and self._left >= 0:
            self._left -= len(self._stream.decompress(block, min(self._left + 1, 1 << 20)))
            block = self._stream.unconsumed_tail

    @property
    def is_complete(self) -> bool:
        """Whether exactly the expected number of bytes came, and the stream's own checksum after them."""
        return self._left == 0 and self._stream.eof


def _walk_chunk(stream: IO[bytes], path: Path, feed: Callable[[bytes], None]) -> bytes:
    """Type of the next chunk, its checksum verified; pixel data is fed to ``feed`` block by block."""
    left, kind = struct.unpack(">I4s", _exactly(stream, 8, path))
    checksum = zlib.crc32(kind)
    while left:
        block = _exactly(stream, min(left, 1 << 20), path)
        checksum, left = zlib.crc32(block, checksum), left - len(block)
        if kind == b"IDAT":
            _feed(block, path, feed)
    if struct.pack(">I", checksum) != _exactly(stream, 4, path):
        raise CorruptFileError(f"{path}: PNG chunk {kind!r} has a wrong checksum")
    return bytes(kind)


def _feed(block: bytes, path: Path, feed: Callable[[bytes], None]) -> None:
    try:
        feed(block)
    except zlib.error as error:
        raise CorruptFileError(f"{path}: the pixel stream is damaged: {error}") from error


def _exactly(stream: IO[bytes], size: int, path: Path) -> bytes:
    block = stream.read(size)
    if len(block) < size:
        raise CorruptFileError(f"{path}: the PNG is cut off")
    return block


def _pixels(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """(1, 1, Y, X)."""
    try:
        with PillowImage.open(path) as image:
            return np.array(image, dtype=dtype)[None, None]
    except PillowImage.DecompressionBombError as error:
        raise TooLargeError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptFileError(f"{path}: the pixels cannot be decoded: {error}") from error
