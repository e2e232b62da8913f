"""Row 102 of the list of faults: configurations that are no ordinary ones work, or are refused by name by plan and train."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planned import copy_of, edit_json, plan_pictures, plans_file
from tiny import DATASET, DATASET_ID

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.inference.predictor import Predictor
from nnduet.records import read_json
from nnduet.schema import Workspace
from nnduet.training.plan_files import PlanChanges
from nnduet.training.planning import plan
from nnduet.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    before = dict(os.environ)
    yield plan_pictures(tmp_path_factory.mktemp("configurations"))
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def workspace(planned: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(planned, tmp_path)


def add(workspace: Workspace, name: str, **entries: Any) -> None:
    edit_json(plans_file(workspace), lambda plans: plans["configurations"].update({name: entries}))


def keep(workspace: Workspace, **options: Any) -> Any:
    return plan(DATASET_ID, "cpu", workspace=workspace, keep=True, num_processes=1, **options)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"inherits_from": "2d", "previous_stage": "3d_lowres"}, "configuration mine: .* trains no cascades"),
        ({"inherits_from": "2d", "patch_size": [13, 21]}, r"configuration mine: patch_size expected a multiple of \d+"),
        ({"inherits_from": "mine"}, "configuration mine: cannot inherit from 'mine'"),
        ({"inherits_from": "2d", "data_identifier": "../gt_segmentations"}, "data_identifier .*choose another name"),
    ],
)
def test_row_102_plan_and_train_refuse_by_name(workspace: Workspace, entries: dict[str, Any], named: str) -> None:
    add(workspace, "mine", **entries)
    with pytest.raises(SettingsError, match=named):
        keep(workspace, configurations=["mine"])
    with pytest.raises(Exception, match=named):
        train(DATASET_ID, "mine", 0, workspace=workspace, device="cpu")
    assert (workspace.preprocessed / DATASET / "gt_segmentations" / "case_00.png").is_file()


@pytest.mark.slow
def test_row_102_a_configuration_that_inherits_trains_and_predicts(workspace: Workspace) -> None:
    add(workspace, "mine", inherits_from="2d", batch_size=3)
    summary = train(DATASET_ID, "mine", 0, workspace=workspace, epochs=1, device="cpu")
    assert summary.model.endswith("__mine")
    case = workspace.raw / DATASET / "imagesTr" / "case_00_0000.png"
    assert Predictor.load(summary.model, device="cpu", tta=False)(case).segmentation.shape == (1, 32, 32)


def test_row_102_a_patch_option_that_does_not_fit_is_refused_before_the_plans_change(workspace: Workspace) -> None:
    before = plans_file(workspace).read_bytes()
    for patch, named in (((13, 21), "a multiple of"), ((8, 16, 16), "as many numbers as axes")):
        with pytest.raises(SettingsError, match=named):
            keep(workspace, changes=PlanChanges(patch_size=patch))
    assert plans_file(workspace).read_bytes() == before


def test_a_folder_with_other_files_is_not_replaced(workspace: Workspace) -> None:
    edit_json(plans_file(workspace), lambda plans: plans["configurations"]["2d"].update(data_identifier="gt_segmentations"))
    with pytest.raises(
        OutputExistsError, match=r"gt_segmentations: holds other files than preprocessed cases \(case_00\.png\)"
    ):
        keep(workspace)
    assert (workspace.preprocessed / DATASET / "gt_segmentations" / "case_00.png").is_file()


def test_an_interrupted_plan_leaves_the_old_cases(workspace: Workspace) -> None:
    folder = workspace.preprocessed / DATASET / "nnDuetCpuPlans_2d"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def stop(done: int, total: int, text: str) -> None:
        if text.startswith("preprocess") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(workspace, progress=stop)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    keep(workspace)
    assert not [path for path in folder.parent.iterdir() if path.suffix in (".partial", ".old")]
    assert read_json(plans_file(workspace))["plans_name"] == "nnDuetCpuPlans"
