"""Speed is compared only together with agreement."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_tiny_dataset

from nnduet.benchmark import cold_start, speed
from nnduet.benchmark.agreement import agreement
from nnduet.benchmark.children import child_environment, module_command
from nnduet.benchmark.cold_start import OWN, STOCK
from nnduet.benchmark.comparison import Agreement, ColdStart, Ratio, SpeedComparison
from nnduet.benchmark.speed import CHEAPER, REFERENCE, SPEED_FILE, compare_speed
from nnduet.benchmark.timed_arm import Arm, ArmRun, run_arm
from nnduet.errors import NNDuetError, OutputExistsError, SettingsError
from nnduet.io.claimed_folders import claim_folder
from nnduet.io.images import Geometry, write_segmentation

GRID = Geometry((2, 4, 4), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def compared(model_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SpeedComparison, Path]:
    """The comparison of the 3d model on two cases."""
    place = tmp_path_factory.mktemp("speed")
    images = write_tiny_dataset(place / "user", 3, 2) / "images"
    options: dict[str, Any] = {"rounds": 2, "runtime": "torch", "precision": "float32", "cold": False}
    return compare_speed(model_3d, images, place / "out", **options), place / "out"


def test_every_arm_predicts_every_case_in_every_round(compared: tuple[SpeedComparison, Path]) -> None:
    found, output = compared
    assert list(found.arms) == [STOCK, OWN, REFERENCE, CHEAPER]
    for name, arm in found.arms.items():
        assert {case: len(seconds) for case, seconds in arm.seconds.items()} == {"case_00": 2, "case_01": 2}
        assert arm.peak_bytes > 1e8
        assert sorted(p.name for p in (output / name).glob("*.nii.gz")) == ["case_00.nii.gz", "case_01.nii.gz"]
    assert json.loads((output / SPEED_FILE).read_text()) == found.to_json()
    assert not (output / "result.json").exists()


def test_the_same_weights_give_the_same_masks_and_answers(compared: tuple[SpeedComparison, Path]) -> None:
    found, output = compared
    alike = found.agreement[OWN]
    assert alike.equal_voxels > 0.99  # random weights decide by hairs, and nnU-Net adds tiles up in half precision
    assert agreement(output / OWN, output / REFERENCE, output / REFERENCE).equal_voxels == 1
    assert alike.largest_probability_difference == 0
    assert alike.equal_classes == 1
    assert found.ratios[OWN].times_faster > 0


def test_a_network_is_converted_before_anything_is_timed(model_3d: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = shutil.copytree(model_3d, tmp_path / "model")
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    arm = Arm(OWN, stock=False, runtime="openvino")
    assert run_arm(arm, model, images, tmp_path / "out", warm_up_only=True).seconds == {}
    converted = {path: path.stat().st_mtime_ns for path in (model / "converted").glob("*.xml")}
    assert converted
    assert list(run_arm(arm, model, images, tmp_path / "out").seconds) == ["case_00"]
    assert {path: path.stat().st_mtime_ns for path in (model / "converted").glob("*.xml")} == converted


def test_fewer_passes_are_no_speed_up(compared: tuple[SpeedComparison, Path]) -> None:
    ratio = compared[0].ratios[CHEAPER]
    assert not ratio.is_speed_up
    assert any("Dice of label" in reason for reason in ratio.why_not)


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
    assert found == Agreement(31 / 32, {"1": 1.0, "2": 2 / 3})


GOOD = Ratio(times_faster=3.0, ci95=(2.5, 3.5), times_less_memory=1.0)


@pytest.mark.parametrize(
    ("ratio", "alike", "expected"),
    [
        (GOOD, Agreement(1.0, {"1": 0.9995}, 0.001), ""),
        (GOOD, Agreement(1.0, {"1": 0.9995, "2": 0.99}), "Dice of label 2"),
        (GOOD, Agreement(1.0, {}, 0.02), "probability"),
        (replace(GOOD, ci95=(0.9, 1.3)), Agreement(1.0, {}), "interval"),
        (replace(GOOD, ci95=None), Agreement(1.0, {}), "interval"),
    ],
)
def test_a_ratio_is_a_speed_up_only_where_outputs_agree(ratio: Ratio, alike: Agreement, expected: str) -> None:
    why_not = speed._why_no_speed_up(ratio, alike, 0.999)
    assert bool(why_not) is bool(expected)
    assert all(expected in reason for reason in why_not)


def test_row_133_a_folder_that_no_benchmark_made_is_left_as_it_is(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    mine = tmp_path / "src"
    kept = {f"{name}/file": "mine" for name in (STOCK, OWN, REFERENCE, "one_case")} | {"result.json": "{}"}
    for name, text in kept.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    with pytest.raises(OutputExistsError, match="holds files that `nnduet benchmark` did not write"):
        compare_speed(model_3d, images, mine)
    found = {str(path.relative_to(mine)): path.read_text() for path in mine.rglob("*") if path.is_file()}
    assert found == kept


def test_row_133_an_arm_that_was_replaced_by_a_link_is_not_followed(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").write_text("mine")
    claim_folder(tmp_path / "out", "nnduet benchmark")
    (tmp_path / "out" / OWN).symlink_to(tmp_path / "photos")
    with pytest.raises(OutputExistsError, match="did not make this; nothing was deleted"):
        compare_speed(model_3d, images, tmp_path / "out")
    assert (tmp_path / "photos" / "holiday.png").read_text() == "mine"


@pytest.mark.parametrize("older", [False, True], ids=["this Python", "as Python 3.10 does it"])
def test_row_134_a_module_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    canary = tmp_path / "canary"
    for name in ("nibabel", "numpy", "json", "runpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(canary)!r}, 'a').write('{name} ')\n")
    if older:
        monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    command = module_command("nnduet.cli", "--help")
    monkeypatch.undo()
    assert ("-P" in command) is not older
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=child_environment())
    assert done.returncode == 0, done.stderr
    assert "benchmark" in done.stdout and not canary.exists()


def test_row_134_no_process_of_the_package_is_started_another_way() -> None:
    package = Path(speed.__file__).parents[1]
    starting = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "sys.executable" in path.read_text(encoding="utf-8") and "subprocess" in path.read_text(encoding="utf-8")
    }
    assert starting <= {"benchmark/cold_start.py"}  # for the name of nnU-Net's own command beside Python


def test_row_98_a_cold_start_that_cannot_be_measured_is_said_in_words(
    model_3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    monkeypatch.setattr(cold_start, "_STOCK_COMMAND", tmp_path / "no such command")
    found = cold_start.cold_start(model_3d, images, tmp_path / "out", 2, Arm(OWN, stock=False), "nnduet benchmark")
    assert found == ColdStart(reason="nnU-Net's command no such command is not installed beside this Python")
    stock = tmp_path / "fails"
    stock.write_text("#!/bin/sh\necho Traceback >&2\necho 'no GPU here' >&2\nexit 1\n")
    stock.chmod(0o755)
    monkeypatch.setattr(cold_start, "_STOCK_COMMAND", stock)
    claim_folder(tmp_path / "out", "nnduet benchmark")
    found = cold_start.cold_start(model_3d, images, tmp_path / "out", 2, Arm(OWN, stock=False), "nnduet benchmark")
    assert found == ColdStart(reason="the command of nnU-Net failed: no GPU here")


def test_row_98_one_case_is_compared_and_the_missing_interval_is_said_in_words(
    model_3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(arm: Arm, model: Path, images: Path, output: Path, *, warm_up_only: bool = False) -> ArmRun:
        masks(output / arm.name, 1) if not (output / arm.name).exists() else None
        seconds = {"case_00": 2.0 if arm.stock else 1.0}
        return ArmRun(1.0, seconds, seconds, 1, "torch float32")

    monkeypatch.setattr(speed, "_run", run)
    found = compare_speed(model_3d, tmp_path, tmp_path / "out", rounds=2, cold=False)
    assert found.num_cases == 1 and found.ratios[OWN].ci95 is None
    assert found.ratios[OWN].times_faster == pytest.approx(2)
    assert found.ratios[OWN].why_not == ("one case gives no interval of the ratio; name a folder of several",)
