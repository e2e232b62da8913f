"""Rows 71 and 72 of the list of faults: what is older than plans, images or masks is refused; labels have one source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from planned import cases_folder, copy_of, edit_json, model_of, plan_pictures, plans_file
from tiny import DATASET, DATASET_ID
from trained import CASES, write_labels, write_trained_folder

from nnduet.errors import NNDuetError, OutputExistsError, StaleError
from nnduet.io.files import write_json_atomically
from nnduet.records import read_json
from nnduet.schema import LABELS_FILE, Workspace
from nnduet.training.cross_validation import cross_validate
from nnduet.training.freshness import check_fresh
from nnduet.training.ingredients import INGREDIENTS_FILE, Ingredients, mark_cases, raw_entries, write_ingredients
from nnduet.training.plan_files import PlanChanges
from nnduet.training.planning import plan
from nnduet.training.prepared import read_plans
from nnduet.training.probing import probe_model
from nnduet.training.refitting import refit_heads
from nnduet.training.run import train
from nnduet.training.trained_folds import read_trained_folds

pytestmark = pytest.mark.usefixtures("one_thread")

MENDED_BY_KEEPING = r"`nnduet plan 1 --preset cpu --keep`"
MENDED_BY_PLANNING = r"`nnduet plan 1 --preset cpu`"


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    before = dict(os.environ)
    yield plan_pictures(tmp_path_factory.mktemp("stale"))
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def workspace(planned: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(planned, tmp_path)


def train_fold(workspace: Workspace, **options: Any) -> Any:
    return train(DATASET_ID, "2d", 0, workspace=workspace, device="cpu", **options)


def cross_validate_folds(workspace: Workspace) -> Any:
    return cross_validate(DATASET_ID, "2d", workspace=workspace, device="cpu")


def is_fresh(workspace: Workspace) -> bool:
    plans = read_plans(workspace, DATASET, "nnDuetCpuPlans")
    return check_fresh(workspace, DATASET, plans, "2d", cases_folder(workspace)) is not None


def edit_configuration(workspace: Workspace, **entries: Any) -> None:
    edit_json(plans_file(workspace), lambda plans: plans["configurations"]["2d"].update(entries))


def mask_of(workspace: Workspace, case_id: str) -> Path:
    return workspace.raw / DATASET / "labelsTr" / f"{case_id}.png"


def change_a_byte(path: Path) -> None:
    """Another byte in place: the file keeps its size, its inode and, by utime, its date."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"spacing": [2.0, 2.0]}, r"spacing \[1\.0, 1\.0\] -> \[2\.0, 2\.0\]"),
        ({"normalization_schemes": ["CTNormalization"]}, r"normalization_schemes .* -> \['CTNormalization'\]"),
        ({"resampling_fn_data_kwargs": {"is_seg": False, "order": 1}}, "resampling_fn_data_kwargs"),
        ({"use_mask_for_norm": [True]}, r"use_mask_for_norm \[False\] -> \[True\]"),
    ],
)
@pytest.mark.parametrize("command", [train_fold, cross_validate_folds])
def test_row_71_plans_edited_after_preprocessing_are_refused_with_what_changed_and_what_mends_it(
    workspace: Workspace, command: Callable[[Workspace], Any], entries: dict[str, Any], named: str
) -> None:
    edit_configuration(workspace, **entries)
    with pytest.raises(StaleError, match=f"{named}.*{MENDED_BY_KEEPING}"):
        command(workspace)
    assert not workspace.results.exists() or not list(workspace.results.rglob("*.pth"))


def test_row_71_entries_above_the_configurations_and_the_version_of_nnunet_count_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_json(plans_file(workspace), lambda plans: plans.update(transpose_forward=[0, 2, 1], transpose_backward=[0, 2, 1]))
    with pytest.raises(StaleError, match=r"transpose_forward \[0, 1, 2\] -> \[0, 2, 1\]"):
        train_fold(workspace)
    edit_json(plans_file(workspace), lambda plans: plans.update(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2]))
    monkeypatch.setattr("nnduet.training.ingredients.version", lambda name: "2.9.0")
    with pytest.raises(StaleError, match=r"nnU-Net 2\.8\.\d+ -> 2\.9\.0"):
        train_fold(workspace)


def test_row_71_the_mending_command_makes_the_cases_on_the_new_grid(workspace: Workspace) -> None:
    edit_configuration(workspace, spacing=[2.0, 2.0])
    plan(DATASET_ID, "cpu", workspace=workspace, keep=True, num_processes=1)
    assert is_fresh(workspace)
    assert read_json(plans_file(workspace))["configurations"]["2d"]["spacing"] == [2.0, 2.0]
    image = nnUNetDatasetBlosc2(str(cases_folder(workspace)), ["case_00"]).load_case("case_00")[0]
    assert image.shape == (1, 1, 16, 16)  # 32 pixels of 1 mm
    assert not list(cases_folder(workspace).parent.glob("*.partial")) + list(cases_folder(workspace).parent.glob("*.old"))


def test_row_71_patch_and_batch_size_are_honoured_without_preprocessing_again(workspace: Workspace) -> None:
    edit_configuration(workspace, patch_size=[16, 24], batch_size=3)
    seen = []
    summary = train_fold(workspace, epochs=1, progress=lambda *step: seen.append(step))
    used: dict[str, Any] = read_json(Path(summary.model) / "plans.json")["configurations"]["2d"]
    assert (used["patch_size"], used["batch_size"]) == ([16, 24], 3)
    log = "".join(path.read_text() for path in model_of(workspace).glob("fold_0/training_log*"))
    assert "made again" not in log and not any("preprocess" in text for _, _, text in seen)


def test_row_71_edited_plans_are_not_planned_over_unasked(workspace: Workspace) -> None:
    before = plans_file(workspace).read_bytes()  # the fixture has edited the number of iterations
    with pytest.raises(OutputExistsError, match=r"nnduet\.training\.iterations_per_epoch 25 -> 2.*--keep .*--replace"):
        plan(DATASET_ID, "cpu", workspace=workspace, num_processes=1)
    assert plans_file(workspace).read_bytes() == before and is_fresh(workspace)
    plan(DATASET_ID, "cpu", workspace=workspace, replace=True, num_processes=1)
    assert read_json(plans_file(workspace))["nnduet"]["training"]["iterations_per_epoch"] == 25
    plan(DATASET_ID, "cpu", workspace=workspace, num_processes=1)  # nothing is edited now


def test_row_71_options_change_the_plans_and_are_not_forgotten_by_a_plan_without_them(workspace: Workspace) -> None:
    changes = PlanChanges(spacing=(2.0, 2.0), patch_size=(8, 16), batch_size=5)
    for _ in range(2):  # the same command again changes nothing
        plan(DATASET_ID, "cpu", workspace=workspace, changes=changes, replace=True, num_processes=1)
    chosen: dict[str, Any] = read_json(plans_file(workspace))["configurations"]["2d"]
    assert (chosen["spacing"], chosen["patch_size"], chosen["batch_size"]) == ([2.0, 2.0], [8, 16], 5)
    with pytest.raises(OutputExistsError, match="planned with --spacing and --patch-size and --batch-size"):
        plan(DATASET_ID, "cpu", workspace=workspace, num_processes=1)
    plan(DATASET_ID, workspace=workspace, keep=True, changes=PlanChanges(batch_size=4), num_processes=1)
    assert read_json(plans_file(workspace))["configurations"]["2d"] == {**chosen, "batch_size": 4}
    assert is_fresh(workspace)


def test_row_71_a_configuration_of_the_user_survives_new_plans(workspace: Workspace) -> None:
    added = {"inherits_from": "2d", "batch_size": 3}
    edit_json(plans_file(workspace), lambda plans: plans["configurations"].update(mine=added))
    plan(DATASET_ID, "cpu", workspace=workspace, replace=True, num_processes=1)
    assert read_json(plans_file(workspace))["configurations"]["mine"] == added


def test_row_71_without_the_raw_data_the_plans_are_compared_all_the_same(workspace: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "gone", workspace.preprocessed, workspace.results)
    assert is_fresh(workspace)
    edit_configuration(workspace, spacing=[2.0, 2.0])
    with pytest.raises(StaleError, match="spacing"):
        train_fold(workspace)


@pytest.mark.parametrize("command", [train_fold, cross_validate_folds])
def test_row_72_a_corrected_mask_of_the_same_size_and_date_is_found(
    workspace: Workspace, command: Callable[[Workspace], Any]
) -> None:
    for case_id in ("case_02", "case_04"):
        change_a_byte(mask_of(workspace, case_id))
    with pytest.raises(StaleError, match=f"2 masks changed, first case_02.*{MENDED_BY_PLANNING}"):
        command(workspace)


def test_row_72_changed_added_and_removed_cases_are_counted(workspace: Workspace) -> None:
    images = workspace.raw / DATASET / "imagesTr"
    change_a_byte(images / "case_01_0000.png")
    (images / "case_03_0000.png").rename(images / "new_0000.png")
    with pytest.raises(
        StaleError, match="1 image changed, first case_01; 1 case added, first new; 1 case removed, first case_03"
    ):
        train_fold(workspace)


def test_row_72_masks_that_were_preprocessed_again_are_learned_and_measured(workspace: Workspace) -> None:
    mask_of(workspace, "case_02").write_bytes(mask_of(workspace, "case_01").read_bytes())
    with pytest.raises(StaleError):
        is_fresh(workspace)
    plan(DATASET_ID, "cpu", workspace=workspace, keep=True, num_processes=1)
    assert is_fresh(workspace)
    references = workspace.preprocessed / DATASET / "gt_segmentations"
    assert (references / "case_02.png").read_bytes() == mask_of(workspace, "case_01").read_bytes()
    dataset = nnUNetDatasetBlosc2(str(cases_folder(workspace)))
    first, second = (np.asarray(dataset.load_case(case_id)[1][:]) for case_id in ("case_01", "case_02"))
    np.testing.assert_array_equal(first, second)


def test_row_72_references_that_are_not_those_of_the_cases_are_refused(workspace: Workspace) -> None:
    change_a_byte(workspace.preprocessed / DATASET / "gt_segmentations" / "case_00.png")
    with pytest.raises(StaleError, match="1 masks in gt_segmentations changed, first case_00"):
        train_fold(workspace)


def test_row_72_other_channel_names_need_new_plans(workspace: Workspace) -> None:
    for folder in workspace.folders_of(DATASET):
        edit_json(folder / "dataset.json", lambda content: content.update(channel_names={"0": "CT"}))
    with pytest.raises(StaleError, match=f"channel_names .* -> {{'0': 'CT'}}.*{MENDED_BY_PLANNING}"):
        train_fold(workspace)


@pytest.mark.parametrize("name", ["dataset.json", "splits_final.json"])
def test_row_72_copies_that_disagree_are_refused(workspace: Workspace, name: str) -> None:
    edit_json(
        workspace.raw / DATASET / name, lambda content: content.reverse() if isinstance(content, list) else content.update(x=1)
    )
    with pytest.raises(StaleError, match=f"{name}: differs from"):
        train_fold(workspace)


def track(workspace: Workspace, model: Path) -> Path:
    """Give the folds of a model raw data that they were made of; returns the raw dataset."""
    raw = workspace.raw / DATASET
    for folder, ending in (("imagesTr", "_0000.png"), ("labelsTr", ".png")):
        (raw / folder).mkdir(parents=True)
        for case_id in CASES:
            source = workspace.preprocessed / DATASET / "gt_segmentations" / f"{case_id}.png"
            (raw / folder / f"{case_id}{ending}").write_bytes(source.read_bytes())
    dataset_json: dict[str, Any] = read_json(model / "dataset.json", dict[str, Any])
    write_json_atomically(raw / "dataset.json", dataset_json)
    for fold in model.glob("fold_*"):
        write_ingredients(fold / INGREDIENTS_FILE, Ingredients({}, mark_cases(raw_entries(raw, dataset_json))))
    return raw


@pytest.mark.parametrize("command", [refit_heads, probe_model])
@pytest.mark.parametrize(("folder", "named"), [("labelsTr", "1 mask changed"), ("imagesTr", "1 image changed")])
def test_row_72_stored_features_of_other_images_or_masks_are_refused(
    tmp_path: Path, command: Callable[..., Any], folder: str, named: str
) -> None:
    model, workspace = write_trained_folder(tmp_path)
    raw = track(workspace, model)
    change_a_byte(next((raw / folder).glob("case_07*")))
    with pytest.raises(StaleError, match=f"fold_0: was trained before this changed: {named}, first case_07"):
        command(model, workspace=workspace)
    assert (model / "fold_0" / "case_head.json").read_text() == "old case_head.json"


def test_row_72_corrected_labels_in_the_raw_folder_are_what_fit_head_and_probe_read(tmp_path: Path) -> None:
    model, workspace = write_trained_folder(tmp_path)
    raw = track(workspace, model)
    write_labels(raw / LABELS_FILE, swapped=True)  # the preprocessed copy has the old ones
    for trained in (read_trained_folds(model, workspace), read_trained_folds(model, workspace, table=raw / LABELS_FILE)):
        assert trained.labels.values["case_00"]["grade"] == 0  # high; low before the correction
    refit_heads(model, workspace=workspace, folds=["0"])
    answers = (model / "fold_0" / "validation" / "classification.csv").read_text().splitlines()
    assert answers[1].startswith("case_00,high")


def test_row_72_a_damaged_record_is_an_error_with_its_name(workspace: Workspace) -> None:
    path = cases_folder(workspace).with_name("nnDuetCpuPlans_2d_ingredients.json")
    path.write_text(path.read_text()[:40])
    with pytest.raises(NNDuetError, match=r"nnDuetCpuPlans_2d_ingredients\.json: no readable JSON"):
        train_fold(workspace)


def test_row_72_cases_without_a_record_are_trained_with_a_note(workspace: Workspace) -> None:
    cases_folder(workspace).with_name("nnDuetCpuPlans_2d_ingredients.json").unlink()
    assert any("nothing tells what the preprocessed cases were made of" in note for note in train_fold(workspace).notes)
