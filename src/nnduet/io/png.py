"""PNG files: guarded readers of grey images and of the values of masks, and deterministic encoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from nnduet.errors import CorruptFileError, GeometryError, TooLargeError, UnreadableFileError

__all__ = ["PngHeader", "check_png", "encode_png", "read_png", "read_png_header", "read_png_values"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = {2: "RGB", 4: "grey with alpha", 6: "RGBA"}


@dataclass(frozen=True)
class PngHeader:
    """Size and depth of a PNG with one value per pixel: grey, or the number of a colour in a palette."""

    height: int
    width: int
    bits: int
    has_palette: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, without its filter."""
        return (self.width * self.bits + 7) // 8


_SAVE_AGAIN = "save the picture as the message says, then run the same command again"


def read_png_header(path: Path, max_bytes: int) -> PngHeader:
    """The header alone; what follows it stays unchecked. Raises as :func:`check_png`."""
    with path.open("rb") as stream:
        return _plain_grey(_read_header(stream, path, max_bytes), path)


def check_png(path: Path, max_bytes: int) -> PngHeader:
    """Walk all chunks, verify their checksums and count the pixel bytes, in bounded memory.

    Pillow does neither for the last chunk and the last rows: a file that ends early gives black rows without an error.

    Raises:
        UnreadableFileError: no PNG, or not one grey channel of 8 or 16 bits, or interlaced or animated.
        CorruptFileError: a chunk is cut, its checksum wrong, or there are fewer or more pixels than promised.
        TooLargeError: the pixels would need more than ``max_bytes``.
    """
    return _plain_grey(_check(path, max_bytes), path)


def _check(path: Path, max_bytes: int) -> PngHeader:
    with path.open("rb") as stream:
        header, kind = _read_header(stream, path, max_bytes), b"IHDR"
        counter = _PixelCounter(header.height * (1 + header.row_bytes))
        while kind != b"IEND":
            kind, _ = _chunk(stream, path, counter.feed)
            if kind == b"acTL":
                raise UnreadableFileError(f"{path}: an animated PNG; save one frame", remedy=_SAVE_AGAIN)
    if not counter.is_complete:
        raise CorruptFileError(f"{path}: the pixels do not fill {header.height}x{header.width}")
    return header


def _read_header(stream: IO[bytes], path: Path, max_bytes: int) -> PngHeader:
    if stream.read(8) != _SIGNATURE:
        raise UnreadableFileError(f"{path}: no PNG signature")
    kind, content = _chunk(stream, path, lambda block: None)
    if kind != b"IHDR" or len(content) != 13:
        raise CorruptFileError(f"{path}: expected a PNG header chunk, got {kind!r}")
    return _parse(content, path, max_bytes)


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


def read_png(path: Path, max_bytes: int) -> tuple[PngHeader, npt.NDArray[Any]]:
    """Header and pixels (1, Y, X) as uint8 or uint16. Raises as :func:`check_png`."""
    header = check_png(path, max_bytes)
    return header, _pixels(path, np.uint8 if header.bits == 8 else np.uint16)[None]


def read_png_values(path: Path, max_bytes: int) -> tuple[PngHeader, npt.NDArray[Any]]:
    """Header and the values (1, Y, X) that stand in the file, as uint8 or uint16: of a palette the numbers of its colours, of
    1, 2 and 4 bits 0 to 1, 3 and 15, never a grey that is made of them. Raises as :func:`check_png`, but takes these.
    """
    header = _check(path, max_bytes)
    values = _pixels(path, np.uint16 if header.bits == 16 else np.uint8)[None]
    stretched = {2: 85, 4: 17}.get(header.bits, 1)  # Pillow spreads few grey bits over 0 to 255
    return header, values if header.has_palette else values // stretched


def _pixels(path: Path, dtype: type[np.generic]) -> npt.NDArray[Any]:
    try:
        with PillowImage.open(path) as image:
            return np.array(image, dtype=dtype)
    except PillowImage.DecompressionBombError as error:
        raise TooLargeError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptFileError(f"{path}: the pixels cannot be decoded: {error}") from error


def _plain_grey(header: PngHeader, path: Path) -> PngHeader:
    if header.has_palette or header.bits < 8:
        kind = "palette" if header.has_palette else f"{header.bits}-bit grey"
        raise UnreadableFileError(f"{path}: expected an 8- or 16-bit greyscale PNG, got {kind}; convert it to greyscale")
    return header


def encode_png(array: npt.NDArray[Any]) -> bytes:
    """Bytes of a greyscale PNG of ``array`` (1, Y, X) of uint8 or uint16.

    Raises:
        GeometryError: any other shape or type.
    """
    if array.ndim != 3 or array.shape[0] != 1 or array.dtype not in (np.uint8, np.uint16):
        raise GeometryError(f"a PNG holds (1, Y, X) of uint8 or uint16, got {array.shape} of {array.dtype}")
    buffer = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(array[0])).save(buffer, format="PNG")
    return buffer.getvalue()


def _chunk(stream: IO[bytes], path: Path, feed: Callable[[bytes], None]) -> tuple[bytes, bytes]:
    """Type and first 13 bytes of the next chunk, its checksum verified; pixel data is fed to ``feed`` block by block."""
    length, kind = struct.unpack(">I4s", _exactly(stream, 8, path))
    kept, left, checksum = b"", length, zlib.crc32(kind)
    while left:
        block = _exactly(stream, min(left, 1 << 20), path)
        kept = kept or block[:13]
        checksum, left = zlib.crc32(block, checksum), left - len(block)
        if kind == b"IDAT":
            _feed(block, path, feed)
    if struct.pack(">I", checksum) != _exactly(stream, 4, path):
        raise CorruptFileError(f"{path}: PNG chunk {kind!r} has a wrong checksum")
    return kind, kept


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


def _parse(content: bytes, path: Path, max_bytes: int) -> PngHeader:
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content)
    if colour not in (0, 3) or bits not in (1, 2, 4, 8, 16):
        kind = _KINDS.get(colour, f"{bits}-bit grey")
        raise UnreadableFileError(
            f"{path}: expected an 8- or 16-bit greyscale PNG, got {kind}; convert it to greyscale", remedy=_SAVE_AGAIN
        )
    if interlaced:
        raise UnreadableFileError(f"{path}: an interlaced PNG; save it without interlacing", remedy=_SAVE_AGAIN)
    if min(width, height) == 0:
        raise GeometryError(f"{path}: PNG of {height}x{width} pixels")
    if height * width * bits // 8 > max_bytes:
        raise TooLargeError(f"{path}: the header promises {height}x{width} pixels of {bits} bits; the limit is {max_bytes}")
    return PngHeader(height, width, bits, colour == 3)
