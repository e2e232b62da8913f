"""A bundle predicts what its folder does; what hostile ones do is in tests/faults/test_models.py."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_files import manifest_of, tensors_of, write_parts
from safetensors.torch import load_file
from tiny import SHAPES, SPACING_MM

from nnduet import Predictor
from nnduet.errors import CorruptFileError, ModelError
from nnduet.inference.prediction import Prediction
from nnduet.model_store.bundles import BundleFiles, write_bundle
from nnduet.model_store.folder_files import FolderFiles
from nnduet.model_store.model_files import StoredFold


def predict(model: Path, dim: int) -> Prediction:
    image = np.random.default_rng(0).normal(60, 20, SHAPES[dim]).astype(np.float32)
    return Predictor.load(model)(image, spacing_mm=SPACING_MM[dim])


@pytest.mark.parametrize("dim", [2, 3])
def test_a_bundle_predicts_what_its_folder_does(dim: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"model_{dim}d")
    assert write_bundle(FolderFiles(folder), tmp_path / "tiny.nnduet") == FolderFiles(folder).folds()
    first, second = (predict(place, dim) for place in (folder, tmp_path / "tiny.nnduet"))
    np.testing.assert_array_equal(first.segmentation, second.segmentation)
    assert first.tasks == second.tasks
    assert first.outlier_score == second.outlier_score


def test_the_same_model_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    write_bundle(BundleFiles(bundle), tmp_path / "again.nnduet")
    assert (tmp_path / "again.nnduet").read_bytes() == bundle.read_bytes()
    assert not [name for name in BundleFiles(bundle).fold("0").weights if name.startswith("inner_heads.")]


def test_a_bundle_is_safetensors_that_end_in_the_checksum_of_what_is_before(bundle: Path) -> None:
    content = bundle.read_bytes()
    assert hashlib.sha256(content[:-32]).digest() == content[-32:] == bytes(load_file(bundle)["sha256"].tolist())
    assert content[8:9] == b"{"


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
    assert len({tensor.data_ptr() for tensor in shared.values()}) < len(shared)
    size = sum({t.data_ptr(): t.nbytes for n, t in shared.items() if not n.startswith("inner_heads.")}.values())
    stored = {name: tensor for name, tensor in tensors_of(bundle).items() if tensor.dtype != torch.uint8}
    assert sum(tensor.nbytes for tensor in stored.values()) == size
    assert set(BundleFiles(bundle).fold("0").weights) == {n for n in shared if not n.startswith("inner_heads.")}


class _OfTruthValues(FolderFiles):
    """A model of which one weight is True."""

    def fold(self, name: str) -> StoredFold:
        stored = super().fold(name)
        return stored._replace(weights=stored.weights | {"flag": torch.ones(1, dtype=torch.bool)})


def test_weights_that_would_come_behind_the_checksum_are_not_written(model_2d: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected weights that are numbers, got truth values"):
        write_bundle(_OfTruthValues(model_2d), tmp_path / "tiny.nnduet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="zip"), "expected a manifest of format"),
        (lambda m: m.update(version=3), "expected version 2 of the format, got 3; update nnduet"),
        (lambda m: m.update(mirror_axes=[7]), r"manifest: .*mirror_axes"),
        (lambda m: m.update(configuration=None), r"manifest: .*configuration"),
        (lambda m: m.pop("aliases"), r"manifest: .*field `aliases`"),
        (lambda m: m.update(aliases={"0": {"a": "b"}}), "fold_0: the manifest gives other names to weights that are not there"),
    ],
)
def test_an_impossible_manifest_is_refused(
    bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    manifest = manifest_of(bundle)
    change(manifest)
    with pytest.raises((CorruptFileError, ModelError), match=message):
        Predictor.load(write_parts(tmp_path / "bad.nnduet", manifest, tensors_of(bundle)))


def test_a_failed_write_leaves_the_old_bundle(model_2d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.nnduet").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(Exception, match="full"):
        write_bundle(FolderFiles(model_2d), tmp_path / "tiny.nnduet")
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.nnduet"]
    assert (tmp_path / "tiny.nnduet").read_bytes() == b"old"
