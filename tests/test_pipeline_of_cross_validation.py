"""Cross-validation of a tiny dataset, interrupted in its second fold; nothing stood in for."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_dataset import edit_plans
from tiny import DATASET, DATASET_ID, SPACING_MM, tiny_case, tiny_workspace

from nnduet.case_head.calibration import conformal_threshold
from nnduet.errors import ResumeError
from nnduet.inference.predictor import Predictor
from nnduet.io.files import file_digest
from nnduet.records import to_plain
from nnduet.schema import Workspace
from nnduet.training.cross_validation import CrossValidationSummary, cross_validate
from nnduet.training.planning import plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

NUM_CASES, EPOCHS = 16, 2
CASES = [f"case_{index:02d}" for index in range(NUM_CASES)]


@dataclass(frozen=True)
class Run:
    """A finished cross-validation of two folds, which an interruption parted."""

    workspace: Workspace
    first_fold: dict[str, str]
    summary: CrossValidationSummary

    @property
    def model(self) -> Path:
        return Path(self.summary.model)

    @property
    def folder(self) -> Path:
        return self.model / "cross_validation"


def validate(workspace: Workspace, **options: Any) -> CrossValidationSummary:
    return cross_validate(DATASET_ID, "2d", workspace=workspace, **{"epochs": EPOCHS, "device": "cpu", **options})


def digests(folder: Path) -> dict[str, str]:
    names = ("checkpoint_final.pth", "case_head.json", "final_metrics.json", "progress.csv")
    return {name: file_digest(folder / name) for name in names}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    workspace = tiny_workspace(tmp_path_factory.mktemp("crossval"), 2, NUM_CASES)
    planned = plan(DATASET_ID, "cpu", workspace=workspace, configurations=["2d"], num_processes=1)
    edit_plans(planned.plans_file, iterations_per_epoch=2, validation_iterations=1)

    def stop_in_fold_1(done: int, total: int, text: str) -> None:
        if text == "fold 1: train epoch 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(workspace, progress=stop_in_fold_1)
    (first,) = (workspace.results / DATASET).glob("*/fold_0")
    before = digests(first)
    return Run(workspace, before, validate(workspace, resume=True))


def test_resuming_leaves_the_finished_fold_and_finishes_the_other(run: Run) -> None:
    assert digests(run.model / "fold_0") == run.first_fold
    assert [row["epoch"] for row in rows(run.model / "fold_1" / "progress.csv")] == ["0", "1"]
    assert not (run.model / "fold_1" / "checkpoint_latest.pth").exists()


def test_every_case_is_out_of_fold_exactly_once(run: Run) -> None:
    splits = json.loads((run.workspace.preprocessed / DATASET / "splits_final.json").read_text())
    table = rows(run.folder / "classification.csv")
    assert [row["case_id"] for row in table] == CASES
    for row in table:
        assert row["case_id"] in splits[int(row["fold"])]["val"]
        own = {r["case_id"]: r for r in rows(run.model / f"fold_{row['fold']}" / "validation" / "classification.csv")}
        assert row == {**own[row["case_id"]], "fold": row["fold"]}
    assert sorted(path.name for path in run.folder.glob("*.png")) == [f"{case_id}.png" for case_id in CASES]


def test_all_cases_enter_the_metrics(run: Run) -> None:
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics == to_plain(run.summary.metrics)
    assert metrics["num_cases"] == NUM_CASES
    assert metrics["segmentation"]["foreground"]["avd_ml"]["n_defined"] == NUM_CASES
    assert metrics["tasks"]["age"]["metrics"]["mae"]["n_defined"] == NUM_CASES
    uncertainty = metrics["uncertainty"]
    assert (uncertainty["grade"]["num_cases"], uncertainty["age"]["num_cases"]) == (NUM_CASES - 1, NUM_CASES)
    assert all(task["folds_without_scores"] == [] for task in uncertainty.values())
    sizes = {rate: entry["mean_set_size"]["value"] for rate, entry in uncertainty["grade"]["prediction_sets"].items()}
    assert 1 <= sizes["0.2"] <= sizes["0.1"] <= sizes["0.05"] <= 2
    assert len(rows(run.folder / "per_case.csv")) == NUM_CASES


def test_a_finished_cross_validation_is_repeated_without_training(run: Run) -> None:
    folds = [run.model / "fold_0", run.model / "fold_1"]
    before = [digests(fold) for fold in folds]
    told: list[str] = []
    again = validate(run.workspace, resume=True, progress=lambda done, total, text: told.append(text))
    assert again.metrics == run.summary.metrics
    assert [digests(fold) for fold in folds] == before
    assert not [text for text in told if ": check case_" not in text]


def test_folds_with_more_epochs_than_asked_for_are_refused_and_results_stay(run: Run) -> None:
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(ResumeError, match=f"{EPOCHS} of {EPOCHS} epochs are done; --epochs expected more, got {EPOCHS - 1}"):
        validate(run.workspace, resume=True, epochs=EPOCHS - 1)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_both_folds_answer_with_cross_validated_sets_and_one_with_its_own(run: Run) -> None:
    stored = json.loads((run.folder / "conformal.json").read_text())
    assert {name: (entry["folds"], len(entry["scores"])) for name, entry in stored.items()} == {
        "grade": ([0, 1], NUM_CASES - 1),
        "age": ([0, 1], NUM_CASES),
    }
    image = tiny_case(NUM_CASES, 2)[0]
    both, one = (Predictor.load(run.model, folds, device="cpu", error_rate=0.2) for folds in ([0, 1], [1]))
    assert one.model.conformal == {}
    own = one.model.members[0].case_heads["age"].threshold(0.2)
    pooled = conformal_threshold(stored["age"]["scores"], 0.2)
    assert not math.isclose(own, pooled)
    for predictor, threshold in ((both, pooled), (one, own)):
        answer = predictor(image, spacing_mm=SPACING_MM[2]).tasks["age"]
        assert answer.value is not None and answer.interval is not None
        assert np.diff(answer.interval)[0] == pytest.approx(2 * threshold)
