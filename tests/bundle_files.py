"""Bundles taken apart and put together again, as an attacker would, and bundles as earlier versions wrote them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from nnduet.model_store.model_files import ModelFiles

Tensors = dict[str, torch.Tensor]


def manifest_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return dict(json.loads(file.metadata()["nnduet"]))


def tensors_of(path: Path) -> Tensors:
    """The weights of all folds and, as bytes, the texts."""
    return {name: tensor for name, tensor in load_file(path).items() if name != "sha256"}


def text(content: bytes) -> torch.Tensor:
    """A text as it stands among the tensors."""
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def signed(content: bytes) -> bytes:
    """With the checksum of all other bytes at its end."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def write_parts(path: Path, manifest: Any, tensors: Tensors) -> Path:
    """A bundle with a checksum that is right; a manifest that is a text is written as it is."""
    written = manifest if isinstance(manifest, str) else json.dumps(manifest)
    last = {"sha256": torch.zeros(32, dtype=torch.uint8)}
    path.write_bytes(signed(save(tensors | last, {"nnduet": written})))
    return path


def old_manifest(files: ModelFiles, entries: dict[str, bytes], aliases: dict[str, dict[str, str]]) -> bytes:
    """What the manifest of the first layout said of some entries."""
    first = files.fold(files.folds()[0])
    manifest = {
        "format": "nnduet model",
        "version": 1,
        "written_by": "nnduet 0.1.0",
        "configuration": first.configuration,
        "mirror_axes": list(first.mirror_axes),
        "aliases": aliases,
        "files": {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in entries.items()},
    }
    return json.dumps(manifest, indent=2).encode()


def write_old_bundle(path: Path, files: ModelFiles) -> Path:
    """A bundle of the first layout: a zip of its manifest, then JSON and the safetensors of each fold."""
    folds = files.folds()
    names = ["plans.json", "dataset.json", "cross_validation/conformal.json"]
    names += [f"fold_{fold}/case_head.json" for fold in folds]
    found = {name: files.json(name) for name in names}
    entries = {name: json.dumps(content).encode() for name, content in found.items() if content is not None}
    if (card := files.card()) is not None:
        entries["MODEL_CARD.md"] = card
    aliases = {}
    for fold in folds:
        first: dict[int, str] = {}
        weights = {n: w for n, w in files.fold(fold).weights.items() if not n.startswith("inner_heads.")}
        own = {name: weight for name, weight in weights.items() if first.setdefault(weight.data_ptr(), name) == name}
        place = f"fold_{fold}/weights.safetensors"
        entries[place] = save({name: weight.contiguous().clone() for name, weight in own.items()})
        aliases[place] = {name: first[w.data_ptr()] for name, w in weights.items() if name not in own}
    return write_entries(path, {"manifest.json": old_manifest(files, entries, aliases), **entries})


def entries_of(path: Path) -> dict[str, bytes]:
    """What a bundle of the first layout holds."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path: Path, entries: dict[str, bytes], *, signed: bool = False) -> Path:
    """A bundle of the first layout of some entries; ``signed`` makes the manifest agree with them."""
    if signed:
        manifest = json.loads(entries["manifest.json"])
        manifest["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in entries.items()
            if name != "manifest.json"
        }
        entries = entries | {"manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix
            archive.writestr(entry, content)
    return path
