"""Where the truth comes from: a dataset.json, or a converted dataset and one of its folds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnduet.errors import DatasetError, SettingsError
from nnduet.evaluation.reference_sets import references_of_dataset, references_of_json
from nnduet.schema import Task, Workspace

DATASET = {"labels": {"background": 0, "lesion": 1}, "classification": {"grade": {"type": "binary", "classes": ["0", "1"]}}}
GRADE = Task("grade", "binary", ("0", "1"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(*(tmp_path / name for name in ("raw", "preprocessed", "results")))
    folder = workspace.raw / "Dataset003_Toy"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b", "c"]}]))
    (folder / "classification_labels.csv").write_text("case_id,grade\na,0\nb,1\nc,\n")
    return workspace


def test_a_dataset_brings_masks_labels_tasks_and_table(workspace: Workspace) -> None:
    truth = references_of_dataset(workspace, 3)
    folder = workspace.raw / "Dataset003_Toy"
    assert (truth.masks, truth.table) == (folder / "labelsTr", folder / "classification_labels.csv")
    assert truth.labels == DATASET["labels"]
    assert truth.tasks == (GRADE,)
    assert truth.case_ids is None


def test_a_fold_restricts_the_cases_to_its_validation_cases(workspace: Workspace) -> None:
    assert references_of_dataset(workspace, 3, fold=0).case_ids == ("b", "c")


def test_a_fold_that_is_not_there_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match="fold expected 0 to 0, got 4"):
        references_of_dataset(workspace, 3, fold=4)


def test_without_a_table_there_are_no_tasks_to_score(workspace: Workspace) -> None:
    path = workspace.raw / "Dataset003_Toy" / "dataset.json"
    assert references_of_json(path, masks=None, table=None).tasks == ()


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"labels": 3}'])
def test_a_file_without_labels_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        references_of_json(path, masks=None, table=None)
