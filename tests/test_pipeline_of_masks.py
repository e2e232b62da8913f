"""The whole road in miniature for cases with two masks that overlap: convert, plan, train, predict, evaluate."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from small_dataset import CASES, edit_plans, workspace_in, write_volumes

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import ReferenceSet, references_of_dataset
from nnduet.inference.folder_runs import PredictionSummary, predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.io.images import check_image, read_segmentation
from nnduet.records import to_plain
from nnduet.schema import Workspace
from nnduet.training.planning import plan
from nnduet.training.run import TrainingSummary, train
from nnduet.training.trainer import nnUNetTrainerMultitask

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SETTINGS = {"iterations_per_epoch": 30, "validation_iterations": 1}
PART, WHOLE = "part", "whole"
REGIONS = ["part label_1", "part label_2", "whole label_1", "whole label_2"]


@dataclass(frozen=True)
class Road:
    source: Path
    workspace: Workspace
    plans_file: Path
    training: TrainingSummary
    predicted: PredictionSummary

    @property
    def truth(self) -> ReferenceSet:
        return references_of_dataset(self.workspace, 1, fold=0)

    @property
    def raw(self) -> Path:
        return self.workspace.raw / self.workspace.dataset_name(1)


def write_masks(folder: Path) -> Path:
    """The small volumes: ``labels`` has organ (1) and lesion (2), ``whole`` has 1 for both, so that all foreground overlaps."""
    write_volumes(folder)
    (folder / WHOLE).mkdir()
    for case_id in CASES:
        mask = SimpleITK.ReadImage(str(folder / "labels" / f"{case_id}.nii.gz"))
        SimpleITK.WriteImage(SimpleITK.Cast(mask > 0, SimpleITK.sitkUInt8), str(folder / WHOLE / f"{case_id}.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("masks")
    before = dict(os.environ)
    workspace = workspace_in(folder / "workspace")
    source = write_masks(folder / "cases")
    masks = {PART: source / "labels", WHOLE: source / WHOLE}
    cases = read_folder(source, task_specs=["grade:binary"], labels=masks)
    convert(cases, workspace=workspace, dataset_id=1, name="Masks", num_folds=3)
    planned = plan(1, "cpu", workspace=workspace, configurations=["3d_fullres"], num_processes=1)
    edit_plans(planned.plans_file, **SETTINGS)
    training = train(1, "3d_fullres", 0, workspace=workspace, epochs=2, device="cpu")
    images = workspace.raw / planned.dataset / "imagesTr"
    predicted = predict_folder(Predictor.load(training.model, device="cpu"), images, folder / "predictions")
    yield Road(source, workspace, Path(planned.plans_file), training, predicted)
    os.environ.clear()
    os.environ.update(before)


def read(path: Path) -> np.ndarray:
    return read_segmentation(path)[0].array


def test_the_mask_files_are_the_digits_of_the_codes_and_overlap(road: Road) -> None:
    output, overlap = Path(road.predicted.output), 0
    assert road.predicted.cases == list(CASES)
    for case_id in road.predicted.cases:
        codes, part, whole = (read(output / name / f"{case_id}.nii.gz") for name in ("", PART, WHOLE))
        np.testing.assert_array_equal(codes, part + 3 * whole)
        for name in ("", PART, WHOLE):
            image = check_image(road.raw / "imagesTr" / f"{case_id}_0000.nii.gz")
            assert check_image(output / name / f"{case_id}.nii.gz") == image
        overlap += int(np.count_nonzero((part > 0) & (whole > 0)))
    assert overlap > 0


def test_the_regions_are_learned_scored_and_agree_with_each_mask_scored_alone(road: Road, tmp_path: Path) -> None:
    output, truth = Path(road.predicted.output), road.truth
    assert truth.masks is not None
    combined = evaluate(output, truth.masks, labels=truth.labels, case_ids=truth.case_ids, output=tmp_path).segmentation
    assert list(combined) == [*REGIONS, "foreground"]
    assert combined["foreground"].labels == tuple(range(1, 9))
    for name in ("part label_1", "whole label_1"):
        assert (combined[name].estimates["dsc"].value or 0.0) > 0.3
    for name, reference in ((PART, "labels"), (WHOLE, WHOLE)):
        alone = evaluate(
            output / name,
            road.source / reference,
            labels={"background": 0, "label_1": 1, "label_2": 2},
            case_ids=truth.case_ids,
            output=tmp_path / name,
        ).segmentation
        for label in ("label_1", "label_2"):
            assert combined[f"{name} {label}"].estimates["dsc"] == alone[label].estimates["dsc"]


def test_whole_case_validation_writes_the_same_codes_and_metrics(road: Road, tmp_path: Path) -> None:
    truth, output = road.truth, Path(road.predicted.output)
    assert truth.masks is not None and truth.case_ids
    for case_id in truth.case_ids:
        validated = read(Path(road.training.model) / "fold_0" / "validation" / f"{case_id}.nii.gz")
        np.testing.assert_array_equal(validated, read(output / f"{case_id}.nii.gz"))
    metrics = json.loads(Path(road.training.metrics_file).read_text())
    again = evaluate(
        output,
        truth.masks,
        labels=truth.labels,
        tasks=truth.tasks,
        table=truth.table,
        case_ids=truth.case_ids,
        output=tmp_path,
    )
    assert metrics["segmentation"] == to_plain(again.segmentation)
    assert metrics["tasks"]["grade"] == to_plain(again.tasks["grade"])


def test_the_gates_know_which_regions_a_case_and_a_patch_hold(road: Road) -> None:
    os.environ.update(road.workspace.environment())
    os.environ.update({"nnUNet_n_proc_DA": "0"})
    dataset_json = json.loads((road.raw / "dataset.json").read_text())
    plans = json.loads(road.plans_file.read_text())
    trainer = nnUNetTrainerMultitask(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    assert MaskCodes.from_json(dataset_json) == MaskCodes(("part", "whole"), {"label_1": 1, "label_2": 2})
    assert trainer.joint_network().overlapping
    loader, _ = trainer.get_dataloaders()
    batch = next(loader)
    target = batch["target"][0]
    assert target.shape[1] == len(REGIONS)
    part, whole = target[:, :2].any(1), target[:, 2:].any(1)
    assert torch.equal(part, whole) and part.any()
    shown = target.flatten(2).any(-1)
    assert not shown[:, 3].any(), "no case has the fourth region"
    torch.testing.assert_close(trainer.evidence.gates(target, [str(key) for key in batch["keys"]]), shown[:, :3].sum(1) / 3)
