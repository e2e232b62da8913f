"""Bundles of the first layout survive rows 43, 45 and 46 of the list of faults as those of today do."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_files import entries_of, write_entries
from tiny import Canary

from nnduet import Predictor
from nnduet.errors import CorruptFileError, ModelError
from nnduet.model_store.bundles import BundleFiles

WEIGHTS = "fold_0/weights.safetensors"


def test_row_43_a_pickle_in_place_of_the_weights_is_refused_and_not_run(old_bundle: Path, tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "pickle")
    entries = entries_of(old_bundle) | {WEIGHTS: (tmp_path / "pickle").read_bytes()}
    with pytest.raises(ModelError, match="not readable as safetensors"):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries, signed=True))
    assert not (tmp_path / "canary").exists()


def test_row_139_weights_that_promise_more_than_they_have_are_refused(old_bundle: Path, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    for content in (struct.pack("<Q", len(header)) + header, struct.pack("<Q", 2**62) + b"{}"):
        entries = entries_of(old_bundle) | {WEIGHTS: content}
        with pytest.raises(ModelError, match="not readable as safetensors"):
            Predictor.load(write_entries(tmp_path / "bad.nnduet", entries, signed=True))


@pytest.mark.parametrize(
    "name", ["../outside.json", "/etc/passwd", "fold_0/../../x", "fold_0\\weights.safetensors", "notes.txt"]
)
def test_row_45_an_entry_that_no_bundle_has_is_refused(old_bundle: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.parent.iterdir())
    path = write_entries(tmp_path / "bad.nnduet", entries_of(old_bundle) | {name: b"x"}, signed=True)
    with pytest.raises(ModelError, match="expected the files of a model, got an entry"):
        Predictor.load(path)
    assert sorted(tmp_path.iterdir()) == [path]
    assert sorted(tmp_path.parent.iterdir()) == before


def test_row_45_a_link_is_refused(old_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries_of(old_bundle).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "plans.json" else 0o644) << 16
            archive.writestr(info, b"/etc/passwd" if name == "plans.json" else content)
    with pytest.raises(ModelError, match=r"plans\.json is a link"):
        Predictor.load(path)


def test_row_45_a_bomb_is_refused_before_it_is_read(old_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (entries_of(old_bundle) | {WEIGHTS: bytes(2**27)}).items():
            archive.writestr(name, content)
    assert path.stat().st_size < 2**20
    with pytest.raises(ModelError, match="is compressed"):
        Predictor.load(path)


def test_row_45_entries_that_share_their_bytes_are_refused(old_bundle: Path, tmp_path: Path) -> None:
    """Many entries may point to the same bytes and so unfold to more than the file has."""
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries_of(old_bundle).items():
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


def test_row_45_a_hundred_thousand_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.nnduet"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(100_000):
            archive.writestr(f"fold_{index}/case_head.json", b"")
    with pytest.raises(ModelError, match="expected at most 1000 entries"):
        Predictor.load(path)


def test_row_45_the_same_entry_twice_is_refused(old_bundle: Path, tmp_path: Path) -> None:
    path = write_entries(tmp_path / "bad.nnduet", entries_of(old_bundle))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("plans.json", b"{}")
    with pytest.raises(ModelError, match="different names"):
        Predictor.load(path)


def flipped(old_bundle: Path, target: Path, place: int) -> Path:
    content = bytearray(old_bundle.read_bytes())
    content[place] ^= 1 << place % 8
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12).tolist())
def test_row_46_a_flipped_bit_anywhere_is_refused(old_bundle: Path, tmp_path: Path, share: float) -> None:
    bad = flipped(old_bundle, tmp_path / "bad.nnduet", int(share * old_bundle.stat().st_size))
    with pytest.raises((CorruptFileError, ModelError), match=r"bad\.nnduet"):
        Predictor.load(bad)


def places_of_files(old_bundle: Path) -> list[range]:
    """Where in the zip the bytes of its files are: after 30 bytes and the file's name."""
    with zipfile.ZipFile(old_bundle) as archive:
        starts = [(entry.header_offset + 30 + len(entry.filename), entry.file_size) for entry in archive.infolist()]
    return [range(start, start + size) for start, size in starts]


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12).tolist())
def test_row_46_a_flipped_bit_of_any_file_is_refused(old_bundle: Path, tmp_path: Path, share: float) -> None:
    for places in places_of_files(old_bundle):
        with pytest.raises((CorruptFileError, ModelError), match=r"bad\.nnduet"):
            BundleFiles(flipped(old_bundle, tmp_path / "bad.nnduet", places[int(share * len(places))]))


def test_row_46_a_flipped_bit_between_the_files_is_refused(old_bundle: Path, tmp_path: Path) -> None:
    inside = {place for places in places_of_files(old_bundle) for place in places}
    for place in set(range(old_bundle.stat().st_size)) - inside:
        with pytest.raises((CorruptFileError, ModelError), match=r"bad\.nnduet"):
            BundleFiles(flipped(old_bundle, tmp_path / "bad.nnduet", place))


@pytest.mark.parametrize("more", [b"x", b"PK\x05\x06" + bytes(18)])
def test_row_46_bytes_after_the_end_are_refused(old_bundle: Path, tmp_path: Path, more: bytes) -> None:
    (tmp_path / "bad.nnduet").write_bytes(old_bundle.read_bytes() + more)
    with pytest.raises((CorruptFileError, ModelError), match=r"bad\.nnduet"):
        BundleFiles(tmp_path / "bad.nnduet")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_row_46_a_truncated_bundle_is_refused(old_bundle: Path, tmp_path: Path, share: float) -> None:
    (tmp_path / "bad.nnduet").write_bytes(old_bundle.read_bytes()[: int(share * old_bundle.stat().st_size)])
    with pytest.raises(CorruptFileError, match=r"bad\.nnduet"):
        Predictor.load(tmp_path / "bad.nnduet")


def test_row_46_another_checksum_is_refused(old_bundle: Path, tmp_path: Path) -> None:
    entries = entries_of(old_bundle)
    entries["dataset.json"] = entries["dataset.json"].replace(b"organ", b"other")
    with pytest.raises(CorruptFileError, match=r"dataset\.json is not what the manifest says"):
        Predictor.load(write_entries(tmp_path / "bad.nnduet", entries))
