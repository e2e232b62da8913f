"""Checksums kept beside a file, right at any moment at which a process may be killed."""

from __future__ import annotations

from pathlib import Path

from nnduet.io.files import file_digest, write_text_atomically

__all__ = ["is_whole", "sums_of", "write_sums", "written_digest"]


def sums_of(path: Path) -> Path:
    """Where the checksums of a file are kept: ``<name>.sha256`` beside it."""
    return path.with_name(f"{path.name}.sha256")


def write_sums(path: Path, digest: str) -> None:
    """Before ``path`` is replaced by bytes of that SHA-256: write the digest beside it, and those that were right until now.

    All are right while a process may be killed before the replacement; each such kill in a row puts the one that still holds
    further down, and the last eight are kept.
    """
    sums = sums_of(path)
    before = sums.read_text(encoding="utf-8").split() if sums.is_file() else [file_digest(path)] if path.is_file() else []
    write_text_atomically(sums, "".join(f"{line}\n" for line in [digest, *before][:8]))


def is_whole(path: Path) -> bool:
    """Whether a file has the bytes that were written; True for one without checksums, False for one that is missing."""
    return path.is_file() and (not sums_of(path).is_file() or written_digest(path) is not None)


def written_digest(path: Path) -> str | None:
    """SHA-256 of a file that has the bytes that were written; None for other bytes, or without checksums."""
    sums = sums_of(path)
    digest = file_digest(path) if sums.is_file() else None
    return digest if digest and digest in sums.read_text(encoding="utf-8").split() else None
