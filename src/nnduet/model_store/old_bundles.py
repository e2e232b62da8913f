"""Bundles of the first layout, which earlier versions wrote: a zip of safetensors and JSON, with a manifest of checksums.

They are read as before, and never written. Before anything in one is parsed, the list of its entries must be what a bundle
holds (known names, stored without compression, sizes that add up to no more than the file), every entry must have the size and
SHA-256 that the manifest says, and the file must have the bytes that a zip of these entries has: not one more.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from nnduet.errors import CorruptFileError, ModelError
from nnduet.model_store.bundle_content import (
    MOST_TEXT_BYTES,
    TEXTS,
    BundleContent,
    check_format,
    load_tensors,
    with_other_names,
)
from nnduet.records import convert_json, parse_json

__all__ = ["is_old_bundle", "read_old_bundle"]

VERSION = 1
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
_NAMES = re.compile(rf"{re.escape(MANIFEST)}|{TEXTS.pattern}|fold_(?:\d{{1,3}}|all)/{re.escape(WEIGHTS)}")
MOST_ENTRIES = 1000
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, struct.error)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
"""The system that a zip says it was written on."""


def is_old_bundle(content: bytes) -> bool:
    """Whether a file begins as a zip does, and not, by chance, as safetensors: with the brace of a header as its ninth byte."""
    return content.startswith(b"PK\x03\x04") and content[8:9] != b"{"


def read_old_bundle(content: bytes, path: Path) -> BundleContent:
    """The content of a bundle of the first layout.

    Args:
        path: what messages call it.

    Raises:
        ModelError: it is no bundle, or one with entries that a bundle does not have.
        CorruptFileError: bytes are missing or changed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_entries(archive.infolist(), len(content), path)
            entries = {name: archive.read(name) for name in archive.namelist()}
    except _UNREADABLE as error:
        raise CorruptFileError(f"{path}: expected a bundle that `nnduet export` wrote: {error}") from error
    manifest = _read_manifest(entries.get(MANIFEST, b""), path)
    _check_contents(manifest.files, {name: entry for name, entry in entries.items() if name != MANIFEST}, path)
    if _zipped(entries) != content:
        raise CorruptFileError(f"{path}: bytes between or behind its files are changed; get the file again")
    weights = {}
    for name in (name for name in entries if name.endswith(WEIGHTS)):
        place = f"{path}: {name}"
        tensors = load_tensors(entries[name], place)
        weights[name.split("/")[0].removeprefix("fold_")] = with_other_names(tensors, manifest.aliases.get(name, {}), place)
    texts = {name: entry for name, entry in entries.items() if TEXTS.fullmatch(name)}
    return BundleContent(manifest.configuration, tuple(manifest.mirror_axes), weights, texts)


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int, path: Path) -> None:
    """Refuse what no bundle holds before any of it is read."""
    names = [entry.filename for entry in entries]
    if len(names) > MOST_ENTRIES or len(set(names)) < len(names):
        raise ModelError(f"{path}: expected at most {MOST_ENTRIES} entries with different names, got {len(names)}")
    for entry in entries:
        if not _NAMES.fullmatch(entry.filename):
            raise ModelError(f"{path}: expected the files of a model, got an entry {entry.filename[:80]!r}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ModelError(f"{path}: entry {entry.filename} is a link")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ModelError(f"{path}: entry {entry.filename} is compressed or encrypted; bundles store their files")
        if not entry.filename.endswith(WEIGHTS) and entry.file_size > MOST_TEXT_BYTES:
            raise ModelError(f"{path}: entry {entry.filename} has {entry.file_size} bytes, more than {MOST_TEXT_BYTES}")
    promised = sum(entry.file_size for entry in entries)
    if promised > size:
        raise CorruptFileError(f"{path}: its entries promise {promised} bytes, the file has {size}")


@dataclass(frozen=True)
class _Entry:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    configuration: str
    mirror_axes: list[Annotated[int, Meta(ge=0, le=2)]]
    aliases: dict[str, dict[str, str]]
    files: dict[str, _Entry]


def _read_manifest(content: bytes, path: Path) -> _Manifest:
    """The manifest with the types that its readers expect."""
    place = f"{path}: {MANIFEST}"
    found: Any = parse_json(content, place, error=ModelError)
    check_format(found, VERSION, path)
    return convert_json(found, _Manifest, place, error=ModelError)


def _check_contents(files: Mapping[str, _Entry], entries: Mapping[str, bytes], path: Path) -> None:
    if set(files) != set(entries):
        differing = sorted(set(files) ^ set(entries))[:5]
        raise CorruptFileError(f"{path}: manifest and entries differ in {differing}")
    for name, entry in entries.items():
        if files[name].bytes != len(entry) or files[name].sha256 != hashlib.sha256(entry).hexdigest():
            raise CorruptFileError(f"{path}: {name} is not what the manifest says; get the file again")


def _zipped(entries: Mapping[str, bytes]) -> bytes:
    """The one zip of these entries that a bundle was."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, entry in entries.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = _UNIX
            archive.writestr(info, entry)
    return written.getvalue()
