"""Row 138 of the list of faults: what somebody put among the preprocessed cases is refused, and no pickle is run."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from planned import cases_folder, copy_of, plan_pictures
from tiny import DATASET_ID, Canary

from nnduet.errors import CorruptFileError, DatasetError, NNDuetError
from nnduet.nnunet_types import LabelManager
from nnduet.schema import Workspace
from nnduet.training.case_properties import read_properties
from nnduet.training.patch_evidence import Evidence
from nnduet.training.preprocessed import PreprocessedCases, checksums_of
from nnduet.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    before = dict(os.environ)
    yield plan_pictures(tmp_path_factory.mktemp("planted"))
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def workspace(planned: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(planned, tmp_path)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def plant(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Canary(canary)))


def refuse(workspace: Workspace, error: type[NNDuetError], match: str, fold: Any) -> None:
    with pytest.raises(error, match=match):
        train(DATASET_ID, "2d", fold, workspace=workspace, epochs=1, device="cpu")


@pytest.mark.parametrize("fold", ["all", 0])
def test_row_138_a_case_that_nobody_listed_is_refused_by_name(workspace: Workspace, canary: Path, fold: Any) -> None:
    cases = cases_folder(workspace)
    for ending in (".b2nd", "_seg.b2nd"):
        shutil.copy(cases / f"case_00{ending}", cases / f"zz{ending}")
    plant(cases / "zz.pkl", canary)
    refuse(workspace, DatasetError, r"holds 3 files that `nnduet plan` did not write \(zz\.b2nd, zz\.pkl, zz_seg\.b2nd\)", fold)
    assert not canary.exists()


def test_row_138_a_planted_pickle_is_not_run_where_the_checksums_are_gone_too(workspace: Workspace, canary: Path) -> None:
    plant(cases_folder(workspace) / "case_00.pkl", canary)
    checksums_of(cases_folder(workspace)).unlink()
    refuse(workspace, CorruptFileError, r"case_00\.pkl: .*which was not run", "all")
    assert not canary.exists()


def test_row_138_checksums_that_name_files_elsewhere_are_refused(workspace: Workspace) -> None:
    sums = checksums_of(cases_folder(workspace))
    sums.write_text('{"../../victim.pkl": "00"}')
    victim = cases_folder(workspace).parents[1] / "victim.pkl"
    victim.write_bytes(b"kept")
    refuse(workspace, DatasetError, r"expected names of files in .*got '\.\./\.\./victim\.pkl'", 0)
    assert victim.read_bytes() == b"kept"


def test_row_138_listed_cases_that_the_raw_data_lack_are_not_made_again(workspace: Workspace) -> None:
    cases = cases_folder(workspace)
    sums = checksums_of(cases)
    sums.write_text(sums.read_text().replace("{", '{"zz.pkl": "00",', 1))
    refuse(workspace, CorruptFileError, r"\['zz'\] changed on the disk, and .* has no such cases", 0)


@pytest.mark.parametrize("reader", ["dataset", "evidence", "plain"])
def test_row_138_every_reader_of_properties_takes_them_as_data(workspace: Workspace, canary: Path, reader: str) -> None:
    path = cases_folder(workspace) / "case_00.pkl"
    plant(path, canary)
    with pytest.raises(CorruptFileError, match="not run"):
        if reader == "dataset":
            PreprocessedCases(str(path.parent), ["case_00"]).load_case("case_00")
        elif reader == "evidence":
            Evidence(str(path.parent), cast(LabelManager, None))._of_case("case_00")
        else:
            read_properties(path)
    assert not canary.exists()


def test_properties_are_read_as_nnunet_reads_them(planned: Workspace) -> None:
    path = cases_folder(planned) / "case_00.pkl"
    expected = pickle.loads(path.read_bytes())
    found = read_properties(path)
    assert found.keys() == expected.keys()
    for label, voxels in expected["class_locations"].items():
        np.testing.assert_array_equal(found["class_locations"][label], voxels)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_data(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": np.arange(6).reshape(2, 3), "b": np.float64(0.5), "c": (1, "x")}, protocol))
    found = read_properties(path)
    np.testing.assert_array_equal(found["a"], np.arange(6).reshape(2, 3))
    assert (found["b"], found["c"]) == (0.5, (1, "x"))


@pytest.mark.parametrize("content", [b"", b"\x80\x04", pickle.dumps([1]), b"cos\nsystem\n(S'true'\ntR."])
def test_what_is_no_pickle_of_properties_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"a\.pkl"):
        read_properties(tmp_path / "a.pkl")
