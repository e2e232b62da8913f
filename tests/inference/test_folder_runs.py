"""Prediction of a folder (FAULTS rows 36 and 39): one bad case does not stop the others, and nothing is half-written."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_tiny_dataset, write_tiny_model

from nnduet.errors import DatasetError, ModelError, PartialFailureError, SettingsError
from nnduet.inference.abstention import Abstention
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.prediction_summary import FailedCasesError
from nnduet.inference.predictor import Predictor
from nnduet.inference.result_tables import result_ending
from nnduet.io.files import LOCK_FILE
from nnduet.io.images import check_image, read_segmentation
from nnduet.names import printable


@pytest.fixture(scope="module")
def predictor(model_2d: Path) -> Predictor:
    return Predictor.load(model_2d, device="cpu", tta=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four PNG cases, case_00 to case_03."""
    return write_tiny_dataset(tmp_path / "user", 2, 4) / "images"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as handle:
        return list(csv.reader(handle))


def test_every_case_gets_a_mask_on_its_grid(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    summary = predict_folder(predictor, images, tmp_path / "out")
    assert summary.cases == ["case_00", "case_01", "case_02", "case_03"]
    for case_id in summary.cases:
        mask, _ = read_segmentation(tmp_path / "out" / f"{case_id}.png")
        assert mask.geometry == check_image(images / f"{case_id}_0000.png")
        np.testing.assert_array_equal(mask.array, predictor(images / f"{case_id}_0000.png").segmentation)


def test_the_tables_name_every_case_and_probabilities_sum_to_one(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    header, *cases = rows(tmp_path / "out" / "classification.csv")
    assert ",".join(header) == (
        "case_id,grade,grade_p_high,grade_p_low,grade_set,grade_spread,age,age_low,age_high,age_spread,outlier_score"
    )
    assert [case[0] for case in cases] == ["case_00", "case_01", "case_02", "case_03"]
    for _, label, high, low, _, spread, age, *_ in cases:
        assert spread == ""  # one fold and no mirroring: there is only one answer
        assert float(high) + float(low) == pytest.approx(1, abs=2e-6)
        assert label == ("high" if float(high) >= float(low) else "low")
        assert np.isfinite(float(age))


def test_each_task_has_its_own_table_with_names(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    complete = rows(tmp_path / "out" / "classification.csv")[1:]
    assert rows(tmp_path / "out" / "grade_results.csv") == [["Names", "Grade"], *([c[0], c[1]] for c in complete)]
    assert rows(tmp_path / "out" / "age_results.csv") == [["Names", "Age"], *([c[0], c[6]] for c in complete)]


def test_row_136_models_of_the_challenge_layout_name_files_in_the_results(model_2d: Path, images: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_2d, tmp_path / "model"))
    description = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**description, "names_in_results": "files"}))
    predict_folder(Predictor.load(model, device="cpu", tta=False), images, tmp_path / "out")
    complete = rows(tmp_path / "out" / "classification.csv")[1:]
    assert rows(tmp_path / "out" / "grade_results.csv")[1:] == [[f"{c[0]}.png", c[1]] for c in complete]
    assert [c[0] for c in complete] == ["case_00", "case_01", "case_02", "case_03"]


def test_a_dataset_that_names_something_else_in_the_results_is_refused() -> None:
    with pytest.raises(DatasetError, match='names_in_results expected "cases" or "files", got 7'):
        result_ending({"names_in_results": 7, "file_ending": ".png"})
    assert [result_ending({"names_in_results": name, "file_ending": ".png"}) for name in ("files", "cases")] == [".png", ""]


def test_one_corrupt_case_of_four_leaves_three_done_and_is_named(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    broken = images / "case_02_0000.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(PartialFailureError, match=r"1 of 4 cases failed, the others are in .*: case_02 \(CORRUPT") as error:
        predict_folder(predictor, images, tmp_path / "out")
    assert "case_01" not in str(error.value)
    assert sorted(p.stem for p in (tmp_path / "out").glob("*.png")) == ["case_00", "case_01", "case_03"]
    assert [row[0] for row in rows(tmp_path / "out" / "classification.csv")[1:]] == ["case_00", "case_01", "case_03"]


def test_run_json_lists_the_corrupt_case_with_its_reason(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    (images / "case_02_0000.png").write_bytes(b"no png")
    with pytest.raises(PartialFailureError):
        predict_folder(predictor, images, tmp_path / "out")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(run["failed"]) == ["case_02"]
    assert run["cases"] == ["case_00", "case_01", "case_03"]


def test_run_json_says_how_the_outputs_came_about(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["folds"] == ["0"]
    assert run["heads"] == {"grade": "network head", "age": "network head"}
    assert (run["step_size"], run["mirror_axes"], run["device"]) == (0.5, [], "cpu")
    assert run["images"] == str(images)
    assert set(run["seconds"]) == set(run["cases"])
    assert run["versions"]["nnunetv2"].startswith("2.8.")


def test_a_case_with_two_channels_is_refused_before_any_work(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "case_03_0000.png", images / "case_03_0001.png")
    with pytest.raises(ModelError, match=r"case_03: expected 1 channel\(s\)"):
        predict_folder(predictor, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_row_77_cases_are_found_by_convert_s_rule_and_what_is_no_case_is_named(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    (images / "case_01_0000.png").rename(images / "case_01_0000.PNG")
    (images / "case_02_0000.png").rename(images / "case_02.png")
    for name in ("case_03_0000.nii.gz", "Thumbs.db", "._case_00_0000.png", "case_04_0000.tif"):
        (images / name).touch()
    summary = predict_folder(predictor, images, tmp_path / "out")
    assert summary.cases == ["case_00", "case_01", "case_02", "case_03"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["not_used"] == summary.not_used and len(summary.not_used) == 3
    assert all(name in " ".join(summary.not_used) for name in ("case_03_0000.nii.gz", "Thumbs.db", "case_04_0000.tif"))


def test_row_109_one_file_is_predicted_and_an_output_named_like_a_file_is_refused(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    assert predict_folder(predictor, images / "case_01_0000.png", tmp_path / "out").cases == ["case_01"]
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["case_01.png"]
    with pytest.raises(SettingsError, match=r"case_01\.nii\.gz: the output is a folder"):
        predict_folder(predictor, images / "case_01_0000.png", tmp_path / "case_01.nii.gz")


def test_row_136_a_case_whose_name_cannot_be_a_file_everywhere_fails_and_the_others_are_done(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    (images / "case_01_0000.png").rename(images / "line\nfeed\x1b[31m_0000.png")
    (images / "case_02_0000.png").rename(images / os.fsdecode(b"latin\xe9_0000.png"))
    with pytest.raises(PartialFailureError, match="2 of 4 cases failed"):
        predict_folder(predictor, images, tmp_path / "out")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["cases"] == ["case_00", "case_03"]
    assert {name.replace("\n", "|") for name in run["failed"]} == {"line|feed\\x1b[31m", "latin\\udce9"}
    assert all("control character or broken unicode" in reason for reason in run["failed"].values())


def test_progress_counts_the_cases(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    predict_folder(predictor, images, tmp_path / "out", progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_several_masks_have_a_folder_each_beside_their_codes(images: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(write_tiny_model(tmp_path / "model", 2, masks=("ED", "ES")), device="cpu", tta=False)
    summary = predict_folder(predictor, images, tmp_path / "out")
    for case_id in summary.cases:
        codes, _ = read_segmentation(tmp_path / "out" / f"{case_id}.png")
        ed, es = (read_segmentation(tmp_path / "out" / name / f"{case_id}.png")[0] for name in ("ED", "ES"))
        np.testing.assert_array_equal(codes.array, ed.array + 3 * es.array)
        assert ed.geometry == es.geometry == codes.geometry == check_image(images / f"{case_id}_0000.png")
    assert len(summary.cases) == len(list((tmp_path / "out" / "ES").iterdir())) == 4


def test_no_temporary_file_is_left(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != LOCK_FILE)
    masks = [f"case_{i:02d}.png" for i in range(4)]
    assert names == sorted([*masks, "age_results.csv", "cases.jsonl", "classification.csv", "grade_results.csv", "run.json"])


def test_cases_that_abstain_have_a_reason_and_are_counted(model_2d: Path, images: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(model_2d, device="cpu")  # mirrored, for a spread
    predict_folder(predictor, images, tmp_path / "out")
    confidences = sorted(max(float(row[2]), float(row[3])) for row in rows(tmp_path / "out" / "classification.csv")[1:])
    assert confidences[1] + 1e-5 < confidences[2]
    rule = f"confidence<{(confidences[1] + confidences[2]) / 2:.6f}"
    summary = predict_folder(predictor, images, tmp_path / "out", abstention=Abstention.parse([rule, "spread>1000"]))
    header, *cases = rows(tmp_path / "out" / "classification.csv")
    reasons = [case[header.index("grade_abstain")] for case in cases]
    assert sum(reason.startswith("confidence 0.") for reason in reasons) == reasons.count("") == 2
    assert {case[header.index("age_abstain")] for case in cases} == {""}  # a value has no confidence
    assert (summary.num_abstained, summary.abstained) == (2, {"grade": 2, "age": 0})
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["num_abstained"], run["abstained"], run["abstention"][1]) == (2, {"grade": 2, "age": 0}, "spread>1000")


def test_without_rules_nothing_abstains(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    summary = predict_folder(predictor, images, tmp_path / "out")
    assert (summary.num_abstained, summary.abstained, summary.missing_covariates) == (0, {}, {})


def test_covariates_that_are_not_given_are_counted_by_name(images: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", 2)
    described = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**described, "covariates": ["height", "weight", "sex"]}))
    covariates = {"case_00": {"height": 1.7, "sex": 0.0}, "unknown": {"weight": 60.0}}
    covariates |= {f"case_{index:02d}": {"sex": 1.0} for index in (1, 2, 3)}
    predictor = Predictor.load(model, device="cpu", tta=False)
    summary = predict_folder(predictor, images, tmp_path / "out", covariates=covariates)
    assert summary.missing_covariates == {"height": 3, "weight": 4}


def test_a_case_whose_mask_cannot_be_written_is_not_done(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    (tmp_path / "out" / "case_01.png").unlink()
    (tmp_path / "out" / "case_01.png").mkdir()  # stands where the mask should go
    with pytest.raises(PartialFailureError, match=r"1 of 4 cases failed, .*: case_01"):
        predict_folder(predictor, images, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cases"] == ["case_00", "case_02", "case_03"]
    assert "case_01" not in (tmp_path / "out" / "classification.csv").read_text()


def test_one_case_is_read_ahead_and_no_more(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    ahead: list[int] = []
    prepare, predict = predictor.prepare, predictor.predict_preprocessed

    def reading(paths: list[Path]) -> Any:
        read.append(paths[0].name)
        return prepare(paths)

    def predicting(*prepared: Any, covariates: Any) -> Any:
        prediction = predict(*prepared, covariates=covariates)
        ahead.append(len(read) - len(ahead) - 1)
        return prediction

    monkeypatch.setattr(predictor, "prepare", reading)
    monkeypatch.setattr(predictor, "predict_preprocessed", predicting)
    predict_folder(predictor, images, tmp_path / "out")
    assert len(read) == len(set(read)) == 4
    assert max(ahead) == 1


def test_row_110_where_all_cases_fail_no_others_are_promised(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    for path in images.iterdir():
        path.write_bytes(b"no png")
    with pytest.raises(PartialFailureError) as error:
        predict_folder(predictor, images, tmp_path / "out")
    assert str(error.value).startswith("4 of 4 cases failed, none is done:\n")
    assert "others" not in str(error.value)


def test_row_111_failed_cases_stand_one_per_line(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    for index in (1, 2):
        (images / f"case_0{index}_0000.png").write_bytes(b"no png")
    with pytest.raises(PartialFailureError) as error:
        predict_folder(predictor, images, tmp_path / "out")
    head, *faults = str(error.value).splitlines()
    assert head.startswith("2 of 4 cases failed, the others are in ")
    assert [fault[: len("  case_01 (UNREADABLE: ")] for fault in faults] == [
        "  case_01 (UNREADABLE: ",
        "  case_02 (UNREADABLE: ",
    ]


def test_a_pipe_in_place_of_an_image_fails_at_once_and_the_others_are_done(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    (images / "case_02_0000.png").unlink()
    os.mkfifo(images / "case_02_0000.png")
    with pytest.raises(PartialFailureError, match=r"1 of 4 cases failed.*: case_02 \(UNREADABLE"):
        predict_folder(predictor, images, tmp_path / "out")


@pytest.mark.parametrize("name", ["a:b", "nul", "line\nbreak", "two  \udcff"])
def test_a_case_of_an_impossible_name_fails_by_it_and_the_others_are_done(
    predictor: Predictor, images: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(images / "case_00_0000.png", images / f"{name}_0000.png")
    with pytest.raises(FailedCasesError, match="1 of 5 cases failed") as error:
        predict_folder(predictor, images, tmp_path / "out")
    ((failed, reason),) = error.value.summary.failed.items()
    assert failed == printable(name).replace("\n", "\\n") or failed == printable(name)
    assert reason.startswith("DATASET: ")
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
