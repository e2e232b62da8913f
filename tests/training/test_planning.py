"""Fingerprint, plans and preprocessing: nnU-Net's own results, without its processes."""

from __future__ import annotations

import json
import multiprocessing.dummy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tiny import CONFIGURATIONS, DATASET, DATASET_ID, tiny_workspace

from nnduet.errors import DatasetError, SettingsError
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Workspace
from nnduet.training.fingerprints import FINGERPRINT_SAMPLES_PER_CASE
from nnduet.training.nnunet_environment import host_environment
from nnduet.training.planners import CpuPlanner, patch_within, plans_name_of, reader_of
from nnduet.training.planning import PlanSummary, plan
from nnduet.training.preprocessing import foreground_counts
from nnduet.training.settings import CPU_SETTINGS

CASES = ["case_00", "case_01", "case_02", "case_03"]
Planned = tuple[Workspace, PlanSummary, list[tuple[int, int, str]]]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """nnU-Net's variables as they were before."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def planned(folder: Path, dim: int) -> Planned:
    workspace, seen = tiny_workspace(folder, dim, len(CASES)), []
    summary = plan(DATASET_ID, "cpu", workspace=workspace, num_processes=1, progress=lambda *step: seen.append(step))
    return workspace, summary, seen


@pytest.fixture(scope="module")
def planned_3d(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return planned(tmp_path_factory.mktemp("planned_3d"), 3)


@pytest.fixture(scope="module")
def planned_2d(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return planned(tmp_path_factory.mktemp("planned_2d"), 2)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_median_shape_within_the_budget_is_the_patch() -> None:
    assert patch_within(1000, [1, 1, 1], [10, 10, 10]) == [10, 10, 10]


def test_a_larger_median_shape_gives_a_cube_of_the_budget() -> None:
    assert patch_within(1000, [1, 1, 1], [50, 50, 50]) == [10, 10, 10]


def test_the_cube_is_one_in_millimetres() -> None:
    assert patch_within(500, [2, 1, 1], [50, 50, 50]) == [5, 10, 10]


def test_an_axis_never_exceeds_its_median() -> None:
    assert patch_within(1600, [1, 1, 1], [4, 90, 90]) == [4, 20, 20]


def test_an_axis_keeps_four_voxels() -> None:
    assert patch_within(400, [100, 1, 1], [50, 50, 50])[0] == 4


def test_the_budget_is_never_exceeded_in_2d() -> None:
    assert np.prod(patch_within(160 * 160, [0.7, 0.9], [2000, 1500])) <= 160 * 160


def test_foreground_counts_tell_which_labels_have_voxels() -> None:
    assert foreground_counts({1: [[0, 0, 0, 0]], 2: []}).tolist() == [True, False]


def test_foreground_counts_leave_out_the_ignore_entry() -> None:
    assert foreground_counts({(1, 2): [[0, 0, 0, 0]], (-1, 0, 1): [[0, 0, 0, 0]]}).tolist() == [True]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SettingsError, match="preset: expected one of"):
        plans_name_of("gpu")


def test_the_reader_follows_from_dataset_json_alone() -> None:
    assert reader_of({"file_ending": ".nii.gz"}).__name__ == "SimpleITKIO"
    assert reader_of({"file_ending": ".png", "overwrite_image_reader_writer": "SimpleITKIO"}).__name__ == "SimpleITKIO"
    assert reader_of({"file_ending": ".png"}).__name__ == "NaturalImage2DIO"
    with pytest.raises(DatasetError, match="file_ending that nnU-Net reads"):
        reader_of({"file_ending": ".xyz"})


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".bmp"])
def test_a_raw_dataset_of_files_that_prediction_does_not_read_is_not_planned(ending: str) -> None:
    with pytest.raises(DatasetError, match=rf"expected \.nii\.gz, \.nii or \.png, which nnDuet predicts from, got {ending}"):
        reader_of({"file_ending": ending})


@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient", "Tiff3DIO"])
def test_row_67_a_raw_dataset_whose_reader_turns_images_is_not_planned(reader: str) -> None:
    named = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": reader}
    with pytest.raises(DatasetError, match=f"SimpleITKIO or NaturalImage2DIO, got {reader}") as error:
        reader_of(named)
    assert "nnduet convert" in error.value.remedy


def test_a_dataset_that_was_not_converted_to_its_end_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    (workspace.raw / DATASET).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        plan(DATASET_ID, "cpu", workspace=workspace)


def test_a_3d_dataset_gets_small_plans_for_both_configurations(planned_3d: Planned) -> None:
    _, summary, _ = planned_3d
    assert (summary.plans_name, summary.num_cases) == ("nnDuetCpuPlans", 4)
    outline = summary.configurations["3d_fullres"]
    assert outline.spacing_mm == [2.0, 1.0, 1.0]
    assert np.prod(outline.patch_size) <= 16 * 100 * 100
    assert 2 <= outline.batch_size <= 8
    assert outline.features_per_stage[0] == 8
    assert set(summary.configurations) == {"2d", "3d_fullres"}


def test_a_2d_dataset_gets_one_configuration(planned_2d: Planned) -> None:
    _, summary, _ = planned_2d
    assert set(summary.configurations) == {"2d"}
    assert summary.configurations["2d"].patch_size == [32, 32]
    assert summary.configurations["2d"].features_per_stage == [8, 16, 32, 64]


def test_pictures_get_a_deep_and_thin_network(planned_2d: Planned) -> None:
    workspace, _, _ = planned_2d
    with host_environment(workspace.environment()):
        found = CpuPlanner(DATASET).get_plans_for_configuration([1.0, 1.0], [192.0, 147.0], "any", 1e8, {})
    assert found["patch_size"] == [192, 160]
    assert found["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 16, 32, 64, 128, 256]


def test_plans_carry_the_settings_of_the_preset(planned_3d: Planned) -> None:
    _, summary, _ = planned_3d
    assert read(Path(summary.plans_file))["nnduet"] == {"training": CPU_SETTINGS.to_json()}


def test_labels_and_folds_lie_beside_the_plans(planned_3d: Planned) -> None:
    workspace, _, _ = planned_3d
    for name in (LABELS_FILE, SPLITS_FILE):
        assert (workspace.preprocessed / DATASET / name).read_bytes() == (workspace.raw / DATASET / name).read_bytes()


def test_references_are_copied_for_every_case(planned_3d: Planned) -> None:
    workspace, _, _ = planned_3d
    for case_id in CASES:
        copy = workspace.preprocessed / DATASET / "gt_segmentations" / f"{case_id}.nii.gz"
        assert copy.read_bytes() == (workspace.raw / DATASET / "labelsTr" / copy.name).read_bytes()


def test_no_partial_folder_is_left(planned_3d: Planned) -> None:
    workspace, _, _ = planned_3d
    assert not list((workspace.preprocessed / DATASET).glob("*.partial"))


def test_progress_counts_fingerprints_and_preprocessed_cases(planned_3d: Planned) -> None:
    _, _, seen = planned_3d
    assert [step[:2] for step in seen] == [*((i, 4) for i in range(1, 5)), *((i, 8) for i in range(1, 9))]


@pytest.mark.parametrize("dim", [2, 3])
def test_the_fingerprint_is_that_of_nnunet(dim: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, _, _ = request.getfixturevalue(f"planned_{dim}d")
    path = workspace.preprocessed / DATASET / "dataset_fingerprint.json"
    ours = read(path)
    for name, value in workspace.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fingerprint_extractor.multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    extractor = fingerprint_extractor.DatasetFingerprintExtractor(DATASET, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = FINGERPRINT_SAMPLES_PER_CASE * len(CASES)
    extractor.run(overwrite_existing=True)
    assert ours == read(path)


@pytest.mark.parametrize("dim", [2, 3])
def test_preprocessed_cases_are_those_of_nnunet(dim: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    workspace, summary, _ = request.getfixturevalue(f"planned_{dim}d")
    raw = workspace.raw / DATASET
    dataset_json, manager = read(raw / "dataset.json"), PlansManager(summary.plans_file)
    configuration = manager.get_configuration(CONFIGURATIONS[dim])
    entry = get_filenames_of_train_images_and_targets(str(raw), dataset_json)["case_01"]
    DefaultPreprocessor(verbose=False).run_case_save(
        str(tmp_path / "case_01"), entry["images"], entry["label"], manager, configuration, dataset_json
    )
    folder = workspace.preprocessed / DATASET / configuration.data_identifier
    assert sorted(p.stem for p in folder.glob("*.pkl")) == CASES
    for ours, stock in zip(_arrays(folder), _arrays(tmp_path), strict=True):
        np.testing.assert_array_equal(ours, stock)
    assert str(load_pickle(str(folder / "case_01.pkl"))) == str(load_pickle(str(tmp_path / "case_01.pkl")))


def _arrays(folder: Path) -> list[np.ndarray]:
    data, segmentation, _, _ = nnUNetDatasetBlosc2(str(folder), ["case_01"]).load_case("case_01")
    return [np.asarray(data[:]), np.asarray(segmentation[:])]


def test_a_configuration_that_does_not_fit_the_data_is_refused(planned_2d: Planned) -> None:
    workspace, _, _ = planned_2d
    with pytest.raises(SettingsError, match="3d_fullres"):
        plan(DATASET_ID, "cpu", workspace=workspace, configurations=["3d_fullres"], num_processes=1)
