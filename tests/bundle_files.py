"""Bundles taken apart and put together again, as an attacker would."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from nnduet.model_store.bundles import MANIFEST, write_archive


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path: Path, entries: dict[str, bytes], *, signed: bool = False) -> Path:
    """A zip of entries; ``signed`` makes the manifest agree with them."""
    if signed:
        manifest = json.loads(entries[MANIFEST])
        manifest["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in entries.items()
            if name != MANIFEST
        }
        entries = entries | {MANIFEST: json.dumps(manifest).encode()}
    with path.open("wb") as file:
        write_archive(file, entries)
    return path
