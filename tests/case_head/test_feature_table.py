"""The table of features on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnduet.case_head.feature_table import FeatureTable
from nnduet.errors import ModelError


def table() -> FeatureTable:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    values[1, 2] = np.nan
    network = {"grade": np.array([[0.25, 0.75]] * 3, np.float32)}
    return FeatureTable(("a", "b", "ç"), values, {"shape": range(3), "stage 0": range(3, 4)}, network)


def test_a_saved_table_is_read_as_it_was(tmp_path: Path) -> None:
    table().save(tmp_path / "features.npz")
    again = FeatureTable.load(tmp_path / "features.npz")
    assert (again.case_ids, again.blocks) == (table().case_ids, table().blocks)
    np.testing.assert_array_equal(again.values, table().values)
    np.testing.assert_array_equal(again.network["grade"], table().network["grade"])
    assert again.descriptors == table().descriptors == 2


def with_version(path: Path, version: int | None) -> Path:
    """The table with another version of its descriptors, or with none, as it was written before there were several."""
    table().save(path)
    with np.load(path) as stored:
        arrays: dict[str, Any] = {name: stored[name] for name in stored.files if name != "descriptors"}
    if version is not None:
        arrays["descriptors"] = np.array(version)
    np.savez(path, **arrays)
    return path


def test_a_table_without_a_version_has_descriptors_of_the_first(tmp_path: Path) -> None:
    old = FeatureTable.load(with_version(tmp_path / "features.npz", None))
    assert old.descriptors == old.rows(["a"]).descriptors == 1
    old.save(tmp_path / "again.npz")
    assert FeatureTable.load(tmp_path / "again.npz").descriptors == 1


def test_descriptors_of_a_later_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"descriptors of a version among \(1, 2\), got 3; update nnduet"):
        FeatureTable.load(with_version(tmp_path / "features.npz", 3))


def test_rows_come_in_the_order_asked_for() -> None:
    chosen = table().rows(["ç", "a"])
    assert chosen.case_ids == ("ç", "a")
    assert chosen.values[:, 0].tolist() == [8.0, 0.0]


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found no file") as error:
        FeatureTable.load(tmp_path / "features.npz")
    assert "nnduet train … --resume" in error.value.remedy


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    table().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable table"):
        FeatureTable.load(path)


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    FeatureTable(("a",), table().values, table().blocks, {}).save(tmp_path / "features.npz")
    with pytest.raises(ModelError, match="one row per case"):
        FeatureTable.load(tmp_path / "features.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "features.npz", case_ids=np.array([{}], dtype=object))
    with pytest.raises(ModelError, match="not a readable table"):
        FeatureTable.load(tmp_path / "features.npz")
