"""Tasks through JSON, and axes that must not be mirrored."""

from __future__ import annotations

import json

import pytest

from nnduet.errors import SettingsError
from nnduet.schema import Task, tasks_from_json, tasks_to_json


def test_fixed_axes_survive_json() -> None:
    tasks = (Task("side", "binary", ("left", "right"), fixed_axes=("x", "z")), Task("age", "regression", unit="y"))
    assert tasks_from_json(json.loads(json.dumps(tasks_to_json(tasks)))) == tasks


def test_fixed_axes_are_written_only_where_there_are_any() -> None:
    assert tasks_to_json((Task("age", "regression"),)) == {"age": {"type": "regression"}}


@pytest.mark.parametrize("axes", [("w",), ("x", "x"), ("xy",)])
def test_an_axis_that_cannot_be_is_refused(axes: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="fixed axes expected some of"):
        Task("age", "regression", fixed_axes=axes)
