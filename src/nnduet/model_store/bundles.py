"""A model in one file, which may come from anybody: a zip of safetensors weights and JSON with a manifest of checksums.

Nothing in a bundle is unpickled, imported or extracted to the disk. Before anything is parsed, the list of its entries must be
what a bundle holds (known names, stored without compression, sizes that add up to no more than the file), every entry must
have the size and SHA-256 that the manifest says, and what lies between the entries must be what `write_bundle` writes there.
This guards against damage, not against the author; what the JSON says is checked as that of a model folder is.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any, cast

import torch
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load, save

from nnduet.errors import CorruptFileError, ModelError
from nnduet.io.files import replacing
from nnduet.model_store.model_folder import (
    CARD_FILE,
    CASE_HEAD_FILE,
    CONFORMAL_FILE,
    CROSS_VALIDATION_FOLDER,
    ModelFiles,
    ModelSource,
    Origin,
    StoredFold,
    fold_names,
)
from nnduet.records import convert_json, parse_json

__all__ = ["BUNDLE_ENDING", "BundleFiles", "write_bundle"]

BUNDLE_ENDING = ".nnduet"
FORMAT, VERSION = "nnduet model", 1
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
_JSON_NAMES = ("plans.json", "dataset.json", f"{CROSS_VALIDATION_FOLDER}/{CONFORMAL_FILE}")
_NAMES = re.compile(
    "|".join([*map(re.escape, (MANIFEST, CARD_FILE, *_JSON_NAMES)), rf"fold_(?:\d{{1,3}}|all)/(?:{WEIGHTS}|{CASE_HEAD_FILE})"])
)
MOST_ENTRIES = 1000
MOST_JSON_BYTES = 2**26
"""The plans of nnU-Net have tens of kilobytes; fingerprint-sized files tens of megabytes at most."""
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, struct.error)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
"""The system that a zip says it was written on: always the same, so that a model has the same bytes everywhere."""


class BundleFiles:
    """An opened and verified bundle.

    Raises:
        ModelError: it is no bundle, one of a later version, or one with entries that a bundle does not have.
        CorruptFileError: bytes are missing or changed.
    """

    def __init__(self, path: Path) -> None:
        self.place = path
        try:
            with zipfile.ZipFile(path) as archive:
                _check_entries(archive.infolist(), path)
                contents = {name: archive.read(name) for name in archive.namelist()}
        except _UNREADABLE as error:
            raise CorruptFileError(f"{path}: expected a bundle that `nnduet export` wrote: {error}") from error
        self._manifest = _read_manifest(contents.get(MANIFEST, b""), path)
        self._contents = {name: content for name, content in contents.items() if name != MANIFEST}
        _check_contents(self._manifest.files, self._contents, path)
        _check_frame(contents, path)
        self._origin = Origin((path,), path.with_name(f"{path.name}.converted"))

    def folds(self) -> list[str]:
        return sorted(name.split("/")[0].removeprefix("fold_") for name in self._contents if name.endswith(WEIGHTS))

    def fold(self, name: str) -> StoredFold:
        place = f"fold_{name}/{WEIGHTS}"
        if place not in self._contents:
            raise ModelError(f"{self.place}: expected fold {name} among {self.folds()}")
        manifest = self._manifest
        return StoredFold(
            _parse_weights(self._contents[place], manifest.aliases.get(place, {}), f"{self.place}: {place}"),
            manifest.configuration,
            tuple(manifest.mirror_axes),
            self._origin,
        )

    def source(self, folds: Sequence[str]) -> ModelSource:
        return ModelSource(self.place, {"bundle": self.place})

    def card(self) -> bytes | None:
        return self._contents.get(CARD_FILE)

    def json(self, name: str) -> dict[str, Any] | None:
        content = self._contents.get(name)
        return None if content is None else parse_json(content, f"{self.place}: {name}", dict[str, Any], error=ModelError)


def write_bundle(files: ModelFiles, target: Path, folds: Sequence[str] | None = None) -> list[str]:
    """Write folds of a model to one file, atomically; returns the names of its folds.

    The heads that only training asks are left out. The same model gives the same bytes.

    Raises:
        ModelError: a fold or a file is missing, or the folds are of different configurations.
        DiskFullError: the disk is full; ``target`` is untouched.
    """
    names = fold_names(folds) if folds else files.folds()
    stored = {name: files.fold(name) for name in names}
    kinds = {(fold.configuration, fold.mirror_axes) for fold in stored.values()}
    if len(kinds) != 1:
        raise ModelError(f"{files.place}: expected folds of one configuration and mirroring, got {sorted(kinds)}")
    contents: dict[str, bytes] = {}
    for name in [*_JSON_NAMES, *(f"fold_{fold}/{CASE_HEAD_FILE}" for fold in names)]:
        found = files.json(name)
        if found is not None:
            contents[name] = json.dumps(found).encode()
    if (card := files.card()) is not None:
        contents[CARD_FILE] = card
    aliases = {}
    for name, fold in stored.items():
        place = f"fold_{name}/{WEIGHTS}"
        tensors, aliases[place] = _separate(fold.weights)
        contents[place] = save(tensors)
    configuration, mirror_axes = kinds.pop()
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"nnduet {version('nnduet')}",
        "configuration": configuration,
        "mirror_axes": list(mirror_axes),
        "aliases": aliases,
        "files": {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()},
    }
    with replacing(target) as temporary, temporary.open("wb") as file:
        write_archive(file, {MANIFEST: json.dumps(manifest, indent=2).encode(), **contents})
    return names


def write_archive(file: IO[bytes], contents: Mapping[str, bytes]) -> None:
    """A zip of files by name, stored as they are; the same files in the same order give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            archive.writestr(entry, content)


def _separate(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights once each, without the inner heads, and {other name of a weight: its name} (nnU-Net's networks share layers)."""
    names: dict[tuple[int, torch.Size], str] = {}
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in weights.items():
        if name.startswith("inner_heads."):
            continue
        first = names.setdefault((tensor.data_ptr(), tensor.shape), name)
        if first == name:
            tensors[name] = tensor.detach().cpu().contiguous().clone()
        else:
            aliases[name] = first
    return tensors, aliases


def _check_entries(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
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
        if not entry.filename.endswith(WEIGHTS) and entry.file_size > MOST_JSON_BYTES:
            raise ModelError(f"{path}: entry {entry.filename} has {entry.file_size} bytes, more than {MOST_JSON_BYTES}")
    promised, real = sum(entry.file_size for entry in entries), path.stat().st_size
    if promised > real:
        raise CorruptFileError(f"{path}: its entries promise {promised} bytes, the file has {real}")


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
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ModelError(f"{path}: expected a manifest of format {FORMAT!r}")
    if found.get("version") != VERSION:
        raise ModelError(f"{path}: expected version {VERSION} of the format, got {found.get('version')!r}; update nnduet")
    return convert_json(found, _Manifest, place, error=ModelError)


def _check_contents(files: Mapping[str, _Entry], contents: Mapping[str, bytes], path: Path) -> None:
    if set(files) != set(contents):
        differing = sorted(set(files) ^ set(contents))[:5]
        raise CorruptFileError(f"{path}: manifest and entries differ in {differing}")
    for name, content in contents.items():
        if files[name].bytes != len(content) or files[name].sha256 != hashlib.sha256(content).hexdigest():
            raise CorruptFileError(f"{path}: {name} is not what the manifest says; get the file again")


def _check_frame(contents: Mapping[str, bytes], path: Path) -> None:
    """Refuse a zip that holds these files otherwise than ``write_archive`` does: a flipped bit of a date, bytes at the end."""
    frame = _Frame(contents)
    write_archive(cast(IO[bytes], frame), contents)
    with path.open("rb") as file:
        for position, expected in frame.parts.items():
            file.seek(position)
            if file.read(len(expected)) != expected:
                raise CorruptFileError(f"{path}: bytes {position} and on, between its files, are changed; get the file again")
        if file.seek(0, io.SEEK_END) != frame.size:
            raise CorruptFileError(f"{path}: expected {frame.size} bytes, the file has {file.tell()}; get the file again")


class _Frame(io.RawIOBase):
    """A file that keeps in ``parts`` what is written where, but for the contents, which need no second look."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.parts: dict[int, bytes] = {}
        self.size = self._position = 0
        self._left_out = {id(content) for content in contents.values()}

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset
        return offset

    def write(self, data: Any) -> int:
        if id(data) not in self._left_out:
            self.parts[self._position] = data
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)


def _parse_weights(content: bytes, aliases: Mapping[str, str], place: str) -> dict[str, torch.Tensor]:
    try:
        weights: dict[str, torch.Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{place}: not readable as safetensors: {error}") from error
    unknown = sorted(set(aliases.values()) - set(weights))[:3]
    if unknown:
        raise ModelError(f"{place}: the manifest gives other names to weights that are not there: {unknown}")
    return weights | {name: weights[first] for name, first in aliases.items()}
