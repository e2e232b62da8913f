"""The whole road in miniature: read, convert, plan, train, interrupt, resume, predict, evaluate; nothing stood in for."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from PIL import Image
from small_dataset import CASES, FLIPPED, PERMUTED, edit_plans, workspace_in, write_pictures, write_volumes
from typer.testing import CliRunner

from nnduet.cli import app
from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import OutputExistsError
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import references_of_dataset
from nnduet.inference.folder_runs import PredictionSummary, predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.records import to_plain
from nnduet.schema import Workspace
from nnduet.training.planning import plan
from nnduet.training.run import TrainingSummary, train
from nnduet.training.trainer import nnUNetTrainerMultitask

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

EPOCHS = 2
SINGLE_PROCESS = {"nnUNet_n_proc_DA": "0"}
TINY = {"iterations_per_epoch": 2, "validation_iterations": 1}
TRAIN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from nnduet.schema import Workspace
from nnduet.training.run import train

def die_in_epoch_2(done, total, text):
    if text == "train epoch 2":
        os.kill(os.getpid(), signal.SIGKILL)

train(1, "3d_fullres", 0, workspace=Workspace(*map(Path, sys.argv[1:])), epochs=2, device="cpu", progress=die_in_epoch_2)
"""


@dataclass(frozen=True)
class Road:
    """What the uninterrupted run of the 3D cases left behind."""

    source: Path
    workspace: Workspace
    plans_file: Path
    training: TrainingSummary
    predicted: PredictionSummary

    @property
    def fold(self) -> Path:
        return Path(self.training.model) / "fold_0"

    @property
    def preprocessed(self) -> Path:
        return self.workspace.preprocessed / self.workspace.dataset_name(1)

    def elsewhere(self, results: Path) -> Workspace:
        """The same data with another folder for results."""
        return replace(self.workspace, results=results)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("road")
    before = dict(os.environ)
    workspace = workspace_in(folder / "workspace")
    source = write_volumes(folder / "cases")
    cases = read_folder(source, task_specs=["grade:binary", "age:regression"])
    convert(cases, workspace=workspace, dataset_id=1, name="Small", num_folds=3)
    planned = plan(1, "cpu", workspace=workspace, num_processes=1)
    edit_plans(planned.plans_file, **TINY)
    training = train(1, "3d_fullres", 0, workspace=workspace, epochs=EPOCHS, device="cpu")
    predictor = Predictor.load(training.model, device="cpu")
    predicted = predict_folder(predictor, workspace.raw / planned.dataset / "imagesTs", folder / "predictions")
    yield Road(source, workspace, Path(planned.plans_file), training, predicted)
    os.environ.clear()
    os.environ.update(before)


def test_a_fold_leaves_weights_history_tables_and_metrics(road: Road) -> None:
    validation = json.loads((road.preprocessed / "splits_final.json").read_text())[0]["val"]
    assert sorted(path.name for path in road.fold.glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_final.pth"]
    history = _rows(road.fold / "progress.csv")
    assert [row["epoch"] for row in history] == ["0", "1"]
    assert all(math.isfinite(float(row[name])) for row in history for name in ("train_loss", "class_loss", "task_age_loss"))

    answers = _rows(road.fold / "validation" / "classification.csv")
    assert sorted(row["case_id"] for row in answers) == sorted(validation)
    for row in answers:
        assert float(row["grade_p_low"]) + float(row["grade_p_high"]) == pytest.approx(1, abs=2e-6)
        assert math.isfinite(float(row["age"]))

    metrics = json.loads((road.fold / "final_metrics.json").read_text())
    assert metrics == to_plain(road.training.metrics)
    assert metrics["num_validation_cases"] == len(validation)
    assert set(metrics["tasks"]) == {"grade", "age"}
    assert 0 <= metrics["segmentation"]["foreground"]["dsc"]["value"] <= 1


def test_training_changes_the_encoder_and_the_heads(road: Road) -> None:
    final = _weights(road.fold / "checkpoint_final.pth")
    initial = _trainer(road).network.state_dict()
    assert initial.keys() == final.keys()
    for part in ("encoder.", "decoder.", "heads.trunk.", "heads.outputs.task_grade.", "heads.outputs.task_age."):
        names = [name for name in final if name.startswith(part) and name.endswith("weight") and final[name].ndim > 1]
        assert names
        moved = [name for name in names if _beyond_decay(initial[name], final[name]) > 1e-4]
        assert moved, f"{part}: nothing but weight decay between the first and the last epoch"


def test_the_same_seed_gives_the_same_first_weights(road: Road) -> None:
    torch.manual_seed(1)
    first = _trainer(road).network.state_dict()
    torch.manual_seed(2)
    assert _differing(first, _trainer(road).network.state_dict()) == []


def test_no_validation_case_or_patient_is_trained_on(road: Road) -> None:
    folds = json.loads((road.workspace.raw / road.workspace.dataset_name(1) / "splits_final.json").read_text())
    patients = {row["case_id"]: row["patient_id"] for row in _rows(road.source / "cases.csv")}
    assert len(folds) == 3
    for number, fold in enumerate(folds):
        training, validation = _trainer(road, fold=number).do_split()
        assert (training, validation) == (fold["train"], fold["val"])
        assert sorted(training + validation) == list(CASES)
        assert {patients[case] for case in training}.isdisjoint(patients[case] for case in validation)
    trainer = _trainer(road)
    train_loader, validation_loader = (loader.data_loader for loader in trainer.get_dataloaders())
    assert set(train_loader.indices) == set(folds[0]["train"])
    assert sorted(validation_loader.indices) == sorted(folds[0]["val"])


def test_an_exception_and_a_resume_equal_an_uninterrupted_run(road: Road, tmp_path: Path) -> None:
    def stop_in_epoch_2(done: int, total: int, text: str) -> None:
        if text == "train epoch 2":
            raise KeyboardInterrupt

    workspace = road.elsewhere(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(1, "3d_fullres", 0, workspace=workspace, epochs=EPOCHS, device="cpu", progress=stop_in_epoch_2)
    fold = tmp_path / road.fold.relative_to(road.workspace.results)
    assert sorted(path.name for path in fold.glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_latest.pth"]
    with pytest.raises(OutputExistsError):
        train(1, "3d_fullres", 0, workspace=workspace, epochs=EPOCHS, device="cpu")
    resumed = train(1, "3d_fullres", 0, workspace=workspace, epochs=EPOCHS, resume=True, device="cpu")
    _assert_same_training(road, fold)
    assert resumed.metrics == road.training.metrics


def test_a_kill_and_a_resume_by_the_command_equal_an_uninterrupted_run(road: Road, tmp_path: Path) -> None:
    variables = road.elsewhere(tmp_path).environment()
    killed = _run(sys.executable, "-c", TRAIN_AND_DIE, *variables.values(), variables=variables)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    fold = tmp_path / road.fold.relative_to(road.workspace.results)
    assert (fold / "checkpoint_latest.pth").is_file()
    assert not (fold / "final_metrics.json").exists()
    answer = _command("train", "1", "--resume", "--epochs", str(EPOCHS), "--device", "cpu", variables=variables)
    assert answer["metrics"] == to_plain(road.training.metrics)
    assert not (fold / "checkpoint_latest.pth").exists()
    _assert_same_training(road, fold)


def test_a_finished_training_is_resumed_without_work(road: Road) -> None:
    before = {path: path.stat().st_mtime_ns for path in road.fold.rglob("*") if path.suffix in (".pth", ".csv", ".json")}
    again = train(1, "3d_fullres", 0, workspace=road.workspace, epochs=EPOCHS, resume=True, device="cpu")
    assert again.metrics == road.training.metrics
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("case_id", ["case_01", FLIPPED, PERMUTED])
def test_training_and_prediction_preprocess_alike(road: Road, case_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(road.training.model, device="cpu", tta=False)
    fed: list[torch.Tensor] = []
    run_members = predictor.run_members

    def keeping(image: torch.Tensor, *known: Any) -> Any:
        fed.append(image.clone())
        return run_members(image, *known)

    monkeypatch.setattr(predictor, "run_members", keeping)
    predictor(road.workspace.raw / road.workspace.dataset_name(1) / "imagesTr" / f"{case_id}_0000.nii.gz")
    folder = road.preprocessed / json.loads(road.plans_file.read_text())["configurations"]["3d_fullres"]["data_identifier"]
    stored = nnUNetDatasetBlosc2(str(folder), [case_id]).load_case(case_id)[0]
    assert len(fed) == 1
    np.testing.assert_allclose(np.asarray(stored[:]), fed[0].numpy(), atol=1e-5)  # nnU-Net zooms in float64, we by matrices


def test_masks_lie_on_the_grid_of_their_images(road: Road) -> None:
    images = road.workspace.raw / road.workspace.dataset_name(1) / "imagesTs"
    assert road.predicted.cases == sorted(f"new_{case}" for case in ("case_00", "case_01", FLIPPED, PERMUTED))
    directions = set()
    for case_id in road.predicted.cases:
        image = SimpleITK.ReadImage(str(images / f"{case_id}_0000.nii.gz"))
        mask = SimpleITK.ReadImage(str(Path(road.predicted.output) / f"{case_id}.nii.gz"))
        assert mask.GetSize() == image.GetSize()
        for property_of in (SimpleITK.Image.GetSpacing, SimpleITK.Image.GetOrigin, SimpleITK.Image.GetDirection):
            assert property_of(mask) == pytest.approx(property_of(image), abs=1e-5)
        assert set(np.unique(SimpleITK.GetArrayFromImage(mask))) <= {0, 1, 2}
        directions.add(image.GetDirection())
    assert len(directions) == 3


def test_every_task_has_a_table_of_names_and_answers(road: Road) -> None:
    output = Path(road.predicted.output)
    for task, title in (("grade", "Grade"), ("age", "Age")):
        rows = _rows(output / f"{task}_results.csv")
        assert list(rows[0]) == ["Names", title]
        assert [row["Names"] for row in rows] == road.predicted.cases
    assert {row["Grade"] for row in _rows(output / "grade_results.csv")} <= {"low", "high"}
    assert all(math.isfinite(float(row["Age"])) for row in _rows(output / "age_results.csv"))


def test_validation_and_prediction_of_the_raw_files_measure_the_same(road: Road, tmp_path: Path) -> None:
    truth = references_of_dataset(road.workspace, 1, fold=0)
    assert truth.case_ids is not None and truth.masks is not None
    images = road.workspace.raw / road.workspace.dataset_name(1) / "imagesTr"
    for case_id in truth.case_ids:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{case_id}_0000.nii.gz").symlink_to(images / f"{case_id}_0000.nii.gz")
    predict_folder(Predictor.load(road.training.model, device="cpu"), tmp_path / "images", tmp_path / "predictions")
    metrics = evaluate(
        tmp_path / "predictions",
        truth.masks,
        labels=truth.labels,
        tasks=truth.tasks,
        table=truth.table,
        case_ids=truth.case_ids,
        output=tmp_path / "evaluation",
    )
    for part in ("segmentation", "tasks"):
        assert getattr(metrics, part) == getattr(road.training.metrics, part)
    assert len(_rows(tmp_path / "evaluation" / "per_case.csv")) == len(truth.case_ids)


def test_case_heads_fitted_again_are_those_of_the_training(road: Road, tmp_path: Path) -> None:
    model = Path(shutil.copytree(road.training.model, tmp_path / "model"))
    variables = road.workspace.environment()
    answer = _command_here("fit-head", model, "--fold", "0", variables=variables)
    assert (model / "fold_0" / "case_head.json").read_bytes() == (road.fold / "case_head.json").read_bytes()
    metrics = json.loads((model / "fold_0" / "final_metrics.json").read_text())
    assert list(metrics) == list(to_plain(road.training.metrics))
    assert _numbers(metrics) == pytest.approx(_numbers(to_plain(road.training.metrics)), abs=1e-5, nan_ok=True)
    assert answer["metrics_files"] == {"0": str(model / "fold_0" / "final_metrics.json")}
    assert sorted(path.name for path in model.rglob("*")) == sorted(path.name for path in Path(road.training.model).rglob("*"))

    tables = [_rows(fold / "validation" / "classification.csv") for fold in (model / "fold_0", road.fold)]
    for again, before in zip(*tables, strict=True):
        assert (again["case_id"], again["grade"]) == (before["case_id"], before["grade"])
        assert again["grade_spread"] == "" != before["grade_spread"]


def test_the_probe_reads_what_the_training_stored(road: Road, tmp_path: Path) -> None:
    answer = _command_here("probe", road.training.model, "-o", tmp_path / "probe", variables=road.workspace.environment())
    stages = {row["block"] for row in answer["rows"] if row["block"].startswith("stage")}
    assert len(stages) > 1
    assert {"intensity", "shape", "all"} <= {row["block"] for row in answer["rows"]}
    assert sorted(path.name for path in (tmp_path / "probe").iterdir()) == ["probe.csv", "probe.json", "probe.png"]


def test_slices_of_volumes_train_and_predict_in_2d(road: Road, tmp_path: Path) -> None:
    training = train(1, "2d", "all", workspace=road.elsewhere(tmp_path), epochs=1, device="cpu")
    assert training.metrics.validated_on == "training cases"
    case = road.workspace.raw / road.workspace.dataset_name(1) / "imagesTs" / f"new_{PERMUTED}_0000.nii.gz"
    prediction = Predictor.load(training.model, device="cpu", tta=False)(case)
    assert prediction.segmentation.shape == SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(case))).shape
    assert set(prediction.tasks) == {"grade", "age"}


def test_the_commands_go_from_pictures_to_metrics(tmp_path: Path) -> None:
    pictures, workspace = write_pictures(tmp_path / "pictures"), workspace_in(tmp_path / "workspace")
    variables = workspace.environment()
    tasks = ("--task", "grade", "--task", "stage:ordinal")
    converted = _command_here("convert", pictures, "--dataset-id", "2", "--name", "Pictures", *tasks, variables=variables)
    assert converted["num_test_cases"] == 3
    planned = _command_here(
        "plan", "2", "--preset", "cpu", "--configuration", "2d", "--num-processes", "1", variables=variables
    )
    edit_plans(planned["plans_file"], **TINY)
    trained = _command_here("train", "2", "2d", "--epochs", str(EPOCHS), "--device", "cpu", variables=variables)
    assert trained["metrics"]["num_validation_cases"] == 2
    images, output = workspace.raw / converted["dataset"] / "imagesTs", tmp_path / "predictions"
    predicted = _command_here(
        "predict", "-i", images, "-o", output, "-m", trained["model"], "--device", "cpu", variables=variables
    )
    for case_id in predicted["cases"]:
        assert Image.open(output / f"{case_id}.png").size == Image.open(images / f"{case_id}_0000.png").size
    assert list(_rows(output / "stage_results.csv")[0]) == ["Names", "Stage"]
    assert {row["stage"] for row in _rows(output / "classification.csv")} <= {"1", "2", "3"}
    validated = Path(trained["model"]) / "fold_0" / "validation"
    metrics = _command_here("evaluate", "-p", validated, "--dataset-id", "2", "--fold", "0", variables=variables)
    assert metrics["tasks"] == trained["metrics"]["tasks"]


def _trainer(road: Road, fold: int = 0) -> Any:
    """An initialised trainer with the road's plans; its log goes to the road's results."""
    plans = json.loads(road.plans_file.read_text())
    plans["nnduet"]["training"]["num_epochs"] = EPOCHS
    os.environ.update(road.workspace.environment())
    os.environ.update(SINGLE_PROCESS)
    dataset_json = json.loads((road.preprocessed / "dataset.json").read_text())
    trainer = nnUNetTrainerMultitask(plans, "3d_fullres", fold, dataset_json, torch.device("cpu"))
    trainer.initialize()
    return trainer


def _assert_same_training(road: Road, fold: Path) -> None:
    """Weights and case heads are bit-equal, and the history is the same but for the seconds."""
    assert _differing(_weights(road.fold / "checkpoint_final.pth"), _weights(fold / "checkpoint_final.pth")) == []
    expected, got = (_rows(path / "progress.csv") for path in (road.fold, fold))
    assert [{**row, "seconds": ""} for row in got] == [{**row, "seconds": ""} for row in expected]
    assert (fold / "case_head.json").read_bytes() == (road.fold / "case_head.json").read_bytes()


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_checkpoint(checkpoint)["network_weights"]
    return weights


def _differing(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def _beyond_decay(initial: torch.Tensor, final: torch.Tensor) -> float:
    """Largest change that weight decay, which only scales, cannot explain."""
    scale = (initial * final).sum() / (initial * initial).sum()
    return float((final - scale * initial).abs().max())


def _numbers(value: Any, key: str = "") -> dict[str, Any]:
    """Every leaf of a JSON object under its dotted key."""
    if not isinstance(value, dict | list):
        return {key: value}
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for part, entry in entries for name, leaf in _numbers(entry, f"{key}.{part}").items()}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _run(*arguments: str | Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A process with as many threads as this one: sums in another order would differ in the last bit."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **SINGLE_PROCESS, **threads, **variables}
    return subprocess.run([*map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300)


def _command(*arguments: str | Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run the installed ``nnduet`` script and read its last line."""
    done = _run(Path(sys.executable).parent / "nnduet", *arguments, "--json", variables=variables)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _command_here(*arguments: str | Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """The same in this process, which has imported everything; the environment is put back."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SINGLE_PROCESS, **variables}.items():
            patch.setenv(name, value)
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
