"""Evidence maps of a run's own answers reach the viewer, or the reason why they do not is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import write_tiny_dataset

from nnduet import Predictor
from nnduet.errors import ModelError, SettingsError
from nnduet.inference.folder_runs import predict_folder
from nnduet.report.explained_cases import ExplainedCases
from nnduet.report.page import write_report
from nnduet.report.runs import read_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def predicted(model_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicted")
    images = write_tiny_dataset(folder / "user", 3, 3) / "images"
    predict_folder(Predictor.load(model_3d, device="cpu"), images, folder / "out")
    return folder / "out"


def test_the_map_explains_the_answer_of_the_run_and_reaches_the_viewer(model_3d: Path, predicted: Path, tmp_path: Path) -> None:
    run = read_run(predicted)
    explain = ExplainedCases(run, "grade", model_3d)
    write_report(run, tmp_path, viewer_cases=2, explain=explain)
    answer = run.tasks[0].task.classes[int(run.tasks[0].prediction[0])]
    assert f"evidence of the network head for {answer} (grade)" in (tmp_path / "index.html").read_text()
    assert all('"evidence"' in path.read_text() for path in (tmp_path / "volumes").iterdir())
    values, _ = explain("case_00", predicted.parent / "user" / "images" / "case_00_0000.nii.gz")
    assert values.shape == (12, 20, 20) and 0 <= values.min() <= values.max() <= 1


def test_an_unknown_task_and_a_missing_model_are_refused(predicted: Path, model_3d: Path) -> None:
    with pytest.raises(SettingsError, match=r"expected one of the tasks \['grade'\].*, got 'stage'|\['grade', 'age'\]"):
        ExplainedCases(read_run(predicted), "stage", model_3d)
    with pytest.raises(ModelError, match="name the one that answered"):
        ExplainedCases(read_run(predicted), "grade")


def test_each_case_of_a_cross_validation_is_explained_by_the_fold_that_had_not_seen_it(
    model_3d: Path, predicted: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(model_3d, tmp_path / "model"))
    folder = Path(shutil.copytree(predicted, model / "cross_validation"))
    table = folder / "classification.csv"
    head, *lines = table.read_text().splitlines()
    folds = [f"{line},{index % 2}" for index, line in enumerate(lines)]
    table.write_text("\n".join([f"{head},fold", *folds]) + "\n")
    explain = ExplainedCases(read_run(model), "grade")
    for case in ("case_00", "case_01"):
        explain(case, predicted.parent / "user" / "images" / f"{case}_0000.nii.gz")
    assert set(explain._maps) == {"0", "1"}
