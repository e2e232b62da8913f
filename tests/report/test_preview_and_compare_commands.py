"""``nnduet preview`` and ``nnduet compare`` on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from nnduet.cli import app
from nnduet.evaluation.evaluate import evaluate
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_image, write_segmentation
from nnduet.schema import Task

GRID = Geometry((6, 20, 30), (3.0, 1.0, 1.0))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def told(result: Result) -> Any:
    return json.loads(result.stdout.splitlines()[-1])


def write_mask(path: Path, first: int, geometry: Geometry = GRID) -> Path:
    mask = np.zeros(geometry.shape, dtype=np.uint8)
    mask[:, 5:15, first : first + 10] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(path, mask, geometry)
    return path


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The paths of an image, its mask and its reference."""
    image = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    write_image(tmp_path / "x_0000.nii.gz", image, GRID)
    return tmp_path / "x_0000.nii.gz", write_mask(tmp_path / "x.nii.gz", 5), write_mask(tmp_path / "truth.nii.gz", 8)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two scored runs of three cases; B outlines each better, and answers one case right that A has wrong."""
    scores = []
    for name, shifts, labels in (("A", (4, 6, 8), "aaa"), ("B", (0, 2, 4), "aab")):
        folder = tmp_path / name
        lines = ["case_id,grade,grade_p_a,grade_p_b"]
        for index, shift in enumerate(shifts):
            write_mask(folder / "references" / f"c{index}.nii.gz", 5)
            write_mask(folder / "predictions" / f"c{index}.nii.gz", 5 + shift)
            lines.append(f"c{index},{labels[index]}," + ("0.8,0.2" if labels[index] == "a" else "0.3,0.7"))
        (folder / "predictions" / "classification.csv").write_text("\n".join(lines) + "\n")
        (folder / "cases.csv").write_text("case_id,grade,patient_id\nc0,a,p\nc1,a,p\nc2,b,q\n")
        evaluate(
            folder / "predictions",
            folder / "references",
            labels={"organ": 1},
            tasks=(Task("grade", "binary", ("a", "b")),),
            table=folder / "cases.csv",
            output=folder / "scores",
        )
        scores.append(folder / "scores")
    return scores


def test_preview_draws_the_planes_side_by_side(case: tuple[Path, Path, Path], tmp_path: Path) -> None:
    image, mask, reference = case
    arguments = ("--reference", reference, "--planes", "axial, coronal", "--size", 64, "--margin-mm", 5)
    result = run("preview", image, mask, "-o", tmp_path / "new" / "x.png", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        # columns 0 to 22 of rows 0 to 19, and of 6 slices of 3 mm
        assert picture.size == (round(64 * 23 / 20) + 4 + round(64 * 23 / 18), 64)
        drawn = np.asarray(picture)
    assert told(result)["colours"] == {"1": "#e69f00"}
    assert (told(result)["width"], told(result)["height"]) == (drawn.shape[1], 64)
    assert (drawn == (0xE6, 0x9F, 0x00)).all(axis=-1).any()
    assert (drawn == (255, 255, 255)).all(axis=-1).any()


def test_preview_writes_the_same_bytes_again(case: tuple[Path, Path, Path], tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        assert run("preview", *case[:2], "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_preview_turns_a_volume_that_is_stored_the_other_way_round(case: tuple[Path, Path, Path], tmp_path: Path) -> None:
    turned = Geometry(GRID.shape, GRID.spacing_mm, (29.0, 19.0, 0.0), (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    image = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    write_image(tmp_path / "y_0000.nii.gz", np.ascontiguousarray(image[:, ::-1, ::-1]), turned)
    write_mask(tmp_path / "y.nii.gz", 15, turned)
    assert run("preview", *case[:2], "-o", tmp_path / "x.png").exit_code == 0
    assert run("preview", tmp_path / "y_0000.nii.gz", tmp_path / "y.nii.gz", "-o", tmp_path / "y.png").exit_code == 0
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_preview_of_a_flat_image_shows_one_plane(tmp_path: Path) -> None:
    grid = Geometry((1, 20, 30))
    write_image(tmp_path / "x.png", np.zeros(grid.shape, dtype=np.uint8), grid)
    mask = write_mask(tmp_path / "mask.png", 5, grid)
    result = run("preview", tmp_path / "x.png", mask, "-o", tmp_path / "out.png", "--planes", "axial,sagittal", "--size", 100)
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (150, 100)


@pytest.mark.parametrize("which", ["mask", "reference"])
def test_preview_refuses_a_mask_on_another_grid_with_both_headers(
    case: tuple[Path, Path, Path], tmp_path: Path, which: str
) -> None:
    image, mask, reference = case
    wrong = write_mask(mask if which == "mask" else reference, 5, Geometry(GRID.shape, (2.0, 1.0, 1.0)))
    result = run("preview", image, mask, "--reference", reference, "-o", tmp_path / "out.png", "--json")
    assert result.exit_code == 1
    error = told(result)["error"]
    assert error["code"] == "GEOMETRY"
    assert f"x_0000.nii.gz: {which} {wrong} differs in spacing" in error["message"]
    assert "spacing_mm (3, 1, 1)" in error["message"]
    assert "spacing_mm (2, 1, 1)" in error["message"]
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "out.jpg"), "SETTINGS: output: expected a name that ends in .png, got out.jpg"),
        (("-o", "out.png", "--planes", "axial,frontal"), "SETTINGS: planes: expected some of axial, coronal, sagittal"),
    ],
)
def test_preview_refuses_impossible_options_by_name(
    case: tuple[Path, Path, Path], options: tuple[str, ...], message: str
) -> None:
    result = run("preview", *case[:2], *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)


def test_compare_prints_a_row_per_comparison_and_what_changed(runs: list[Path]) -> None:
    result = run("compare", *runs)
    assert result.exit_code == 0, result.stderr
    metrics, changed = result.stdout.split("changed")
    rows = {tuple(line.split()[:2]): line.split() for line in metrics.splitlines()}
    assert rows["organ", "dsc"][2:5] == ["0.400", "0.800", "+0.400"]
    assert rows["grade", "accuracy"][2:5] == ["0.667", "1.000", "+0.333"]
    lines = [" ".join(line.split()) for line in changed.splitlines()]
    assert "grade became right 1 c2 (a to b)" in lines
    assert "organ dsc rose 3 c0 (+0.400), c1 (+0.400), c2 (+0.400)" in lines
    assert "3 common cases; resampled: 3 cases" in result.stderr
    assert "10 comparisons: p is that of each alone" in result.stderr


def test_compare_takes_a_table_and_writes_both_files(runs: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "A" / "cases.csv"
    result = run("compare", *runs, "--table", table, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert told(result)["settings"]["resampling_unit"] == "patient"
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == told(result)
    lines = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    assert lines[0].startswith("case_id,patient_id,a_organ_dsc,b_organ_dsc,difference_organ_dsc,")
    assert lines[1].startswith("c0,p,0.6,1.0,0.4,")


def test_compare_of_a_run_with_itself_shows_no_difference(runs: list[Path]) -> None:
    result = run("compare", runs[0], runs[0])
    assert result.exit_code == 0, result.stderr
    metrics = [line for line in result.stdout.splitlines() if line.startswith(("organ", "foreground", "grade"))]
    assert len(metrics) == 10
    assert all("+0.000  +0.000 to +0.000  1.000  1.000" in line for line in metrics)
    assert "changed" not in result.stdout


def test_compare_shows_why_a_difference_is_undefined(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("case_id,grade\nc0,a\nc1,a\n")
    (tmp_path / "classification.csv").write_text("case_id,grade,grade_p_a,grade_p_b\nc0,a,0.9,0.1\nc1,a,0.8,0.2\n")
    task = Task("grade", "binary", ("a", "b"))
    evaluate(tmp_path, None, labels={}, tasks=(task,), table=tmp_path / "table.csv", output=tmp_path / "scores")
    result = run("compare", tmp_path / "scores", tmp_path / "scores")
    assert result.exit_code == 0, result.stderr
    assert "undefined (absent_class: b)" in result.stdout


def test_compare_says_which_cases_are_left_out(runs: list[Path], tmp_path: Path) -> None:
    table = runs[1] / "per_case.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:3]) + "\n")
    result = run("compare", *runs)
    assert result.exit_code == 0, result.stderr
    assert "left out, cases only in A: c2\n" in result.stderr


def test_compare_says_how_many_cases_define_dice_in_one_run_only(tmp_path: Path) -> None:
    empty = np.zeros(GRID.shape, dtype=np.uint8)
    for name in ("A", "B"):
        for part in ("references", "predictions"):
            write_mask(tmp_path / name / part / "c0.nii.gz", 5)
            write_segmentation(tmp_path / name / part / "c1.nii.gz", empty, GRID)
    write_mask(tmp_path / "B" / "predictions" / "c1.nii.gz", 5)  # something where there is nothing
    runs = [tmp_path / name for name in ("A", "B")]
    for folder in runs:
        evaluate(folder / "predictions", folder / "references", labels={"organ": 1}, output=folder)
    assert "organ: left out of Dice, cases that define it in one run only: 0 in A, 1 in B\n" in run("compare", *runs).stderr


def test_compare_without_scores_says_where_it_looked(runs: list[Path], tmp_path: Path) -> None:
    shutil.rmtree(runs[1])
    (tmp_path / "empty").mkdir()
    result = run("compare", runs[0], tmp_path / "empty", "--json")
    assert result.exit_code == 1
    assert told(result)["error"]["code"] == "DATASET"
    assert str(tmp_path / "empty" / "cross_validation") in told(result)["error"]["message"]
