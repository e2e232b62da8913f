"""A bundle predicts what its folder does, and a hostile one is refused before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SHAPES, SPACING_MM, Canary

from nnduet import Predictor
from nnduet.errors import CorruptFileError, ModelError
from nnduet.inference.bundles import MANIFEST, BundleFiles, write_bundle
from nnduet.inference.model_folder import FolderFiles

WEIGHTS = "fold_0/weights.safetensors"


@pytest.fixture(scope="module")
def bundle(model_2d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny.nnduet"
    write_bundle(FolderFiles(model_2d), path)
    return path


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path: Path, entries: dict[str, bytes], *, signed: bool = False, **options: Any) -> Path:
    """A zip of entries; ``signed`` makes the manifest agree with them."""
    if signed:
        manifest = json.loads(entries[MANIFEST])
        manifest["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in entries.items()
            if name != MANIFEST
        }
        entries = entries | {MANIFEST: json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


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


def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(bundle: Path, tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "pickle")
    entries = entries_of(bundle) | {WEIGHTS: (tmp_path / "pickle").read_bytes()}
    with pytest.raises(ModelError, match="not readable as safetensors"):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries, signed=True))
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_named_like_a_bundle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "bad.nnduet")
    with pytest.raises(ModelError, match="expected the files of a model"):
        Predictor.load(tmp_path / "bad.nnduet")
    assert not (tmp_path / "canary").exists()


def test_plans_that_name_another_class_are_refused(bundle: Path, tmp_path: Path) -> None:
    entries = entries_of(bundle)
    plans = json.loads(entries["plans.json"])
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "subprocess.Popen"
    entries["plans.json"] = json.dumps(plans).encode()
    with pytest.raises(ModelError, match=r"architecture expected one of .* got 'subprocess\.Popen'"):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries, signed=True))


@pytest.mark.parametrize(
    "name", ["../outside.json", "/etc/passwd", "fold_0/../../x", "fold_0\\weights.safetensors", "notes.txt"]
)
def test_an_entry_that_no_bundle_has_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.parent.iterdir())
    path = write_entries(tmp_path / "bad.nnduet", entries_of(bundle) | {name: b"x"}, signed=True)
    with pytest.raises(ModelError, match="expected the files of a model, got an entry"):
        Predictor.load(path)
    assert sorted(tmp_path.iterdir()) == [path]
    assert sorted(tmp_path.parent.iterdir()) == before


def test_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries_of(bundle).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "plans.json" else 0o644) << 16
            archive.writestr(info, b"/etc/passwd" if name == "plans.json" else content)
    with pytest.raises(ModelError, match=r"plans\.json is a link"):
        Predictor.load(path)


def test_a_bomb_is_refused_before_it_is_read(bundle: Path, tmp_path: Path) -> None:
    entries = entries_of(bundle) | {WEIGHTS: bytes(2**27)}
    path = write_entries(tmp_path / "bad.nnduet", entries, signed=True, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(ModelError, match="is compressed"):
        Predictor.load(path)


def test_entries_that_share_their_bytes_are_refused(bundle: Path, tmp_path: Path) -> None:
    """Many entries may point to the same bytes and so unfold to more than the file has."""
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries_of(bundle).items():
            archive.writestr(name, content)
        weights = archive.getinfo(WEIGHTS)
        for fold in range(1, 50):
            entry = zipfile.ZipInfo(f"fold_{fold}/weights.safetensors")
            entry.header_offset, entry.CRC = weights.header_offset, weights.CRC
            entry.file_size = entry.compress_size = weights.file_size
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
    with pytest.raises(CorruptFileError, match="its entries promise"):
        Predictor.load(path)


def test_a_hundred_thousand_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(100_000):
            archive.writestr(f"fold_{index}/case_head.json", b"")
    with pytest.raises(ModelError, match="expected at most 1000 entries"):
        Predictor.load(path)


def test_the_same_entry_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = write_entries(tmp_path / "bad.nnduet", entries_of(bundle))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("plans.json", b"{}")
    with pytest.raises(ModelError, match="different names"):
        Predictor.load(path)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12).tolist())
def test_a_flipped_bit_anywhere_is_refused(bundle: Path, tmp_path: Path, share: float) -> None:
    content = bytearray(bundle.read_bytes())
    content[int(share * len(content))] ^= 1
    (tmp_path / "bad.nnduet").write_bytes(content)
    with pytest.raises((CorruptFileError, ModelError), match=r"bad\.nnduet"):
        BundleFiles(tmp_path / "bad.nnduet")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_bundle_is_refused(bundle: Path, tmp_path: Path, share: float) -> None:
    (tmp_path / "bad.nnduet").write_bytes(bundle.read_bytes()[: int(share * bundle.stat().st_size)])
    with pytest.raises(CorruptFileError, match=r"bad\.nnduet"):
        Predictor.load(tmp_path / "bad.nnduet")


def test_another_checksum_is_refused(bundle: Path, tmp_path: Path) -> None:
    entries = entries_of(bundle)
    entries["dataset.json"] = entries["dataset.json"].replace(b"organ", b"other")
    with pytest.raises(CorruptFileError, match=r"dataset\.json is not what the manifest says"):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("files"), "expected a manifest with"),
        (lambda m: m.update(format="zip"), "expected a manifest of format"),
        (lambda m: m.update(version=2), "update nnduet"),
        (lambda m: m.update(mirror_axes=[7]), "expected a manifest with"),
        (lambda m: m.update(configuration=None), "expected a manifest with"),
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
