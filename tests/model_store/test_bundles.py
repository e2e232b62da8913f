"""A bundle predicts what its folder does; what hostile ones do is in tests/faults/test_models.py."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_files import entries_of, write_entries
from tiny import SHAPES, SPACING_MM

from nnduet import Predictor
from nnduet.errors import CorruptFileError, ModelError
from nnduet.model_store.bundles import MANIFEST, BundleFiles, write_bundle
from nnduet.model_store.model_folder import FolderFiles

WEIGHTS = "fold_0/weights.safetensors"


@pytest.mark.parametrize("dim", [2, 3])
def test_a_bundle_predicts_what_its_folder_does(dim: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"model_{dim}d")
    assert write_bundle(FolderFiles(folder), tmp_path / "tiny.nnduet") == FolderFiles(folder).folds()
    image = np.random.default_rng(0).normal(60, 20, SHAPES[dim]).astype(np.float32)
    first, second = (Predictor.load(p)(image, spacing_mm=SPACING_MM[dim]) for p in (folder, tmp_path / "tiny.nnduet"))
    np.testing.assert_array_equal(first.segmentation, second.segmentation)
    assert first.tasks == second.tasks
    assert first.outlier_score == second.outlier_score


def test_the_same_model_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    write_bundle(BundleFiles(bundle), tmp_path / "again.nnduet")
    assert (tmp_path / "again.nnduet").read_bytes() == bundle.read_bytes()
    assert not [name for name in BundleFiles(bundle).fold("0").weights if name.startswith("inner_heads.")]


def test_the_card_travels_along(model_2d: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_2d, tmp_path / "model"))
    (folder / "MODEL_CARD.md").write_text("What it is for.")
    write_bundle(FolderFiles(folder), tmp_path / "tiny.nnduet")
    assert BundleFiles(tmp_path / "tiny.nnduet").card() == b"What it is for."


def test_chosen_folds_are_written(model_3d: Path, tmp_path: Path) -> None:
    assert write_bundle(FolderFiles(model_3d), tmp_path / "one.nnduet", ["1"]) == ["1"]
    assert BundleFiles(tmp_path / "one.nnduet").folds() == ["1"]
    with pytest.raises(ModelError, match=r"expected fold 0 among \['1'\]"):
        BundleFiles(tmp_path / "one.nnduet").fold("0")


def test_shared_layers_are_stored_once_and_stay_shared(model_2d: Path, bundle: Path) -> None:
    shared = FolderFiles(model_2d).fold("0").weights
    size = sum({t.data_ptr(): t.nbytes for n, t in shared.items() if not n.startswith("inner_heads.")}.values())
    assert len(entries_of(bundle)[WEIGHTS]) < size + 100_000
    assert set(BundleFiles(bundle).fold("0").weights) == {n for n in shared if not n.startswith("inner_heads.")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("files"), r"manifest\.json: .*field `files`"),
        (lambda m: m.update(format="zip"), "expected a manifest of format"),
        (lambda m: m.update(version=2), "update nnduet"),
        (lambda m: m.update(mirror_axes=[7]), r"manifest\.json: .*mirror_axes"),
        (lambda m: m.update(configuration=None), r"manifest\.json: .*configuration"),
        (lambda m: m.update(aliases={WEIGHTS: {"a": "b"}}), "weights that are not there"),
        (lambda m: m["files"].pop("plans.json"), "manifest and entries differ"),
    ],
)
def test_an_impossible_manifest_is_refused(
    bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    entries = entries_of(bundle)
    manifest = json.loads(entries[MANIFEST])
    change(manifest)
    entries[MANIFEST] = json.dumps(manifest).encode()
    with pytest.raises((CorruptFileError, ModelError), match=message):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries))


def test_a_failed_write_leaves_the_old_bundle(model_2d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.nnduet").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(Exception, match="full"):
        write_bundle(FolderFiles(model_2d), tmp_path / "tiny.nnduet")
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.nnduet"]
    assert (tmp_path / "tiny.nnduet").read_bytes() == b"old"
