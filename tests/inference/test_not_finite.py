"""What is no finite number fails by name: weights, images, normalisation, network and heads; no rule fails open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from tiny import SPACING_MM, TASKS, tiny_case, tiny_head, write_tiny_dataset, write_tiny_model

from nnduet.case_head.head import CaseHead
from nnduet.errors import CorruptFileError, ModelError, NNDuetError, PartialFailureError, SettingsError, ValuesError
from nnduet.inference.abstention import Abstention
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import TaskPrediction
from nnduet.io.images import check_image
from nnduet.model_store.bundles import write_bundle
from nnduet.model_store.folder_files import FolderFiles

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (12, 20, 20)


@pytest.fixture(scope="module")
def predictor(model_3d: Path) -> Predictor:
    return Predictor.load(model_3d, ["0"], device="cpu", tta=False)


def with_weight(model: Path, folder: Path, key: str, value: float) -> Path:
    """A copy of a model one of whose weights is ``value``."""
    shutil.copytree(model, folder)
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    weights = checkpoint["network_weights"]
    names = [name for name, tensor in weights.items() if tensor.data_ptr() == weights[key].data_ptr()]  # layers have several
    weights.update(dict.fromkeys(names, weights[key].double()))
    weights[key].view(-1)[0] = value
    torch.save(checkpoint, path)
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e300])
@pytest.mark.parametrize("key", ["encoder.stem.convs.0.conv.weight", "heads.outputs.task_grade.bias"])
def test_row_131_weights_that_are_not_finite_are_refused_by_name(
    model_2d: Path, key: str, value: float, tmp_path: Path
) -> None:
    folder = with_weight(model_2d, tmp_path / "model", key, value)
    with pytest.raises(ModelError, match=rf"fold_0: weight {key}: expected finite numbers"):
        Predictor.load(folder, device="cpu")
    write_bundle(FolderFiles(folder), tmp_path / "model.nnduet")
    with pytest.raises(ModelError, match=rf"weight {key}: expected finite numbers"):
        Predictor.load(tmp_path / "model.nnduet", device="cpu")


def test_row_131_large_weights_whose_sum_overflows_are_finite(model_2d: Path, tmp_path: Path) -> None:
    folder = with_weight(model_2d, tmp_path / "model", "heads.norm.mean", 0.0)
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["network_weights"]["heads.norm.mean"][:] = 3e38
    torch.save(checkpoint, path)
    Predictor.load(folder, device="cpu")


@pytest.mark.parametrize("largest", [1e20, 1e30, 1e38])
def test_row_131_an_image_whose_deviation_overflows_fails_by_name(predictor: Predictor, largest: float) -> None:
    image = tiny_case(0, 3)[0] / 255 * largest
    with pytest.raises(ValuesError, match=r"image: its values, of up to .* cannot be normalised: overflow"):
        predictor(image, spacing_mm=SPACING_MM[3])


def test_row_131_an_image_beyond_float32_fails_by_name(predictor: Predictor) -> None:
    with pytest.raises(ValuesError, match="channel 0: expected values that float32 can hold"):
        predictor(tiny_case(0, 3)[0] * 1e300, spacing_mm=SPACING_MM[3])


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_row_131_contrast_that_float32_loses_fails_by_name(predictor: Predictor, kind: type, tmp_path: Path) -> None:
    image: np.ndarray = (tiny_case(0, 3)[0].astype(np.int64) + 2**40).astype(kind)
    with pytest.raises(ValuesError, match="float32 cannot hold such small differences"):
        predictor(image, spacing_mm=SPACING_MM[3])
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(tmp_path / "a_0000.nii.gz"))
    for read in (predictor, check_image):
        with pytest.raises(ValuesError, match=r"a_0000\.nii\.gz: .* float32 cannot hold such small differences"):
            read(tmp_path / "a_0000.nii.gz")


def test_row_131_contrast_that_float32_holds_is_predicted_as_ever(predictor: Predictor) -> None:
    image = tiny_case(0, 3)[0].astype(np.int64)
    expected = predictor(image, spacing_mm=SPACING_MM[3])
    shifted = predictor(image + 2**14, spacing_mm=SPACING_MM[3])
    assert shifted.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 7.3, -1000.1, 1e10])
def test_row_131_a_constant_image_gets_finite_answers(predictor: Predictor, value: float) -> None:
    found = predictor(np.full(SHAPE, value), spacing_mm=SPACING_MM[3])
    assert sum(found.tasks["grade"].probabilities.values()) == pytest.approx(1)
    age = found.tasks["age"].value
    assert age is not None and np.isfinite(age)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", ["logits", "sums"])
def test_row_131_what_the_network_gives_must_be_finite(
    model_3d: Path, value: float, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(model_3d, ["1"], device="cpu", tta=False)
    original = predictor.passes.of

    def of(member: Any) -> Any:
        run = original(member)

        def broken(patches: torch.Tensor, shares: torch.Tensor) -> Any:
            logits, sums = run(patches, shares)
            (logits if output == "logits" else sums.numerators[1]).view(-1)[0] = value
            return logits, sums

        return broken

    monkeypatch.setattr(predictor.passes, "of", of)
    with pytest.raises(ValuesError, match="fold 1: expected finite numbers from the network"):
        predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])


def test_row_131_what_a_head_answers_must_be_finite(model_2d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(model_2d, tmp_path / "model"))
    (folder / "fold_0" / "case_head.json").write_text(json.dumps({"tasks": {"grade": tiny_head([1.0, -1.0])}}))
    predictor = Predictor.load(folder, device="cpu", tta=False)
    monkeypatch.setattr(CaseHead, "__call__", lambda self, features, network: np.full((len(features), 2), np.nan))
    with pytest.raises(ValuesError, match="task grade: expected finite numbers from the head of fold 0"):
        predictor(tiny_case(0, 2)[0], spacing_mm=(1, 1, 1))


def test_row_131_the_case_fails_and_the_others_are_done(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 4) / "images"
    broken = {"case_01": np.full(SHAPE, 1e38), "case_02": 2**40 + tiny_case(2, 3)[0].astype(np.int64)}
    broken["case_01"][0] = -1e38
    for case_id, array in broken.items():
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(SPACING_MM[3][::-1])
        SimpleITK.WriteImage(image, str(images / f"{case_id}_0000.nii.gz"))
    with pytest.raises(PartialFailureError) as error:
        predict_folder(Predictor.load(model_3d, device="cpu", tta=False), images, tmp_path / "out")
    assert "2 of 4 cases failed" in str(error.value)
    assert "case_01 (VALUES: " in str(error.value) and "case_02 (VALUES: " in str(error.value)
    answers = (tmp_path / "out" / "classification.csv").read_text()
    assert [line.split(",")[0] for line in answers.splitlines()] == ["case_id", "case_00", "case_03"]
    assert "nan" not in answers


def test_row_131_an_image_with_nan_fails_as_before(predictor: Predictor, tmp_path: Path) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[3, 4, 5] = np.nan
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(tmp_path / "a_0000.nii.gz"))
    with pytest.raises(CorruptFileError, match="1 voxels are NaN"):
        predictor(tmp_path / "a_0000.nii.gz")


ANSWER = TaskPrediction("high", None, {"high": 0.9, "low": 0.1}, ("high",), spread=0.1)
UNSURE = TaskPrediction("high", None, {"high": float("nan"), "low": float("nan")}, (), spread=float("nan"))


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("confidence<0.5", "confidence unknown"),
        ("confidence>0.5", "confidence unknown"),
        ("set>1", "set unknown"),
        ("spread>0.2", "spread unknown"),
        ("outlier>0.9", "outlier unknown"),
    ],
)
def test_row_131_what_is_unknown_or_nan_leaves_the_case_to_a_person(rule: str, reason: str) -> None:
    abstention = Abstention.parse([rule])
    assert abstention is not None
    assert abstention.reason(TASKS[0], UNSURE, None) == abstention.reason(TASKS[0], UNSURE, float("nan")) == reason
    assert abstention.reason(TASKS[0], ANSWER, 0.1) == ("confidence 0.9>0.5" if rule == "confidence>0.5" else "")


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        ("spread>0.2", "several folds, or one with mirroring"),
        ("outlier>0.9", "a model with outlier statistics"),
        ("set>1", "a task with classes, and a case head .* or a cross-validation"),
    ],
)
def test_row_131_a_rule_on_what_the_model_never_knows_is_refused_before_the_run(
    model_2d: Path, rule: str, needs: str, tmp_path: Path
) -> None:
    images = write_tiny_dataset(tmp_path / "user", 2, 1) / "images"
    predictor = Predictor.load(model_2d, device="cpu", tta=False)
    with pytest.raises(SettingsError, match=f"abstain {rule}: .* is not known here; it needs {needs}"):
        predict_folder(predictor, images, tmp_path / "out", abstention=Abstention.parse([rule]))
    assert not (tmp_path / "out").exists()


def test_row_131_a_model_of_numbers_has_no_confidence(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", 2)
    predictor = Predictor.load(model, device="cpu")
    assert predictor.quantities == {"confidence", "spread"}
    abstention = Abstention.parse(["confidence<0.5"])
    assert abstention is not None
    with pytest.raises(NNDuetError, match="a task with classes"):
        abstention.check_known({"spread"})
