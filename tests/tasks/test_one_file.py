"""A task type is one file: nothing outside ``nnduet/tasks`` knows the name of one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nnduet
from nnduet.errors import SettingsError
from nnduet.schema import Task, tasks_from_json
from nnduet.tasks import TASK_KINDS, TASK_TYPES

PACKAGE = Path(nnduet.__file__).parent
OUTSIDE = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "tasks")
OTHER_MEANING = {"io/nifti_header.py": {"binary"}}
"""Texts that are no task types: a NIfTI file of one bit a voxel."""


def _named_types(path: Path) -> set[str]:
    """Task types that stand as a text of their own in a module."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts & set(TASK_TYPES)


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_of_another_room_names_a_task_type(path: Path) -> None:
    assert _named_types(path) <= OTHER_MEANING.get(path.relative_to(PACKAGE).as_posix(), set())


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_of_another_room_asks_what_class_a_task_type_is_of(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = {type(kind).__name__ for kind in TASK_KINDS}
    assert not kinds & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("kind", TASK_KINDS, ids=lambda kind: kind.name)
def test_a_type_has_a_file_of_its_name_and_one_line_in_the_list(kind: object) -> None:
    own = type(kind)
    assert own.__module__ == f"nnduet.tasks.{own.__name__.lower()}"
    assert not own.__subclasses__()
    lines = (PACKAGE / "tasks" / "__init__.py").read_text(encoding="utf-8").split("TASK_KINDS: tuple")[1].splitlines()
    assert f"{own.__name__}()" in lines[0]


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"task x: type expected one of \('binary', .*'multilabel'\), got 'survival'"):
        Task("x", "survival", ("a", "b"))
    with pytest.raises(SettingsError, match="got 'survival'"):
        tasks_from_json({"x": {"type": "survival", "classes": ["a", "b"]}})
