"""Models survive rows 43 to 46 of the list of faults: a hostile or damaged one is refused before anything in it is used."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_files import manifest_of, signed, tensors_of, text, write_parts
from tiny import Canary

from nnduet import Predictor
from nnduet.errors import CorruptFileError, ModelError
from nnduet.model_store.bundles import BundleFiles
from nnduet.training.checkpoints import FINAL


def test_row_43_a_pickle_in_place_of_a_bundle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "pickle", _use_new_zipfile_serialization=False)
    (tmp_path / "bad.nnduet").write_bytes(signed((tmp_path / "pickle").read_bytes() + bytes(32)))
    with pytest.raises(ModelError, match=r"bad\.nnduet: its header has"):
        Predictor.load(tmp_path / "bad.nnduet")
    assert not (tmp_path / "canary").exists()


def test_row_43_a_pickle_in_a_checkpoint_is_refused_and_not_run(model_2d: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_2d, tmp_path / "model"))
    torch.save({"network_weights": {}, "init_args": Canary(tmp_path / "canary")}, model / "fold_0" / FINAL)
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        Predictor.load(model)
    assert not (tmp_path / "canary").exists()


def test_row_43_a_checkpoint_named_like_a_bundle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "bad.nnduet")
    with pytest.raises(ModelError, match="expected the files of a model"):
        Predictor.load(tmp_path / "bad.nnduet")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["subprocess.Popen", "plans_canary.Network"])
@pytest.mark.parametrize("place", ["network_class_name", "conv_op", "norm_op", "nonlin", "dropout_op"])
@pytest.mark.parametrize("as_bundle", [False, True], ids=["folder", "bundle"])
def test_row_44_plans_that_name_another_class_are_refused_and_it_is_not_imported(
    model_2d: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, as_bundle: bool
) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "plans_canary.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).write_text('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    plans = json.loads((model_2d / "plans.json").read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    (architecture if place == "network_class_name" else architecture["arch_kwargs"])[place] = name
    if as_bundle:
        tensors = tensors_of(bundle) | {"plans.json": text(json.dumps(plans).encode())}
        model = write_parts(tmp_path / "bad.nnduet", manifest_of(bundle), tensors)
    else:
        model = Path(shutil.copytree(model_2d, tmp_path / "model"))
        (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=name):
        Predictor.load(model)
    assert not canary.exists() and "plans_canary" not in sys.modules


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "fold_0", "fold_x/weight", "fold_0//x", "notes.txt"])
def test_row_45_an_entry_that_no_bundle_has_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.parent.iterdir())
    path = write_parts(tmp_path / "bad.nnduet", manifest_of(bundle), tensors_of(bundle) | {name: text(b"x")})
    with pytest.raises(ModelError, match="expected the files of a model, got an entry"):
        Predictor.load(path)
    assert sorted(tmp_path.iterdir()) == [path]
    assert sorted(tmp_path.parent.iterdir()) == before


def test_row_45_a_text_that_is_too_long_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnduet.model_store.bundles.MOST_TEXT_BYTES", 10)
    with pytest.raises(ModelError, match=r"entry dataset\.json has \d+ bytes, more than 10|entry plans\.json has"):
        BundleFiles(bundle)


def with_header(bundle: Path, target: Path, header: bytes) -> Path:
    """Signed, with another header before the same numbers."""
    content = bundle.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    target.write_bytes(signed(len(header).to_bytes(8, "little") + header + content[start:]))
    return target


def header_of(bundle: Path) -> dict[str, dict[str, Any]]:
    content = bundle.read_bytes()
    return dict(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]))


def test_row_45_weights_that_share_their_bytes_are_refused(bundle: Path, tmp_path: Path) -> None:
    """Many may point to the same bytes and so unfold to more than the file has."""
    header = header_of(bundle)
    name = next(name for name in header if name.startswith("fold_0/") and header[name]["dtype"] == "F32")
    header |= {f"fold_{fold}/{name[7:]}": header[name] for fold in range(1, 50)}
    with pytest.raises(ModelError, match="not readable as safetensors"):
        BundleFiles(with_header(bundle, tmp_path / "bad.nnduet", json.dumps(header).encode()))


@pytest.mark.parametrize("header", [b"", b"[]", b"{", b'{"__metadata__": 1}', b'{"__metadata__": {"nnduet": "{}"}}'])
def test_row_45_another_header_is_refused(bundle: Path, tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ModelError, match=r"bad\.nnduet: (header: |expected a manifest of format)"):
        BundleFiles(with_header(bundle, tmp_path / "bad.nnduet", header))


def test_row_45_a_header_that_is_longer_than_the_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    (tmp_path / "bad.nnduet").write_bytes(signed((2**62).to_bytes(8, "little") + content[8:]))
    with pytest.raises(ModelError, match=r"its header has \d+ bytes"):
        BundleFiles(tmp_path / "bad.nnduet")


def flipped(bundle: Path, target: Path, place: int) -> Path:
    content = bytearray(bundle.read_bytes())
    content[place] ^= 1 << place % 8
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12).tolist())
def test_row_46_a_flipped_bit_anywhere_is_refused(bundle: Path, tmp_path: Path, share: float) -> None:
    bad = flipped(bundle, tmp_path / "bad.nnduet", int(share * bundle.stat().st_size))
    with pytest.raises(CorruptFileError, match=r"bad\.nnduet: expected a bundle that"):
        Predictor.load(bad)


def test_row_46_a_flipped_bit_of_what_is_no_weight_is_refused(bundle: Path, tmp_path: Path) -> None:
    size = bundle.stat().st_size
    length = int.from_bytes(bundle.read_bytes()[:8], "little")
    for place in [*range(9), *range(9, 8 + length, 97), *range(size - 40, size)]:
        with pytest.raises(CorruptFileError, match=r"bad\.nnduet"):
            BundleFiles(flipped(bundle, tmp_path / "bad.nnduet", place))


@pytest.mark.parametrize("more", [b"x", b"PK\x05\x06" + bytes(18)])
def test_row_46_bytes_after_the_end_are_refused(bundle: Path, tmp_path: Path, more: bytes) -> None:
    (tmp_path / "bad.nnduet").write_bytes(bundle.read_bytes() + more)
    with pytest.raises((CorruptFileError, ModelError), match=r"bad\.nnduet"):
        BundleFiles(tmp_path / "bad.nnduet")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_row_46_a_truncated_bundle_is_refused(bundle: Path, tmp_path: Path, share: float) -> None:
    (tmp_path / "bad.nnduet").write_bytes(bundle.read_bytes()[: int(share * bundle.stat().st_size)])
    with pytest.raises(CorruptFileError, match=r"bad\.nnduet"):
        Predictor.load(tmp_path / "bad.nnduet")
