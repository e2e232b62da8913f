"""Speed is compared only together with agreement."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_tiny_dataset

from nnduet.data.images import Geometry, write_segmentation
from nnduet.errors import NNDuetError, SettingsError
from nnduet.evaluation import speed
from nnduet.evaluation.speed import CHEAPER, OWN, REFERENCE, SPEED_FILE, STOCK, agreement, compare_speed
from nnduet.inference.timed_arm import Arm, run_arm

GRID = Geometry((2, 4, 4), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def compared(model_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The comparison of the 3d model on two cases."""
    place = tmp_path_factory.mktemp("speed")
    images = write_tiny_dataset(place / "user", 3, 2) / "images"
    options: dict[str, Any] = {"rounds": 2, "runtime": "torch", "precision": "float32", "cold": False}
    return compare_speed(model_3d, images, place / "out", **options), place / "out"


def test_every_arm_predicts_every_case_in_every_round(compared: tuple[dict[str, Any], Path]) -> None:
    found, output = compared
    assert list(found["arms"]) == [STOCK, OWN, REFERENCE, CHEAPER]
    for name, arm in found["arms"].items():
        assert {case: len(seconds) for case, seconds in arm["seconds"].items()} == {"case_00": 2, "case_01": 2}
        assert arm["peak_bytes"] > 1e8
        assert sorted(p.name for p in (output / name).glob("*.nii.gz")) == ["case_00.nii.gz", "case_01.nii.gz"]
    assert json.loads((output / SPEED_FILE).read_text()) == found
    assert not (output / "result.json").exists()


def test_the_same_weights_give_the_same_masks_and_answers(compared: tuple[dict[str, Any], Path]) -> None:
    found, output = compared
    alike = found["agreement"][OWN]
    assert alike["equal_voxels"] > 0.99  # random weights decide by hairs, and nnU-Net adds tiles up in half precision
    assert agreement(output / OWN, output / REFERENCE, output / REFERENCE)["equal_voxels"] == 1
    assert alike["largest_probability_difference"] == 0
    assert alike["equal_classes"] == 1
    assert found["ratios"][OWN]["times_faster"] > 0


def test_a_network_is_converted_before_anything_is_timed(model_3d: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = shutil.copytree(model_3d, tmp_path / "model")
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    arm = Arm(OWN, stock=False, runtime="openvino")
    assert run_arm(arm, model, images, tmp_path / "out", warm_up_only=True)["seconds"] == {}
    converted = {path: path.stat().st_mtime_ns for path in (model / "converted").glob("*.xml")}
    assert converted
    assert list(run_arm(arm, model, images, tmp_path / "out")["seconds"]) == ["case_00"]
    assert {path: path.stat().st_mtime_ns for path in (model / "converted").glob("*.xml")} == converted


def test_fewer_passes_are_no_speed_up(compared: tuple[dict[str, Any], Path]) -> None:
    ratio = compared[0]["ratios"][CHEAPER]
    assert not ratio["is_speed_up"]
    assert any("Dice of label" in reason for reason in ratio["why_not"])


def test_one_round_is_refused(model_3d: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 2"):
        compare_speed(model_3d, tmp_path, tmp_path / "out", rounds=1)


def test_what_an_arm_died_of_is_told(model_3d: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(NNDuetError, match=r"(?s)benchmark: nnDuet failed: .*expected images named"):
        compare_speed(model_3d, tmp_path / "images", tmp_path / "out")


def masks(folder: Path, *values: int) -> Path:
    folder.mkdir()
    array = np.zeros(GRID.shape, np.uint8)
    array.flat[: len(values)] = values
    write_segmentation(folder / "a.nii.gz", array, GRID)
    return folder


def test_dice_is_pooled_by_label(tmp_path: Path) -> None:
    found = agreement(masks(tmp_path / "a", 1, 1, 2, 2), masks(tmp_path / "b", 1, 1, 2, 0), tmp_path)
    assert found == {"equal_voxels": 31 / 32, "dice": {"1": 1.0, "2": 2 / 3}}


GOOD = {"times_faster": 3.0, "ci95": [2.5, 3.5], "times_less_memory": 1.0}


@pytest.mark.parametrize(
    ("ratio", "alike", "expected"),
    [
        (GOOD, {"dice": {"1": 0.9995}, "largest_probability_difference": 0.001}, ""),
        (GOOD, {"dice": {"1": 0.9995, "2": 0.99}}, "Dice of label 2"),
        (GOOD, {"dice": {}, "largest_probability_difference": 0.02}, "probability"),
        ({**GOOD, "ci95": [0.9, 1.3]}, {"dice": {}}, "interval"),
        ({**GOOD, "ci95": None}, {"dice": {}}, "interval"),
    ],
)
def test_a_ratio_is_a_speed_up_only_where_outputs_agree(ratio: dict[str, Any], alike: dict[str, Any], expected: str) -> None:
    verdict = speed._verdict(ratio, alike, 0.999)
    assert verdict["is_speed_up"] is (not expected)
    assert all(expected in reason for reason in verdict["why_not"])
