"""A task type is one file: nothing outside ``nnduet/tasks`` knows the name of one."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import nnduet
from nnduet.case_head.fit import fit_case_head
from nnduet.datasets.case_tables import read_table
from nnduet.datasets.task_specs import parse_task_specs
from nnduet.errors import SettingsError
from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.task_scores import score_task
from nnduet.inference.task_predictions import combine
from nnduet.network.losses import class_loss
from nnduet.schema import Task
from nnduet.task_list import tasks_from_json
from nnduet.tasks import TASK_KINDS, TASK_TYPES
from nnduet.tasks.multiclass import Multiclass

PACKAGE = Path(nnduet.__file__).parent
OUTSIDE = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "tasks")
OTHER_MEANING = {"io/nifti_header.py": {"binary"}}
"""Texts that are no task types: a NIfTI file of one bit a voxel."""


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_of_another_room_names_a_task_type_or_its_class(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert texts & set(TASK_TYPES) <= OTHER_MEANING.get(path.relative_to(PACKAGE).as_posix(), set())
    assert not {type(kind).__name__ for kind in TASK_KINDS} & {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize("kind", TASK_KINDS, ids=lambda kind: kind.name)
def test_a_type_has_a_file_of_its_name_and_one_line_in_the_list(kind: object) -> None:
    own = type(kind)
    assert own.__module__ == f"nnduet.tasks.{own.__name__.lower()}"
    lines = (PACKAGE / "tasks" / "__init__.py").read_text(encoding="utf-8").split("TASK_KINDS: tuple")[1].splitlines()
    assert f"{own.__name__}()" in lines[0]


class Doubtful(Multiclass):
    """A type that only this test knows: cells may end in a question mark, and the loss is half of the log loss."""

    name = "doubtful"

    def guessed_from(self, values: Sequence[str]) -> bool:
        return False

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        return False

    def split(self, cell: str) -> tuple[str, ...]:
        return (cell.removesuffix("?"),)

    def spelling(self, task: Task, cell: str) -> str:
        return super().spelling(task, cell.removesuffix("?"))

    def loss(self, head_outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().loss(head_outputs, targets) / 2


def test_a_type_that_only_a_test_knows_goes_from_a_cell_to_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (*TASK_KINDS, Doubtful())
    monkeypatch.setattr("nnduet.tasks._BY_NAME", {kind.name: kind for kind in kinds})
    monkeypatch.setattr("nnduet.datasets.task_specs.TASK_KINDS", kinds)
    table = tmp_path / "cases.csv"
    table.write_text("case_id,grade\n" + "".join(f"c{i},{'high?' if i % 2 else 'low'}\n" for i in range(20)), encoding="utf-8")
    read = read_table(table)
    (task,) = parse_task_specs(["grade:doubtful"], read)
    assert task.classes == ("high", "low")
    truth = np.array([task.encode(cell) for cell in read.answers(task).values()])
    _, losses = class_loss((task,), {"grade": torch.zeros(20, 2)}, {"grade": torch.tensor(truth)}, torch.ones(20))
    assert losses["grade"] == pytest.approx(math.log(2) / 2)
    cases = tuple(read.rows)
    head = fit_case_head(
        task, truth[:, None] + np.random.default_rng(0).normal(0, 0.1, (20, 1)), truth, cases, models=["shrinkage LDA"]
    )
    assert head is not None
    outputs = head(truth[:, None])
    answers = TaskAnswers(task, cases, cases, truth, task.kind.answers(outputs), outputs)
    assert combine(task, [outputs[1]]).label == "high"
    assert score_task(answers, num_resamples=0, seed=0).metrics["macro_f1"].value == 1


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"task x: type expected one of \('binary', .*'multilabel'\), got 'survival'"):
        Task("x", "survival", ("a", "b"))
    with pytest.raises(SettingsError, match="got 'survival'"):
        tasks_from_json({"x": {"type": "survival", "classes": ["a", "b"]}})
