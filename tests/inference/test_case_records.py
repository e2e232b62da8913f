"""An interrupted folder run goes on where it stopped, and only with the same model, settings and images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import write_tiny_dataset

from nnduet.errors import PartialFailureError, ResumeError
from nnduet.inference.case_records import RECORDS_FILE
from nnduet.inference.folder import predict_folder
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
    monkeypatch.setattr(Predictor, "predict_preprocessed", lambda *a, **k: calls.append(1) or original(*a, **k))
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
