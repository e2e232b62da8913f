from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_builders import png
from PIL import Image as PillowImage

from nnduet.errors import CorruptFileError, GeometryError, TooLargeError, UnreadableFileError
from nnduet.io.geometry import Geometry
from nnduet.io.png import PNG

LIMIT = 10**6
GREY = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def file_of(path: Path, width: int, height: int, *chunks: bytes) -> Path:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_png_cut_anywhere_is_corrupt(tmp_path: Path, keep: float) -> None:
    path = png(tmp_path / "a.png", GREY)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CorruptFileError, match=r"a\.png"):
        PNG.read(path, LIMIT)


def test_a_flipped_bit_is_corrupt(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", GREY)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"checksum|damaged"):
        PNG.read(path, LIMIT)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_only_grey_of_8_or_16_bits_is_taken(tmp_path: Path, mode: str) -> None:
    PillowImage.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(UnreadableFileError, match="convert it to greyscale"):
        PNG.read(tmp_path / "a.png", LIMIT)


def test_text_and_animations_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text, text, text")
    with pytest.raises(UnreadableFileError, match="signature"):
        PNG.read(tmp_path / "a.png", LIMIT)
    with pytest.raises(UnreadableFileError, match="animated"):
        PNG.read(file_of(tmp_path / "b.png", 1, 1, chunk(b"acTL", bytes(8))), LIMIT)


def test_impossible_headers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match="60000x60000"):
        PNG.read(file_of(tmp_path / "a.png", 60000, 60000), LIMIT)
    with pytest.raises(GeometryError, match="0x5"):
        PNG.read(file_of(tmp_path / "a.png", 5, 0), LIMIT)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""))
    with pytest.raises(CorruptFileError, match="header chunk"):
        PNG.read(tmp_path / "a.png", LIMIT)


@pytest.mark.parametrize("pixels", [bytes(5), bytes(19), bytes(21), bytes(10**6)])
def test_too_few_or_too_many_pixels_under_right_checksums_are_corrupt(tmp_path: Path, pixels: bytes) -> None:
    assert PNG.check(file_of(tmp_path / "a.png", 4, 4, chunk(b"IDAT", zlib.compress(bytes(20)))), LIMIT).geometry.shape == (
        1,
        4,
        4,
    )
    with pytest.raises(CorruptFileError, match="do not fill 4x4"):
        PNG.check(file_of(tmp_path / "a.png", 4, 4, chunk(b"IDAT", zlib.compress(pixels))), LIMIT)


def test_a_stream_that_is_no_zlib_and_a_wrong_filter_are_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="damaged"):
        PNG.check(file_of(tmp_path / "a.png", 4, 4, chunk(b"IDAT", b"no zlib stream")), LIMIT)
    with pytest.raises(CorruptFileError, match="decoded"):
        PNG.read(file_of(tmp_path / "a.png", 4, 4, chunk(b"IDAT", zlib.compress(b"\x09" * 20))), LIMIT)


def test_an_interlaced_png_is_refused(tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 1))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header)
    with pytest.raises(UnreadableFileError, match="interlaced"):
        PNG.check(tmp_path / "a.png", LIMIT)


def test_only_one_slice_of_small_integers_can_be_written() -> None:
    for array in (np.zeros((2, 5, 6), np.uint8), np.zeros((1, 5, 6), np.float32)):
        with pytest.raises(GeometryError):
            PNG.encode(Path("a.png"), array[None], Geometry(array.shape))
