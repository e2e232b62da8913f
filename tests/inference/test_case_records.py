"""An interrupted folder run goes on where it stopped, and only with the same model, settings and images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import write_tiny_dataset, write_tiny_model

from nnduet.errors import PartialFailureError, ResumeError
from nnduet.inference.case_records import RECORDS_FILE
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor

TABLES = ("classification.csv", "grade_results.csv", "age_results.csv")


@pytest.fixture(scope="module")
def predictor(model_3d: Path) -> Predictor:
    return Predictor.load(model_3d, device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_tiny_dataset(tmp_path / "user", 3, 4) / "images"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith((".nii.gz", ".csv"))}


def count_predictions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = Predictor.predict_preprocessed

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(Predictor, "predict_preprocessed", counted)
    return calls


def interrupt(predictor: Predictor, images: Path, output: Path, after: int) -> None:
    """Stop a run by an exception that is not caught, as Ctrl-C is, when ``after`` cases were reported."""

    def progress(done: int, total: int, text: str) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder(predictor, images, output, progress=progress)


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(predictor, images, tmp_path / "whole")
    interrupt(predictor, images, tmp_path / "out", after=3)
    calls = count_predictions(monkeypatch)
    summary = predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert 0 < len(calls) < 4
    assert summary.cases == ["case_00", "case_01", "case_02", "case_03"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_without_resume_every_case_is_predicted_again(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    calls = count_predictions(monkeypatch)
    predict_folder(predictor, images, tmp_path / "out")
    assert len(calls) == 4


def test_a_finished_run_is_resumed_without_work(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    before = contents(tmp_path / "out")
    calls = count_predictions(monkeypatch)
    predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert not calls
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["image", "mask"])
def test_a_changed_image_or_a_lost_mask_is_predicted_again(
    predictor: Predictor, images: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    if change == "image":
        shutil.copy(images / "case_01_0000.nii.gz", images / "case_02_0000.nii.gz")
    else:
        (tmp_path / "out" / "case_02.nii.gz").unlink()
    calls = count_predictions(monkeypatch)
    predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert len(calls) == 1
    assert (tmp_path / "out" / "case_02.nii.gz").is_file()


def test_a_failed_case_is_tried_again(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    path = images / "case_01_0000.nii.gz"
    sound = path.read_bytes()
    path.write_bytes(sound[:-9])
    with pytest.raises(PartialFailureError):
        predict_folder(predictor, images, tmp_path / "out")
    _, *lines = map(json.loads, (tmp_path / "out" / RECORDS_FILE).read_text().splitlines())
    assert {line["case"]: line["failed"][:7] for line in lines if "failed" in line} == {"case_01": "CORRUPT"}
    path.write_bytes(sound)
    assert predict_folder(predictor, images, tmp_path / "out", resume=True).failed == {}


def test_a_torn_last_line_counts_as_not_done(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    records = tmp_path / "out" / RECORDS_FILE
    records.write_bytes(records.read_bytes()[:-40])
    predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert all(json.loads(line) for line in records.read_text().splitlines())


def test_another_model_or_other_settings_are_not_resumed(
    predictor: Predictor, model_3d: Path, images: Path, tmp_path: Path
) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    for other, what in (
        (Predictor.load(model_3d, ["0"], device="cpu"), "folds, model"),
        (Predictor.load(model_3d, device="cpu", tta=False), "mirror_axes"),
    ):
        with pytest.raises(ResumeError, match=f"had another {what}"):
            predict_folder(other, images, tmp_path / "out", resume=True)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]\n", b'{"case": "case_00"}\n'])
def test_nothing_to_resume_is_refused(predictor: Predictor, images: Path, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / RECORDS_FILE).write_bytes(content)
    with pytest.raises(ResumeError, match="predict without --resume"):
        predict_folder(predictor, images, tmp_path / "out", resume=True)


@pytest.mark.parametrize("damage", ["emptied", "truncated", "swapped", "replaced by a folder"])
def test_row_132_a_mask_that_is_not_what_was_written_is_made_again(
    predictor: Predictor, images: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    predict_folder(predictor, images, output)
    expected, mask = contents(output), output / "case_02.nii.gz"
    if damage == "swapped":
        mask.write_bytes(expected["case_03.nii.gz"])
    elif damage == "replaced by a folder":
        mask.unlink()
        mask.mkdir()
    else:
        mask.write_bytes(b"" if damage == "emptied" else expected["case_02.nii.gz"][:100])
    calls = count_predictions(monkeypatch)
    if damage == "replaced by a folder":
        with pytest.raises(PartialFailureError, match="case_02"):
            predict_folder(predictor, images, output, resume=True)
        mask.rmdir()
    predict_folder(predictor, images, output, resume=True)
    assert len(calls) == (2 if damage == "replaced by a folder" else 1)
    assert contents(output) == expected


def test_row_132_one_of_several_masks_is_made_again(tmp_path: Path, images: Path) -> None:
    predictor = Predictor.load(write_tiny_model(tmp_path / "model", 3, masks=("ED", "ES")), device="cpu", tta=False)
    predict_folder(predictor, images, tmp_path / "out")
    mask = tmp_path / "out" / "ES" / "case_01.nii.gz"
    expected = mask.read_bytes()
    mask.write_bytes(b"")
    predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert mask.read_bytes() == expected


def test_row_132_an_image_of_the_same_size_and_time_with_other_bytes_is_predicted_again(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    path = images / "case_01_0000.nii.gz"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[4] ^= 1  # a bit of the time in gzip's header
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    calls = count_predictions(monkeypatch)
    predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["fold_0/case_head.json", "dataset.json", "plans.json", "cross_validation/conformal.json"])
def test_row_132_a_model_that_changed_in_any_file_is_not_resumed(
    model_3d: Path, images: Path, tmp_path: Path, name: str
) -> None:
    model = Path(shutil.copytree(model_3d, tmp_path / "model"))
    (model / "cross_validation").mkdir()
    for file, content in (("fold_0/case_head.json", '{"tasks": {}}'), ("cross_validation/conformal.json", "{}")):
        (model / file).write_text(content)
    predict_folder(Predictor.load(model, device="cpu", tta=False), images, tmp_path / "out")
    (model / name).write_text((model / name).read_text() + "\n")
    before = contents(tmp_path / "out")
    with pytest.raises(ResumeError, match=rf"the interrupted run had another model \({name}\)") as error:
        predict_folder(Predictor.load(model, device="cpu", tta=False), images, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == before
    assert error.value.remedy == "predict into another folder, or bring back what the interrupted run began with"


def test_row_112_what_helps_is_said_of_predict_not_of_training(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ResumeError) as error:
        predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert error.value.remedy == "predict without --resume"


def test_a_mask_that_was_written_without_its_record_is_still_the_runs_own(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    """The process was killed between the two."""
    predict_folder(predictor, images, tmp_path / "out")
    records = tmp_path / "out" / RECORDS_FILE
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:2]))
    for resume in (True, False):
        predict_folder(predictor, images, tmp_path / "out", resume=resume)


@pytest.mark.parametrize("change", [{"label": None}, {"probabilities": {"high": 1.0}}, {"interval": ["a", "b"]}])
def test_answers_that_were_edited_into_none_are_predicted_again(
    predictor: Predictor, images: Path, tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    expected, records = contents(tmp_path / "out"), tmp_path / "out" / RECORDS_FILE
    head, *lines = map(json.loads, records.read_text().splitlines())
    lines[0]["answers"]["tasks"]["grade"] |= change
    records.write_text("".join(json.dumps(line) + "\n" for line in [head, *lines]))
    calls = count_predictions(monkeypatch)
    predict_folder(predictor, images, tmp_path / "out", resume=True)
    assert len(calls) == 1
    assert contents(tmp_path / "out") == expected
