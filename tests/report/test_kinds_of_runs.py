"""Reports, comparisons and evaluations of runs of every kind: masks alone, answers alone, a number alone, slices, one case."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nnduet.evaluation.evaluate import evaluate
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_segmentation
from nnduet.report.compare import compare_runs
from nnduet.report.page import write_report
from nnduet.report.runs import read_run
from nnduet.schema import Task

GRADE, AGE = Task("grade", "ordinal", ("G1", "G2", "G10")), Task("age", "regression", unit="y")
KINDS: dict[str, tuple[bool, tuple[Task, ...], int, str]] = {
    "masks alone": (True, (), 4, ".nii.gz"),
    "answers alone": (False, (GRADE, AGE), 4, ".nii.gz"),
    "a number alone": (False, (AGE,), 4, ".nii.gz"),
    "slices with a class": (True, (GRADE,), 4, ".png"),
    "one case": (True, (GRADE, AGE), 1, ".nii.gz"),
}
"""Whether there are masks, the tasks, the number of cases, the format."""


def write_run(folder: Path, kind: str) -> Path:
    """A scored run whose predictions are those of the references, a voxel shifted."""
    masks, tasks, count, ending = KINDS[kind]
    grid = Geometry((1, 16, 16) if ending == ".png" else (6, 16, 16))
    columns = [column for task in tasks for column in (task.name, *(f"{task.name}_p_{name}" for name in task.classes))]
    answers, truth = [",".join(["case_id", *columns])], [",".join(["case_id", *(task.name for task in tasks)])]
    for index in range(count):
        mask = np.zeros(grid.shape, np.uint8)
        mask[:, 4:10, 4:10] = 1
        if masks:
            write_segmentation(folder / "references" / f"c{index}{ending}", mask, grid)
            write_segmentation(folder / "predictions" / f"c{index}{ending}", np.roll(mask, 1, axis=2), grid)
        grade, shares = GRADE.classes[index % 3], ["0.1", "0.1", "0.1"]
        shares[index % 3] = "0.8"
        cells = {"grade": [grade, *shares], "age": [str(40 + index)]}
        answers.append(",".join([f"c{index}", *(cell for task in tasks for cell in cells[task.name])]))
        truth.append(",".join([f"c{index}", *({"grade": grade, "age": str(41 + 2 * index)}[task.name] for task in tasks)]))
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    if tasks:
        (folder / "predictions" / "classification.csv").write_text("\n".join(answers) + "\n")
        (folder / "table.csv").write_text("\n".join(truth) + "\n")
    evaluate(
        folder / "predictions",
        folder / "references" if masks else None,
        labels={"background": 0, "organ": 1},
        tasks=tasks,
        table=folder / "table.csv" if tasks else None,
        output=folder / "scores",
        num_bootstrap=20,
    )
    return folder / "scores"


@pytest.mark.parametrize("kind", KINDS)
def test_row_99_every_kind_of_run_has_a_page_and_is_compared(tmp_path: Path, kind: str) -> None:
    masks, tasks, count, _ = KINDS[kind]
    scores = write_run(tmp_path, kind)
    summary = write_report(read_run(scores), tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    assert summary.num_cases == count and len(re.findall(r'<th scope="row">c\d', text)) == count
    assert ('id="segmentation"' in text) == masks and ('id="classification"' in text) == bool(tasks)
    found = compare_runs(scores, scores, output=tmp_path / "compared", num_bootstrap=20)
    assert list(found["tasks"]) == [task.name for task in tasks] and ("organ" in found["segmentation"]) == masks
    differences = [entry["difference"] for part in found["segmentation"].values() for entry in part["metrics"].values()]
    assert set(differences) <= {0.0}
    assert (tmp_path / "compared" / "comparison.csv").read_text().count("\n") == count + 1


def test_a_run_is_compared_with_one_of_another_kind_on_what_both_have(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "a", "answers alone"), write_run(tmp_path / "b", "a number alone")
    found = compare_runs(one, other, num_bootstrap=20)
    assert list(found["tasks"]) == ["age"] and found["segmentation"] == {}
    assert found["only_in_one_run"]["tasks"] == {"a": ["grade"], "b": []}
