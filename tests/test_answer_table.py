"""``predict`` prints answers, not settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TASKS, write_tiny_dataset

from nnduet.cli.answer_table import MOST_ROWS, answer_rows, describe_run
from nnduet.inference.abstention import Abstention
from nnduet.inference.prediction_summary import PredictionSummary, summarise
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import CaseAnswers, TaskPrediction

pytestmark = pytest.mark.usefixtures("one_thread")

HIGH = TaskPrediction("high", None, {"high": 0.934, "low": 0.066}, ("high",))
UNSURE = TaskPrediction("low", None, {"high": 0.45, "low": 0.55}, ("low", "high"))
OLD = TaskPrediction(None, 61.25, interval=(55.0, 67.5))


@pytest.fixture(scope="module")
def predictor(model_2d: Path) -> Predictor:
    return Predictor.load(model_2d, device="cpu", tta=False)


def summary_of(
    predictor: Predictor, done: dict[str, CaseAnswers], failed: dict[str, str], rules: Abstention | None = None
) -> PredictionSummary:
    return summarise(predictor, "out", done, failed, dict.fromkeys(done, 1.25), rules, {}, ())


def test_a_row_has_the_case_its_answers_and_how_sure_they_are(predictor: Predictor) -> None:
    done = {"a": CaseAnswers({"grade": HIGH, "age": OLD}, 0.25), "b": CaseAnswers({"grade": UNSURE, "age": OLD}, 0.999)}
    titles, rows = answer_rows(summary_of(predictor, done, {"c": "CORRUPT: cut"}), TASKS, None)
    assert titles == ["case", "grade", "probability", "set", "age", "interval", "outlier"]
    assert rows[0] == ["a", "high", "0.93", "high", "61.25", "55 to 67.5", "0.25"]
    assert rows[1] == ["b", "low", "0.55", "low|high", "61.25", "55 to 67.5", "1.00"]
    assert rows[2] == ["c", "failed", "", "", "", "", ""]


def test_a_row_says_why_a_case_is_left_to_a_person(predictor: Predictor) -> None:
    rules = Abstention.parse(["confidence<0.6"])
    done = {"a": CaseAnswers({"grade": HIGH, "age": OLD}, None), "b": CaseAnswers({"grade": UNSURE, "age": OLD}, None)}
    titles, rows = answer_rows(summary_of(predictor, done, {}, rules), TASKS, rules)
    column = titles.index("left to a person")
    assert [row[column] for row in rows] == ["", "confidence 0.55<0.6"]
    assert "outlier" not in titles


def test_no_more_than_forty_cases_are_shown_and_all_that_failed(predictor: Predictor) -> None:
    done = {f"case_{index}": CaseAnswers({"grade": HIGH, "age": OLD}, None) for index in range(100)}
    _, rows = answer_rows(summary_of(predictor, done, {"x": "?", "y": "?"}), TASKS, None)
    assert len(rows) == MOST_ROWS + 2
    assert [row[0] for row in rows[-3:]] == [f"case_{MOST_ROWS - 1}", "x", "y"]


def test_the_last_line_says_what_answered_and_how_fast(predictor: Predictor, model_2d: Path) -> None:
    done = {"a": CaseAnswers({"grade": HIGH, "age": OLD}, None)}
    assert describe_run(summary_of(predictor, done, {})) == (
        f"1 mask in out (model {model_2d}, fold 0, torch in {predictor.passes.precision} on cpu, 1.2 s a case)"
    )


def predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnduet.cli", "predict", "--device", "cpu", "--no-tta", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_predict_prints_a_table_of_answers(model_2d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 2, 3) / "images"
    shutil.copy(images / "case_00_0000.png", images / "bad?_0000.png")
    (images / "case_02_0000.png").write_bytes(b"no png")
    done = predict("-m", model_2d, "-i", images, "-o", tmp_path / "out")
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    shown = [line.split()[:2] for line in lines if line.startswith(("case_", "bad"))]
    assert [row[0] for row in shown] == ["case_00", "case_01", "bad?", "case_02"]
    assert [row[1] for row in shown[2:]] == ["failed", "failed"]
    assert "step_size" not in done.stderr + done.stdout
    assert "PARTIAL: 2 of 4 cases failed" in done.stderr
    assert (tmp_path / "out" / "case_00.png").is_file() and not (tmp_path / "out" / "bad?.png").exists()


def test_row_109_one_file_becomes_one_mask(model_2d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 2, 3) / "images"
    done = predict("-m", model_2d, "-i", images / "case_01_0000.png", "-o", tmp_path / "new" / "mask.png", "--json")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mask.png"]
    found = json.loads(done.stdout)
    assert list(found["answers"]) == found["cases"] == ["case_01"]
    again = predict("-m", model_2d, "-i", images / "case_01_0000.png", "-o", tmp_path / "new" / "mask.png")
    assert again.returncode == 1 and "OUTPUT_EXISTS: " in again.stderr


def test_row_119_predictor_and_prediction_are_shown_in_a_few_lines(predictor: Predictor, model_2d: Path) -> None:
    found = predictor(np.full((1, 32, 32), 7, np.uint8), spacing_mm=(1, 1, 1))
    text = repr(found).splitlines()
    assert text[0].startswith("Prediction: 1 x 32 x 32 voxels with labels ")
    assert [line.split(":")[0] for line in text[1:]] == ["  grade", "  age"]
    assert "array" not in repr(found) and max(map(len, text)) < 120
    assert repr(predictor).splitlines() == [
        f"Predictor: {model_2d}, 2d, folds 0",
        "  1 channel(s), labels background, organ, lesion",
        "  tasks grade (binary), age (regression)",
        f"  torch in {predictor.passes.precision} on cpu",
    ]
    assert str(UNSURE) == "low (p 0.55, set low|high)"
    assert str(OLD) == "61.25 (55 to 67.5)"
