"""Case heads fitted again from stored features: a model is replaced as a whole, or stays as it was."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny import DATASET
from trained import CASES, held_out, write_labels, write_trained_folder

from nnduet.case_head.feature_table import FeatureTable
from nnduet.errors import DatasetError, ModelError, NNDuetError, TableError
from nnduet.schema import Workspace
from nnduet.training.refitting import RefitSummary, refit_heads


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Workspace]:
    return write_trained_folder(tmp_path)


@dataclass(frozen=True)
class Refitted:
    """A refit of two folds, and the files before it; read only."""

    workspace: Workspace
    before: dict[str, bytes]
    summary: RefitSummary

    @property
    def model(self) -> Path:
        return Path(self.summary.model)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> Refitted:
    model, workspace = write_trained_folder(tmp_path_factory.mktemp("refitted"))
    return Refitted(workspace, content(model), refit_heads(model, workspace=workspace))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def content(model: Path) -> dict[str, bytes]:
    return {str(path.relative_to(model)): path.read_bytes() for path in sorted(model.rglob("*")) if path.is_file()}


def test_every_fold_gets_heads_tables_and_metrics(refitted: Refitted) -> None:
    model, summary = refitted.model, refitted.summary
    assert [(row.task, row.fold) for row in summary.rows] == [("grade", "0"), ("age", "0"), ("grade", "1"), ("age", "1")]
    for fold in (0, 1):
        folder = model / f"fold_{fold}"
        assert set(json.loads((folder / "case_head.json").read_text())["tasks"]) == {"grade", "age"}
        assert tuple(row["case_id"] for row in rows(folder / "validation" / "classification.csv")) == held_out(fold)
        metrics = json.loads(Path(summary.metrics_files[str(fold)]).read_text())
        assert (metrics["fold"], metrics["num_validation_cases"]) == (fold, 12)
        assert metrics["validated_on"] == "validation cases of the fold"
        assert metrics["segmentation"]["organ"]["dsc"]["value"] == pytest.approx(2 * 16 / (16 + 20))


def test_heads_name_the_descriptors_of_the_features_that_they_were_fitted_on(refitted: Refitted, tmp_path: Path) -> None:
    assert json.loads((refitted.model / "fold_0" / "case_head.json").read_text())["descriptors"] == 2
    model = Path(shutil.copytree(refitted.model, tmp_path / "model"))
    for name in ("features_training.npz", "features_validation.npz"):
        path = model / "fold_0" / name
        replace(FeatureTable.load(path), descriptors=1).save(path)
    refit_heads(model, workspace=refitted.workspace, folds=["0"])
    assert json.loads((model / "fold_0" / "case_head.json").read_text())["descriptors"] == 1
    path = model / "fold_0" / "features_training.npz"
    replace(FeatureTable.load(path), descriptors=2).save(path)
    with pytest.raises(ModelError, match="descriptors of versions 2 and 1"):
        refit_heads(model, workspace=refitted.workspace, folds=["0"])


def test_a_row_tells_what_was_chosen_and_what_it_is_worth(refitted: Refitted) -> None:
    grade, age, *_ = refitted.summary.rows
    assert "stage 1" in grade.features
    assert grade.metrics["macro_f1"] == 1.0
    assert grade.network_share == 0
    assert grade.inner_loss is not None and grade.inner_loss < 0.2
    assert "shape" in age.features
    assert age.metrics["mae"] is not None and age.metrics["mae"] < 2


def test_what_is_not_stored_stays_empty_and_the_masks_stay(refitted: Refitted) -> None:
    masks = {name: data for name, data in refitted.before.items() if name.endswith((".png", ".npz"))}
    answers = rows(refitted.model / "fold_0" / "validation" / "classification.csv")
    assert {row["grade_spread"] for row in answers} == {""}
    assert all(row["grade_set"] and row["outlier_score"] for row in answers)
    after = content(refitted.model)
    assert len(masks) == 2 * (12 + 2)
    assert {name: after[name] for name in masks} == masks
    assert not [name for name in after if name not in refitted.before and "tmp" in name]


def test_a_second_refit_changes_nothing(refitted: Refitted, tmp_path: Path) -> None:
    model = Path(shutil.copytree(refitted.model, tmp_path / "model"))
    refit_heads(model, workspace=refitted.workspace, folds=[0])
    assert content(model) == content(refitted.model)


def test_another_table_gives_other_answers(refitted: Refitted, tmp_path: Path) -> None:
    model, workspace = Path(shutil.copytree(refitted.model, tmp_path / "model")), refitted.workspace
    before = [row["grade"] for row in rows(model / "fold_0" / "validation" / "classification.csv")]
    (row, _) = refit_heads(model, workspace=workspace, folds=["0"], table=write_labels(tmp_path / "t.csv", swapped=True)).rows
    after = [row["grade"] for row in rows(model / "fold_0" / "validation" / "classification.csv")]
    assert after == [{"low": "high", "high": "low"}[label] for label in before]
    assert row.metrics["macro_f1"] == 1.0


def test_row_76_another_table_in_any_form_that_convert_reads(refitted: Refitted, tmp_path: Path) -> None:
    model, workspace = Path(shutil.copytree(refitted.model, tmp_path / "model")), refitted.workspace
    plain = write_labels(tmp_path / "t.csv").read_text()
    foreign = plain.replace("case_id", "image").replace("low", "Low ").replace(",", ";").replace("\n", ";;\n")
    (tmp_path / "t.csv").write_bytes(f"sep=;\n{foreign}".encode("utf-16"))
    found = refit_heads(model, workspace=workspace, table=tmp_path / "t.csv", id_column="image")
    assert [row.metrics for row in found.rows] == [row.metrics for row in refitted.summary.rows]


def test_only_the_named_fold_is_touched(trained: tuple[Path, Workspace]) -> None:
    model, workspace = trained
    before = content(model / "fold_0")
    seen: list[tuple[int, int, str]] = []
    refit_heads(model, workspace=workspace, folds=[1], progress=lambda *step: seen.append(step))
    assert content(model / "fold_0") == before
    assert seen == [(1, 1, "fold 1")]


def test_labels_and_masks_are_taken_from_raw_where_nothing_is_preprocessed(trained: tuple[Path, Workspace]) -> None:
    model, workspace = trained
    raw = workspace.raw / DATASET
    shutil.copytree(workspace.preprocessed / DATASET, raw)
    shutil.rmtree(workspace.preprocessed)
    (raw / "gt_segmentations").rename(raw / "labelsTr")
    assert len(refit_heads(model, workspace=workspace, folds=[0]).rows) == 2


def test_too_few_labels_leave_the_task_to_the_network_head(trained: tuple[Path, Workspace], tmp_path: Path) -> None:
    model, workspace = trained
    table = write_labels(tmp_path / "few.csv", labelled=4)
    grade, _ = refit_heads(model, workspace=workspace, folds=[0], table=table).rows
    assert (grade.model, grade.features, grade.inner_loss, grade.network_share) == ("network head", "", None, 1.0)
    assert json.loads((model / "fold_0" / "final_metrics.json").read_text())["heads"]["grade"] == "network head"


def test_a_fold_of_all_cases_says_that_it_was_measured_on_them(trained: tuple[Path, Workspace]) -> None:
    model, workspace = trained
    (model / "fold_0").rename(model / "fold_all")
    refit_heads(model, workspace=workspace, folds=["all"])
    metrics = json.loads((model / "fold_all" / "final_metrics.json").read_text())
    assert (metrics["fold"], metrics["validated_on"]) == ("all", "training cases")


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("fold_1/features_training.npz", "features_training.npz"),
        ("fold_1/features_validation.npz", "features_validation.npz"),
        (f"fold_1/validation/{CASES[1]}.png", "expected the mask"),
    ],
)
def test_an_error_in_the_second_fold_leaves_the_first_as_it_was(
    trained: tuple[Path, Workspace], lost: str, expected: str
) -> None:
    model, workspace = trained
    (model / lost).unlink()
    before = content(model)
    with pytest.raises(ModelError, match=expected):
        refit_heads(model, workspace=workspace)
    assert content(model) == before
    assert sorted(path.name for path in model.iterdir()) == ["dataset.json", "fold_0", "fold_1", "plans.json"]


def test_a_table_that_lacks_cases_is_refused_with_their_names(trained: tuple[Path, Workspace], tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"2 cases of fold 0 have no row: case_46, case_47"):
        refit_heads(trained[0], workspace=trained[1], table=write_labels(tmp_path / "t.csv", cases=CASES[:-2]))


def _without_plans(model: Path, workspace: Workspace) -> None:
    (model / "plans.json").unlink()


def _with_a_list_for_plans(model: Path, workspace: Workspace) -> None:
    (model / "plans.json").write_text("[]")


def _without_tasks(model: Path, workspace: Workspace) -> None:
    (model / "dataset.json").write_text("{}")


def _without_validated_folds(model: Path, workspace: Workspace) -> None:
    for path in model.glob("fold_*/final_metrics.json"):
        path.unlink()


def _without_references(model: Path, workspace: Workspace) -> None:
    shutil.rmtree(workspace.preprocessed / DATASET / "gt_segmentations")


def _without_labels(model: Path, workspace: Workspace) -> None:
    (workspace.preprocessed / DATASET / "classification_labels.csv").unlink()


def _with_features_of_another_model(model: Path, workspace: Workspace) -> None:
    shutil.copy(model / "fold_0" / "features_training.npz", model / "fold_0" / "features_validation.npz")


@pytest.mark.parametrize(
    ("break_it", "error", "expected"),
    [
        (_without_plans, ModelError, "plans.json: no such file"),
        (_with_a_list_for_plans, ModelError, "plans.json: Expected `object`, got `array`"),
        (_without_tasks, ModelError, "expected a model with tasks"),
        (_without_validated_folds, ModelError, r"expected validated folds , found \['fold_0', 'fold_1'\]"),
        (_without_references, DatasetError, "expected reference masks"),
        (_without_labels, DatasetError, "classification_labels.csv"),
        (_with_features_of_another_model, ModelError, r"no answers to \['age', 'grade'\]"),
    ],
)
def test_what_is_missing_is_named(
    trained: tuple[Path, Workspace], break_it: object, error: type[NNDuetError], expected: str
) -> None:
    assert callable(break_it)
    break_it(*trained)
    with pytest.raises(error, match=expected):
        refit_heads(trained[0], workspace=trained[1])


def test_a_fold_that_is_not_there_is_refused(trained: tuple[Path, Workspace]) -> None:
    with pytest.raises(ModelError, match=r"expected validated folds \['7'\]"):
        refit_heads(trained[0], workspace=trained[1], folds=[7])
