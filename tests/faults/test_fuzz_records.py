"""Rows 61 and 139: every command's every JSON file, cut or edited, gives an answer or an error that names the file."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bundle_files import manifest_of, tensors_of, write_parts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_changes import changed_json, cut_json, hostile_json
from tiny import (
    DATASET,
    DATASET_ID,
    TASK_SPECS,
    TASKS,
    tiny_dataset_json,
    tiny_head,
    tiny_workspace,
    write_tiny_dataset,
    write_tiny_model,
)

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import NNDuetError, TooLargeError
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import references_of_json
from nnduet.inference.case_records import RECORDS_FILE
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.inference.result_tables import write_tables
from nnduet.inference.task_predictions import CaseAnswers, TaskPrediction
from nnduet.model_store.bundles import write_bundle
from nnduet.model_store.folder_files import FolderFiles, read_case_heads
from nnduet.model_store.model_folder import load_model
from nnduet.report.compare import compare_runs
from nnduet.report.page import write_report
from nnduet.report.runs import read_run
from nnduet.schema import Workspace
from nnduet.training.planning import plan
from nnduet.training.run import train
from nnduet.training.trained_folds import read_trained_folds
from nnduet.training.trainer import nnUNetTrainerMultitask

EXAMPLES, MOST_SECONDS = 200, 4.0
"""Of each file; about a minute and a half for all on one core."""


class TimeIsUp(BaseException):
    """No Exception, so that hypothesis does not take it for a failure and stops."""


@dataclass(frozen=True)
class Target:
    """A sound run in a folder, a file in it, and what reads that file."""

    write: Callable[[Path], None]
    file: str
    read: Callable[[Path], object]
    other: str = ""
    """What a message may name instead: files that disagree with this one."""


def write_model(folder: Path) -> None:
    """Two folds with case heads, an outlier model and cross-validated scores."""
    model = write_tiny_model(folder / "model", 2, num_folds=2)
    size = load_model(FolderFiles(model)).layout.size
    outliers = {
        "mean": [0.0] * size,
        "scale": [1.0] * size,
        "components": [[1.0] + [0.0] * (size - 1)],
        "variances": [1.0],
        "noise": 1.0,
        "distances": [0.5, 1.0],
    }
    heads = {"grade": tiny_head([0.5, 0.0]), "age": tiny_head([50.0])}
    for fold in range(2):
        (model / f"fold_{fold}" / "case_head.json").write_text(json.dumps({"tasks": heads, "outliers": outliers}))
    (model / "cross_validation").mkdir()
    scores = {name: {"folds": [0, 1], "scores": [0.25, 0.5]} for name in heads}
    (model / "cross_validation" / "conformal.json").write_text(json.dumps(scores))


def predict_picture(folder: Path) -> None:
    """Load the model in the folder and predict one picture."""
    image = np.random.default_rng(0).integers(0, 255, (1, 24, 24)).astype(np.float32)
    predictor = Predictor.load(folder / "model", device="cpu", tta=False)
    with contextlib.suppress(TooLargeError):  # which speaks of the image: a spacing of 0.001 mm is possible
        predictor(image, spacing_mm=(1.0, 1.0, 1.0))


def write_manifest(folder: Path) -> None:
    """A bundle, and its manifest as a file beside it."""
    write_tiny_model(folder / "model", 2)
    write_bundle(FolderFiles(folder / "model"), folder / "sound.nnduet")
    (folder / "manifest.json").write_text(json.dumps(manifest_of(folder / "sound.nnduet")))


def load_bundle(folder: Path) -> None:
    """Put the manifest back into the bundle and load it."""
    manifest = (folder / "manifest.json").read_text(encoding="utf-8")
    Predictor.load(write_parts(folder / "manifest.nnduet", manifest, tensors_of(folder / "sound.nnduet")), device="cpu")


def write_cases(folder: Path) -> None:
    """A user's folder, with dataset.json and folds as convert writes them."""
    write_tiny_dataset(folder / "user", 2, 4)
    convert_cases(folder, dry_run=False)
    for name in ("dataset.json", "splits_final.json"):
        shutil.copyfile(folder / "raw" / "Dataset001_Tiny" / name, folder / "user" / name)


def convert_cases(folder: Path, *, dry_run: bool = True) -> None:
    """Check the folder as convert does."""
    workspace = Workspace(folder / "raw", folder / "preprocessed", folder / "results")
    source = read_folder(folder / "user", task_specs=TASK_SPECS)
    convert(source, workspace=workspace, dataset_id=1, name="Tiny", num_folds=2, replace=True, dry_run=dry_run)


def write_scores(folder: Path) -> None:
    """Four pictures that were predicted and scored, each by its own truth, and a dataset.json to score with."""
    user = write_tiny_dataset(folder / "user", 2, 4)
    (user / "dataset.json").write_text(json.dumps(tiny_dataset_json(2)))
    write_tables(user / "labels", TASKS, {f"case_{index:02d}": tiny_answers(index) for index in range(4)})
    (user / "labels" / "run.json").write_text(json.dumps({"images": str(user / "images"), "cases": ["case_00"]}))
    evaluate_scores(folder)


def tiny_answers(index: int) -> CaseAnswers:
    grade = TaskPrediction("high", None, {"high": 0.75, "low": 0.25})
    return CaseAnswers({"grade": grade, "age": TaskPrediction(None, 40.0 + index)}, 0.5)


def evaluate_scores(folder: Path) -> None:
    """What evaluate does with --dataset-json."""
    user = folder / "user"
    truth = references_of_json(user / "dataset.json", masks=user / "labels", table=user / "cases.csv")
    evaluate(
        user / "labels",
        truth.masks,
        labels=truth.labels,
        tasks=truth.tasks,
        table=truth.table,
        output=folder / "scores",
        num_bootstrap=5,
    )


def compare_scores(folder: Path) -> None:
    compare_runs(folder / "scores", folder / "scores", num_bootstrap=5)


def report_scores(folder: Path) -> None:
    run = read_run(folder / "scores", images=folder / "user" / "images")
    write_report(run, folder / "page", viewer_cases=1)


def report_predictions(folder: Path) -> None:
    write_report(read_run(folder / "user" / "labels"), folder / "page", viewer_cases=0)


class TrainingBegins(Exception):  # noqa: N818
    """All that a training reads before its first epoch was accepted."""


def write_prepared(folder: Path) -> None:
    """Pictures that were converted and planned."""
    plan(DATASET_ID, "cpu", workspace=tiny_workspace(folder, 2, 6), configurations=("2d",), num_processes=1)


def begin_training(folder: Path) -> None:
    """What train does before its first epoch."""

    def stop(trainer: object) -> None:
        raise TrainingBegins

    workspace = Workspace(folder / "raw", folder / "preprocessed", folder / "results")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(TrainingBegins):
        patch.setattr(nnUNetTrainerMultitask, "run_training", stop)
        train(DATASET_ID, "2d", 0, workspace=workspace, epochs=1, device="cpu")


def write_trained(folder: Path) -> None:
    """A dataset, and a model of it whose folds were validated."""
    tiny_workspace(folder, 2, 4)
    write_model(folder)
    for fold in range(2):
        (folder / "model" / f"fold_{fold}" / "final_metrics.json").write_text("{}")


def read_trained(folder: Path) -> None:
    """What fit-head and probe read of a model before they compute."""
    workspace = Workspace(folder / "raw", folder / "preprocessed", folder / "results")
    trained = read_trained_folds(folder / "model", workspace)
    for fold in trained.folds:
        read_case_heads(trained.folder(fold) / "case_head.json", trained.tasks)


PREPARED = f"preprocessed/{DATASET}"
TARGETS = {
    "plans of a model": Target(write_model, "model/plans.json", predict_picture),
    "dataset.json of a model": Target(write_model, "model/dataset.json", predict_picture),
    "case heads": Target(write_model, "model/fold_0/case_head.json", predict_picture),
    "cross-validated scores": Target(write_model, "model/cross_validation/conformal.json", predict_picture),
    "manifest of a bundle": Target(write_manifest, "manifest.json", load_bundle),
    "dataset.json of a user": Target(write_cases, "user/dataset.json", convert_cases, "user/"),
    "folds of a user": Target(write_cases, "user/splits_final.json", convert_cases),
    "dataset.json of evaluate": Target(write_scores, "user/dataset.json", evaluate_scores, "user/"),
    "metrics of compare": Target(write_scores, "scores/metrics.json", compare_scores),
    "metrics of report": Target(write_scores, "scores/metrics.json", report_scores),
    "plans of train": Target(write_prepared, f"{PREPARED}/nnDuetCpuPlans.json", begin_training, "expected one plans file"),
    "dataset.json of train": Target(write_prepared, f"{PREPARED}/dataset.json", begin_training),
    "folds of train": Target(write_prepared, f"{PREPARED}/splits_final.json", begin_training),
    "plans of fit-head": Target(write_trained, "model/plans.json", read_trained),
    "dataset.json of fit-head": Target(write_trained, "model/dataset.json", read_trained),
    "heads of fit-head": Target(write_trained, "model/fold_1/case_head.json", read_trained),
    "run of report": Target(write_scores, "user/labels/run.json", report_predictions),
}
"""{what is read: who wrote it, where it is, who reads it}."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], Path]:
    """The folder of a sound run, written once for each writer."""
    found: dict[str, Path] = {}

    def run_of(target: Target) -> Path:
        name = target.write.__name__
        if name not in found:
            found[name] = tmp_path_factory.mktemp(name)
            target.write(found[name])
        return found[name]

    return run_of


@pytest.fixture
def file(runs: Callable[[Target], Path], target: Target) -> Iterator[Path]:
    """The file to change, which is put back."""
    path = runs(target) / target.file
    sound = path.read_bytes()
    yield path
    path.write_bytes(sound)


def answers_or_names(folder: Path, target: Target, content: bytes) -> bool:
    """Whether the changed file is accepted; if not, the error must name it."""
    path = folder / target.file
    path.write_bytes(content)
    try:
        target.read(folder)
    except NNDuetError as error:
        named = path.stem in str(error) or (target.other and target.other in str(error))
        assert named, f"{path.name} is not named in: {error}"
        return False
    return True


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_row_139_every_json_that_is_cut_or_hostile_is_refused_by_name(
    runs: Callable[[Target], Path], target: Target, file: Path
) -> None:
    folder, sound = runs(target), file.read_bytes()
    assert answers_or_names(folder, target, sound)
    accepted = [content for content in (*cut_json(sound), *hostile_json(sound)) if answers_or_names(folder, target, content)]
    assert set(accepted) <= {b"{}"}  # which may say that there is nothing


FOUND: dict[str, tuple[str, dict[str, object]]] = {
    "plans emptied of nnDuet's part": ("plans of a model", {"nnduet": None}),
    "channels without intensities": ("plans of a model", {"foreground_intensity_properties_per_channel": {}}),
    "a reader that is a list": ("dataset.json of a user", {"overwrite_image_reader_writer": [1]}),
    "a label of 5000 digits": ("dataset.json of a user", {"labels": {"background": "0", "ball": "9" * 5000}}),
    "a label's name of 5000 digits": ("dataset.json of a user", {"labels": {"0": "background", "9" * 5000: "ball"}}),
    "labels that are not nnU-Net's": ("dataset.json of a user", {"labels": {"background": 0, "ball": 5}}),
    "labels without foreground": ("dataset.json of evaluate", {"labels": {"background": 0, "ignore": 1}}),
}
"""{what longer searches found: the target, the entries that its file must not have}."""


@pytest.mark.parametrize(
    ("target", "changes"), [(TARGETS[name], changes) for name, changes in FOUND.values()], ids=FOUND.keys()
)
def test_row_61_what_fuzzing_found_is_refused_by_name(
    runs: Callable[[Target], Path], target: Target, file: Path, changes: dict[str, object]
) -> None:
    content = json.dumps(json.loads(file.read_bytes()) | changes).encode()
    assert not answers_or_names(runs(target), target, content)


@pytest.mark.parametrize("target", [TARGETS["run of report"]])
def test_row_61_a_run_of_images_in_an_impossible_folder_has_a_page(
    runs: Callable[[Target], Path], target: Target, file: Path
) -> None:
    content = json.dumps(json.loads(file.read_bytes()) | {"images": "\x00"}).encode()
    assert answers_or_names(runs(target), target, content)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_row_61_every_json_with_a_changed_entry_gives_an_answer_or_an_error_that_names_it(
    runs: Callable[[Target], Path], target: Target, file: Path
) -> None:
    folder, sound, start = runs(target), file.read_bytes(), time.monotonic()

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(data=st.data())
    def feed(data: st.DataObject) -> None:
        content = changed_json(data, sound)
        if time.monotonic() - start > MOST_SECONDS:
            raise TimeIsUp
        answers_or_names(folder, target, content)

    with contextlib.suppress(TimeIsUp):
        feed()


def tables_and_masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".png")}


def test_row_139_a_case_of_an_interrupted_run_that_was_edited_is_predicted_again_or_kept(
    model_2d: Path, tmp_path: Path
) -> None:
    """``cases.jsonl`` has a line per case: one that says nothing sound is not kept, and never are its answers invented."""
    images, output = write_tiny_dataset(tmp_path / "user", 2, 2) / "images", tmp_path / "out"
    predictor = Predictor.load(model_2d, device="cpu", tta=False)
    predict_folder(predictor, images, output)
    expected, records, start = tables_and_masks(output), output / RECORDS_FILE, time.monotonic()
    head, case, *rest = records.read_bytes().splitlines(keepends=True)

    @settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def feed(data: st.DataObject) -> None:
        content = data.draw(st.sampled_from([*cut_json(case), *hostile_json(case)])) if data.draw(st.booleans()) else b""
        content = content or changed_json(data, case)
        if time.monotonic() - start > MOST_SECONDS:
            raise TimeIsUp
        records.write_bytes(head + content.strip() + b"\n" + b"".join(rest))
        predict_folder(predictor, images, output, resume=True)
        assert set(tables_and_masks(output)) == set(expected)
        assert {name: tables_and_masks(output)[name] for name in expected if name.endswith(".png")} == {
            name: content for name, content in expected.items() if name.endswith(".png")
        }

    with contextlib.suppress(TimeIsUp):
        feed()
