"""Bundles that earlier versions wrote predict what they did; hostile ones are in tests/faults/test_old_models.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_files import entries_of, write_entries, write_old_bundle
from tiny import SHAPES, SPACING_MM

from nnduet import Predictor
from nnduet.errors import CorruptFileError, ModelError
from nnduet.model_store.bundles import BundleFiles, write_bundle
from nnduet.model_store.folder_files import FolderFiles
from nnduet.model_store.old_bundles import is_old_bundle

WEIGHTS = "fold_0/weights.safetensors"


@pytest.mark.parametrize("dim", [2, 3])
def test_an_old_bundle_predicts_what_its_folder_does(dim: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"model_{dim}d")
    old = write_old_bundle(tmp_path / "old.nnduet", FolderFiles(folder))
    image = np.random.default_rng(0).normal(60, 20, SHAPES[dim]).astype(np.float32)
    first, second = (Predictor.load(place)(image, spacing_mm=SPACING_MM[dim]) for place in (folder, old))
    np.testing.assert_array_equal(first.segmentation, second.segmentation)
    assert first.tasks == second.tasks
    assert first.outlier_score == second.outlier_score


def test_an_old_bundle_is_exported_to_the_bytes_of_its_folder(bundle: Path, old_bundle: Path, tmp_path: Path) -> None:
    write_bundle(BundleFiles(old_bundle), tmp_path / "new.nnduet")
    assert (tmp_path / "new.nnduet").read_bytes() == bundle.read_bytes()


def test_layouts_are_told_apart_by_their_first_bytes(bundle: Path, old_bundle: Path) -> None:
    assert is_old_bundle(old_bundle.read_bytes()) and not is_old_bundle(bundle.read_bytes())
    assert old_bundle.read_bytes()[:14] == b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x21\x00"  # stored, on 1 January 1980
    unlucky = int.from_bytes(b"PK\x03\x04", "little").to_bytes(8, "little")  # the length of a header of safetensors
    assert not is_old_bundle(unlucky + b"{")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("files"), r"manifest\.json: .*field `files`"),
        (lambda m: m.update(format="zip"), "expected a manifest of format"),
        (lambda m: m.update(version=2), "expected version 1 of the format, got 2"),
        (lambda m: m.update(mirror_axes=[7]), r"manifest\.json: .*mirror_axes"),
        (lambda m: m.update(configuration=None), r"manifest\.json: .*configuration"),
        (lambda m: m.update(aliases={WEIGHTS: {"a": "b"}}), "weights that are not there"),
        (lambda m: m["files"].pop("plans.json"), "manifest and entries differ"),
    ],
)
def test_an_impossible_old_manifest_is_refused(
    old_bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    entries = entries_of(old_bundle)
    manifest = json.loads(entries["manifest.json"])
    change(manifest)
    entries["manifest.json"] = json.dumps(manifest).encode()
    with pytest.raises((CorruptFileError, ModelError), match=message):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries))
