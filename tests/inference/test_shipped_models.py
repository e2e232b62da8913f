"""Models that come with nnDuet are found by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnduet.errors import ModelError
from nnduet.inference.shipped_models import SHIPPED, find_model, shipped_models


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert find_model(tmp_path) == tmp_path
    assert find_model(str(tmp_path)) == tmp_path


def test_a_name_is_the_shipped_model() -> None:
    assert "lidc-nodule" in shipped_models()
    assert find_model("lidc-nodule") == SHIPPED / "lidc-nodule"


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lidc-nodule").mkdir()
    assert find_model("lidc-nodule") == Path("lidc-nodule")


def test_what_is_neither_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no-such-model: expected a model folder or .*lidc-nodule"):
        find_model("no-such-model")
