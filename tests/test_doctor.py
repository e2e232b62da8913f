"""The doctor names what is wrong, and fails only where nnDuet could not run."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from nnduet import doctor
from nnduet.doctor import Check, Diagnosis, diagnose


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source tree that was never installed has no version of its own."""
    monkeypatch.setattr(doctor, "version", lambda name: "0.1.0" if name == "nnduet" else version(name))


def _rows(environment: dict[str, str], default: Path) -> dict[str, Check]:
    return {check.name: check for check in diagnose(environment, default).checks}


def test_a_working_machine_passes_and_every_row_has_a_detail(tmp_path: Path) -> None:
    diagnosis = diagnose({}, tmp_path)
    assert diagnosis.passed
    assert all(check.detail for check in diagnosis.checks)
    assert json.loads(json.dumps(diagnosis.to_json()))["passed"] is True


def test_self_tests_pass(tmp_path: Path) -> None:
    rows = _rows({}, tmp_path)
    assert rows["self-test: network"].status == "PASS"
    assert rows["self-test: NIfTI"].status == "PASS"


def test_unset_folders_are_warnings_and_set_ones_pass(tmp_path: Path) -> None:
    rows = _rows({"nnUNet_raw": str(tmp_path), "nnUNet_results": str(tmp_path / "new")}, tmp_path / "default")
    assert rows["nnUNet_raw"].status == "PASS"
    assert rows["nnUNet_results"] == Check("nnUNet_results", "PASS", f"{tmp_path / 'new'} (will be made)")
    assert rows["nnUNet_preprocessed"].status == "WARN"
    assert str(tmp_path / "default" / "nnUNet_preprocessed") in rows["nnUNet_preprocessed"].detail


def test_a_file_in_the_place_of_a_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    diagnosis = diagnose({"nnUNet_raw": str(tmp_path / "file")}, tmp_path)
    assert not diagnosis.passed


def test_row_85_the_doctor_says_what_a_container_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _rows({}, tmp_path)["temporary files"].status == "PASS"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert next(doctor._cache()) == Check(
        "converted networks", "PASS", f"beside their model, else in {tmp_path / 'cache' / 'nnduet'}"
    )
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check = next(doctor._cache())
    assert check.status == "WARN" and "cannot be written to: where the model's folder is read-only, too" in check.detail

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    check = next(doctor._temporary())
    assert check.status == "FAIL" and check.detail.endswith("set TMPDIR to a folder that can be written to")


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", _not_found)
    assert doctor._package("scikit-learn").status == "FAIL"


def _not_found(name: str) -> str:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(("found", "status"), [("2.8.1", "PASS"), ("2.8.3", "PASS"), ("2.8.0", "FAIL"), ("2.9", "FAIL")])
def test_only_supported_releases_of_nnunet_pass(monkeypatch: pytest.MonkeyPatch, found: str, status: str) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: found)
    assert doctor._package("nnunetv2").status == status


def test_a_torchvision_that_does_not_import_is_a_warning_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    check = next(doctor._torchvision())
    assert check.status == "WARN"
    assert "nms" in check.detail and "nnUNetv2_train" in check.detail


def test_a_torchvision_that_imports_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: None)
    assert next(doctor._torchvision()).status == "PASS"


@pytest.mark.parametrize(("gib", "status"), [(0.5, "FAIL"), (2.0, "WARN"), (64.0, "PASS")])
def test_free_memory_has_two_thresholds(monkeypatch: pytest.MonkeyPatch, gib: float, status: str) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=gib * 2**30))
    assert doctor._memory().status == status


def test_disk_is_measured_at_the_nearest_existing_folder(tmp_path: Path) -> None:
    assert doctor._disk(tmp_path / "a" / "b").detail.endswith(f"at {tmp_path}")


def test_every_cuda_device_is_listed_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="Card 9", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    rows = {check.name: check for check in doctor._accelerators()}
    assert rows["cuda:0"].detail == rows["cuda:1"].detail == "Card 9, 24.0 GiB"
    assert rows["mps"].status == "WARN"
    assert rows["device auto"].detail == "cuda, computes in torch.float16"


def test_a_torch_that_does_not_import_fails_instead_of_raising(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    checks = doctor._guarded("accelerators", doctor._accelerators)
    assert [check.status for check in checks] == ["FAIL"]


def test_a_diagnosis_with_one_failure_has_not_passed() -> None:
    assert not Diagnosis((Check("a", "PASS", ""), Check("b", "FAIL", ""))).passed
