"""A model in one file, which may come from anybody: safetensors, with a manifest in their header and a checksum at their end.

Nothing in a bundle is unpickled, imported or extracted to the disk. Before anything is parsed, the last 32 bytes of the file
must be the SHA-256 of all bytes before them, which guards against damage. Against its author guards that safetensors cannot
promise more than they hold, that only known names are taken, and that what the JSON says is checked as that of a folder is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from safetensors.torch import save

from nnduet.errors import CorruptFileError, ModelError
from nnduet.io.files import replacing
from nnduet.model_store.bundle_content import (
    FORMAT,
    JSON_NAMES,
    MOST_TEXT_BYTES,
    TEXTS,
    BundleContent,
    check_format,
    load_tensors,
    with_other_names,
)
from nnduet.model_store.model_files import (
    CARD_FILE,
    CASE_HEAD_FILE,
    ModelFiles,
    ModelSource,
    Origin,
    StoredFold,
    fold_names,
)
from nnduet.model_store.old_bundles import is_old_bundle, read_old_bundle
from nnduet.records import convert_json, parse_json

__all__ = ["BUNDLE_ENDING", "BundleFiles", "write_bundle"]

BUNDLE_ENDING = ".nnduet"
VERSION = 2
MANIFEST, DIGEST = "nnduet", "sha256"
"""The one key of the metadata, for safetensors keep no order of several; and the tensor whose bytes end the file."""
DIGEST_BYTES = hashlib.sha256().digest_size
MOST_HEADER_BYTES = 2**26
_WEIGHT = re.compile(r"fold_(\d{1,3}|all)/([^/].*)")


class BundleFiles:
    """An opened and verified bundle, of this or the first layout.

    Raises:
        ModelError: it is no bundle, one of a later version, or one with entries that a bundle does not have.
        CorruptFileError: bytes are missing or changed.
    """

    def __init__(self, path: Path) -> None:
        self.place = path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CorruptFileError(f"{path}: expected a bundle that `nnduet export` wrote: {error}") from error
        self._content = read_old_bundle(content, path) if is_old_bundle(content) else _read_bundle(content, path)
        self._origin = Origin((path,), path.with_name(f"{path.name}.converted"))

    def folds(self) -> list[str]:
        return sorted(self._content.weights)

    def fold(self, name: str) -> StoredFold:
        found = self._content
        if name not in found.weights:
            raise ModelError(f"{self.place}: expected fold {name} among {self.folds()}")
        return StoredFold(dict(found.weights[name]), found.configuration, found.mirror_axes, self._origin)

    def source(self, folds: Sequence[str]) -> ModelSource:
        return ModelSource(self.place, {"bundle": self.place})

    def card(self) -> bytes | None:
        return self._content.texts.get(CARD_FILE)

    def json(self, name: str) -> dict[str, Any] | None:
        content = self._content.texts.get(name)
        return None if content is None else parse_json(content, f"{self.place}: {name}", dict[str, Any], error=ModelError)


def write_bundle(files: ModelFiles, target: Path, folds: Sequence[str] | None = None) -> list[str]:
    """Write folds of a model to one file, atomically; returns the names of its folds.

    The heads that only training asks are left out. The same model gives the same bytes.

    Raises:
        ModelError: a fold or a file is missing, the folds are of different configurations, or weights are no numbers.
        DiskFullError: the disk is full; ``target`` is untouched.
    """
    names = fold_names(folds) if folds else files.folds()
    stored = {name: files.fold(name) for name in names}
    kinds = {(fold.configuration, fold.mirror_axes) for fold in stored.values()}
    if len(kinds) != 1:
        raise ModelError(f"{files.place}: expected folds of one configuration and mirroring, got {sorted(kinds)}")
    configuration, mirror_axes = kinds.pop()
    tensors = {name: _as_numbers(text) for name, text in _texts(files, names).items()}
    aliases = {}
    for name, fold in stored.items():
        weights, aliases[name] = _separate(fold.weights)
        tensors |= {f"fold_{name}/{weight}": tensor for weight, tensor in weights.items()}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"nnduet {version('nnduet')}",
        "configuration": configuration,
        "mirror_axes": list(mirror_axes),
        "aliases": aliases,
    }
    content = memoryview(_with_room_for_digest(tensors, manifest, files.place))[:-DIGEST_BYTES]
    with replacing(target) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.write(hashlib.sha256(content).digest())
    return names


def _texts(files: ModelFiles, folds: Sequence[str]) -> dict[str, bytes]:
    """The JSON files and the card of a model, by name."""
    names = [*JSON_NAMES, *(f"fold_{fold}/{CASE_HEAD_FILE}" for fold in folds)]
    found = {name: files.json(name) for name in names}
    texts = {name: json.dumps(content).encode() for name, content in found.items() if content is not None}
    card = files.card()
    return texts if card is None else texts | {CARD_FILE: card}


def _as_numbers(text: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())


def _with_room_for_digest(tensors: Mapping[str, torch.Tensor], manifest: Mapping[str, Any], place: Path) -> bytes:
    """Safetensors that end in bytes for the checksum: they sort tensors by the size of a number and then by name, and of those
    with one byte none has a later name than :data:`DIGEST`. Booleans alone come behind."""
    if any(tensor.dtype == torch.bool for tensor in tensors.values()):
        raise ModelError(f"{place}: expected weights that are numbers, got truth values")
    content: bytes = save({**tensors, DIGEST: torch.zeros(DIGEST_BYTES, dtype=torch.uint8)}, {MANIFEST: json.dumps(manifest)})
    return content


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


@dataclass(frozen=True)
class _Manifest:
    configuration: str
    mirror_axes: list[Annotated[int, Meta(ge=0, le=2)]]
    aliases: dict[str, dict[str, str]]


def _read_bundle(content: bytes, path: Path) -> BundleContent:
    """The content of a bundle of this layout; errors as those of :class:`BundleFiles`."""
    if hashlib.sha256(memoryview(content)[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
        text = "expected a bundle that `nnduet export` wrote, which ends in the SHA-256 of what is before it"
        raise CorruptFileError(f"{path}: {text}; get the file again")
    manifest = _read_manifest(content, path)
    weights: dict[str, dict[str, torch.Tensor]] = {}
    texts = {}
    for name, tensor in load_tensors(content, str(path)).items():
        if TEXTS.fullmatch(name) and tensor.dtype == torch.uint8:
            texts[name] = _text_of(tensor, name, path)
        elif found := _WEIGHT.fullmatch(name):
            weights.setdefault(found[1], {})[found[2]] = tensor
        elif name != DIGEST:
            raise ModelError(f"{path}: expected the files of a model, got an entry {name[:80]!r}")
    for fold, tensors in weights.items():
        weights[fold] = with_other_names(tensors, manifest.aliases.get(fold, {}), f"{path}: fold_{fold}")
    return BundleContent(manifest.configuration, tuple(manifest.mirror_axes), weights, texts)


def _read_manifest(content: bytes, path: Path) -> _Manifest:
    """What the header has as metadata, with the types that its readers expect. The first 8 bytes are the header's length."""
    length = int.from_bytes(content[:8], "little")
    if length > MOST_HEADER_BYTES:
        raise ModelError(f"{path}: its header has {length} bytes, more than {MOST_HEADER_BYTES}")
    header: dict[str, Any] = parse_json(content[8 : 8 + length], f"{path}: header", dict[str, Any], error=ModelError)
    metadata = header.get("__metadata__")
    text = metadata.get(MANIFEST) if isinstance(metadata, dict) else None
    place = f"{path}: manifest"
    found: Any = parse_json(text.encode(), place, error=ModelError) if isinstance(text, str) else None
    check_format(found, VERSION, path)
    return convert_json(found, _Manifest, place, error=ModelError)


def _text_of(tensor: torch.Tensor, name: str, path: Path) -> bytes:
    if tensor.numel() > MOST_TEXT_BYTES:
        raise ModelError(f"{path}: entry {name} has {tensor.numel()} bytes, more than {MOST_TEXT_BYTES}")
    return tensor.numpy().tobytes()
