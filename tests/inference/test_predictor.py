"""One case in, one answer out; fused folds by hand; impossible inputs refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SPACING_MM, tiny_case, tiny_head, write_tiny_dataset, write_tiny_model

from nnduet.case_head.descriptors import describe_regions
from nnduet.errors import GeometryError, ModelError, NNDuetError, SettingsError
from nnduet.inference.case_features import grid_spacing_mm, region_masks
from nnduet.inference.prediction import Prediction
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import TaskPrediction, combine
from nnduet.io.images import Geometry, check_image, write_image
from nnduet.schema import Task

GRADE = Task("grade", "binary", ("a", "b"))
AGE = Task("age", "regression", unit="y")


@pytest.fixture(scope="module")
def predictor(model_3d: Path) -> Predictor:
    return Predictor.load(model_3d, device="cpu", tta=False)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("data") / "user", 3, 2)


def assert_same(first: Prediction, second: Prediction) -> None:
    np.testing.assert_array_equal(first.segmentation, second.segmentation)
    assert first.tasks == second.tasks
    assert first.spacing_mm == second.spacing_mm


def test_folds_are_fused_by_the_geometric_mean() -> None:
    answer = combine(GRADE, [np.array([0.9, 0.1]), np.array([0.5, 0.5])])
    odds = math.sqrt(0.9 * 0.5) / math.sqrt(0.1 * 0.5)  # 3
    assert answer.probabilities == pytest.approx({"a": odds / (1 + odds), "b": 1 / (1 + odds)})
    assert answer.label == "a"


def test_one_fold_that_is_quite_sure_does_not_divide_by_zero() -> None:
    answer = combine(GRADE, [np.array([1.0, 0.0]), np.array([0.0, 1.0])])
    assert answer.probabilities == pytest.approx({"a": 0.5, "b": 0.5})


def test_regression_values_are_averaged() -> None:
    assert combine(AGE, [np.array([50.0]), np.array([60.0])]) == TaskPrediction(None, 55.0)


def test_the_text_of_a_value_has_six_digits() -> None:
    assert TaskPrediction(None, 55.123456789).text == "55.1235"
    assert TaskPrediction("a", None).text == "a"


def test_an_array_gets_a_mask_of_its_shape_and_an_answer_per_task(predictor: Predictor) -> None:
    image, _ = tiny_case(0, 3)
    prediction = predictor(image, spacing_mm=SPACING_MM[3])
    assert prediction.segmentation.shape == image.shape
    assert set(np.unique(prediction.segmentation)) <= {0, 1, 2}
    assert sum(prediction.tasks["grade"].probabilities.values()) == pytest.approx(1)
    assert math.isfinite(prediction.tasks["age"].value or math.nan)
    assert list(prediction.features) == ["0", "1"]


def test_a_file_and_its_array_get_the_same_answer(predictor: Predictor, user: Path) -> None:
    from_file = predictor(user / "images" / "case_00_0000.nii.gz")
    assert_same(from_file, predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3]))
    assert from_file.geometry == check_image(user / "images" / "case_00_0000.nii.gz")


def test_a_png_and_its_array_get_the_same_answer(model_2d: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(model_2d, device="cpu")
    user = write_tiny_dataset(tmp_path / "user", 2, 1)
    from_file = predictor(user / "images" / "case_00_0000.png")
    from_array = predictor(tiny_case(0, 2)[0], spacing_mm=(1, 1, 1))
    np.testing.assert_array_equal(from_file.segmentation, from_array.segmentation)
    assert from_file.tasks == from_array.tasks


def test_the_callers_array_is_left_as_it_was(predictor: Predictor) -> None:
    image = tiny_case(0, 3)[0].astype(np.float32)
    before = image.copy()
    predictor(image, spacing_mm=SPACING_MM[3])
    np.testing.assert_array_equal(image, before)


def test_predicting_twice_gives_the_same_answer(predictor: Predictor) -> None:
    image, _ = tiny_case(1, 3)
    assert_same(predictor(image, spacing_mm=SPACING_MM[3]), predictor(image, spacing_mm=SPACING_MM[3]))


def test_two_folds_are_the_fusion_of_each_alone(model_3d: Path, predictor: Predictor) -> None:
    image, _ = tiny_case(1, 3)
    alone = [Predictor.load(model_3d, [f], device="cpu", tta=False)(image, spacing_mm=SPACING_MM[3]) for f in (0, 1)]
    both = predictor(image, spacing_mm=SPACING_MM[3])
    task = predictor.tasks[0]
    outputs = [np.array(list(p.tasks["grade"].probabilities.values())) for p in alone]
    assert both.tasks["grade"].probabilities == pytest.approx(combine(task, outputs).probabilities)
    assert both.tasks["age"].value == pytest.approx(np.mean([p.tasks["age"].value for p in alone]))


def test_the_segmentation_of_two_folds_follows_their_mean_logits(model_3d: Path, predictor: Predictor) -> None:
    image, known = torch.from_numpy(tiny_case(1, 3)[0][None].astype(np.float32)), {"spacing": SPACING_MM[3]}
    alone = [Predictor.load(model_3d, [f], device="cpu", tta=False).run_members(image, known, {})[0] for f in (0, 1)]
    both, _ = predictor.run_members(image, known, {})
    assert not torch.allclose(alone[0], alone[1])
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def with_scores(model: Path, folder: Path, scores: list[float], folds: list[int]) -> Path:
    """A copy of a model of two folds, with case heads that answer 0.6 against 0.4 and cross-validated scores."""
    shutil.copytree(model, folder)
    head = {"tasks": {"grade": tiny_head([math.log(0.6), math.log(0.4)])}}  # scores 0.1, 0.2, 0.3
    for fold in (0, 1):
        (folder / f"fold_{fold}" / "case_head.json").write_text(json.dumps(head))
    (folder / "cross_validation").mkdir()
    stored = {"grade": {"folds": folds, "scores": scores}, "age": {"folds": folds, "scores": [1.0, 3.0, 2.0]}}
    (folder / "cross_validation" / "conformal.json").write_text(json.dumps(stored))
    return folder


def test_several_folds_take_their_sets_from_the_cross_validation(model_3d: Path, tmp_path: Path) -> None:
    folder = with_scores(model_3d, tmp_path / "model", [0.7, 0.1, 0.2], [0, 1])
    both = Predictor.load(folder, device="cpu", tta=False, error_rate=0.25)(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])
    assert both.tasks["grade"].prediction_set == ("high", "low")  # 1 - 0.4 is below the third of three scores, 0.7
    value, interval = both.tasks["age"].value, both.tasks["age"].interval
    assert value is not None and interval == pytest.approx((value - 3, value + 3))


def test_one_fold_takes_its_sets_from_its_own_scores(model_3d: Path, tmp_path: Path) -> None:
    folder = with_scores(model_3d, tmp_path / "model", [0.7, 0.1, 0.2], [0, 1])
    predictor = Predictor.load(folder, [1], device="cpu", tta=False, error_rate=0.25)
    answers = predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3]).tasks
    assert answers["grade"].prediction_set == ("high",)  # 1 - 0.4 is above its own 0.3
    assert answers["age"].interval is None


def test_a_fold_outside_the_cross_validation_leaves_the_folds_their_own_scores(model_3d: Path, tmp_path: Path) -> None:
    folder = with_scores(model_3d, tmp_path / "model", [0.7, 0.1, 0.2], [0, 2])
    predictor = Predictor.load(folder, device="cpu", tta=False, error_rate=0.25)
    assert predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3]).tasks["grade"].prediction_set == ("high",)


def test_a_case_head_answers_in_place_of_the_network(model_2d: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_2d, tmp_path / "model"))
    (folder / "fold_0" / "case_head.json").write_text(json.dumps({"tasks": {"grade": tiny_head([math.log(3), 0.0])}}))
    predictor = Predictor.load(folder, device="cpu")
    answer = predictor(tiny_case(0, 2)[0], spacing_mm=(1, 1, 1)).tasks["grade"]
    assert list(answer.probabilities.values()) == pytest.approx([0.75, 0.25])
    assert [predictor.head_used(task) for task in predictor.tasks] == ["case head (constant on nothing)", "network head"]


def test_each_fold_gets_the_descriptors_that_its_heads_were_fitted_on(model_3d: Path, tmp_path: Path) -> None:
    """Fold 0 has heads without a version, as they were stored before there was a second one; fold 1 has heads of that."""
    model = Path(shutil.copytree(model_3d, tmp_path / "model"))
    heads: dict[str, Any] = {"tasks": {}, "outliers": None}
    (model / "fold_0" / "case_head.json").write_text(json.dumps(heads))
    (model / "fold_1" / "case_head.json").write_text(json.dumps(heads | {"descriptors": 2}))
    predictor = Predictor.load(model, device="cpu", runtime="torch", tta=False)
    tensor, properties, *_ = predictor.prepare(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])
    with torch.inference_mode():
        _, both = predictor.run_members(torch.from_numpy(tensor), properties, {})
    for member, features in zip(predictor.model.members, both, strict=True):
        alone = Predictor.load(model, [member.fold], device="cpu", runtime="torch", tta=False)
        with torch.inference_mode():
            logits, _ = alone.run_members(torch.from_numpy(tensor), properties, {})
        masks = region_masks(logits, overlapping=alone.network.overlapping)
        spacing = grid_spacing_mm(properties, alone.model.configuration, alone.model.plans)
        old, new = (describe_regions(tensor, masks, spacing, version) for version in (1, 2))
        assert not np.array_equal(old, new, equal_nan=True)
        np.testing.assert_array_equal(features.described[: len(old)], old if member.fold == "0" else new)


def test_mirroring_follows_the_training(model_3d: Path) -> None:
    assert Predictor.load(model_3d, device="cpu").mirror_axes == (0, 1, 2)
    assert Predictor.load(model_3d, device="cpu", tta=False).mirror_axes == ()


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)])
def test_an_array_without_a_possible_spacing_is_refused(predictor: Predictor, spacing: tuple[float, ...] | None) -> None:
    with pytest.raises(GeometryError, match="spacing_mm"):
        predictor(np.zeros((12, 20, 20)), spacing_mm=spacing)


def test_an_array_with_two_channels_for_a_model_of_one_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ModelError, match=r"expected 1 channel\(s\) .* got 2"):
        predictor(np.zeros((2, 12, 20, 20)), spacing_mm=(1, 1, 1))


def test_a_flat_array_is_refused(predictor: Predictor) -> None:
    with pytest.raises(GeometryError, match="got shape"):
        predictor(np.zeros((20, 20)), spacing_mm=(1, 1, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_array_that_is_not_finite_is_refused(predictor: Predictor, value: float) -> None:
    image = np.zeros((12, 20, 20))
    image[0, 0, 0] = value
    with pytest.raises(GeometryError, match="NaN or infinity"):
        predictor(image, spacing_mm=(1, 1, 1))


def test_an_empty_array_is_refused(predictor: Predictor) -> None:
    with pytest.raises(GeometryError):
        predictor(np.zeros((0, 20, 20)), spacing_mm=(1, 1, 1))


def test_a_constant_array_is_predicted(predictor: Predictor) -> None:
    assert predictor(np.zeros((12, 20, 20)), spacing_mm=SPACING_MM[3]).segmentation.shape == (12, 20, 20)


def test_a_missing_file_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(NNDuetError, match="nothing"):
        predictor(tmp_path / "nothing_0000.nii.gz")


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    predictor = Predictor.load(write_tiny_model(tmp_path / "model", 3, num_channels=2), device="cpu")
    for channel, shape in enumerate([(12, 20, 20), (12, 20, 19)]):
        write_image(tmp_path / f"a_{channel:04d}.nii.gz", np.zeros(shape, np.uint8), Geometry(shape))
    with pytest.raises(GeometryError, match="a_0001"):
        predictor([tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"])


@pytest.mark.parametrize("step_size", [0.0, 1.5, -1.0])
def test_an_impossible_step_size_is_refused(model_2d: Path, step_size: float) -> None:
    with pytest.raises(SettingsError, match="step_size"):
        Predictor.load(model_2d, device="cpu", step_size=step_size)


@pytest.fixture(scope="module")
def mask_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights for organ and lesion in two masks, ED and ES."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "masks", 3, masks=("ED", "ES"))


def test_a_model_of_one_mask_has_no_named_masks(predictor: Predictor) -> None:
    assert predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3]).masks == {}


def test_each_of_several_masks_is_the_one_that_its_own_logits_give(mask_model: Path) -> None:
    predictor = Predictor.load(mask_model, device="cpu", tta=False)
    image = tiny_case(0, 3)[0]
    prediction = predictor(image, spacing_mm=SPACING_MM[3])
    preprocessed = (image - image.mean()) / image.std()  # the spacing is the plans', nothing is cropped
    properties = {"spacing": list(SPACING_MM[3]), "shape_before_cropping": image.shape}
    logits, _ = predictor.run_members(torch.from_numpy(preprocessed[None].astype(np.float32)), properties, {})
    above = (logits > 0).numpy()
    assert (above[:2].any(0) & above[2:].any(0)).any(), "the random masks should overlap"
    for name, part in (("ED", logits[:2]), ("ES", logits[2:])):
        expected = torch.where(part.max(0).values > 0, part.argmax(0) + 1, 0).numpy()
        assert np.mean(prediction.masks[name] == expected) > 0.999
    np.testing.assert_array_equal(prediction.segmentation, prediction.masks["ED"] + 3 * prediction.masks["ES"])


def test_a_model_whose_masks_contradict_its_labels_is_refused(mask_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mask_model, tmp_path / "model"))
    dataset_json = json.loads((folder / "dataset.json").read_text())
    dataset_json["masks"]["ES"] = {"organ": 2, "lesion": 1}
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    with pytest.raises(ModelError, match=r"dataset\.json: masks: expected"):
        Predictor.load(folder, device="cpu")


def test_a_reader_outside_the_list_is_refused(model_2d: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_2d, tmp_path / "model"))
    plans = json.loads((folder / "plans.json").read_text())
    plans["image_reader_writer"] = "Tiff3DIO"
    (folder / "plans.json").write_text(json.dumps(plans))
    user = write_tiny_dataset(tmp_path / "user", 2, 1)
    with pytest.raises(ModelError, match="image_reader_writer"):
        Predictor.load(folder, device="cpu")(user / "images" / "case_00_0000.png")
