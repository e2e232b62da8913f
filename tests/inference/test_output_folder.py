"""A prediction replaces nothing but what the same model wrote in its folder before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_head, write_tiny_dataset, write_tiny_model

from nnduet.errors import NNDuetError, OutputExistsError, SettingsError
from nnduet.inference.folder_runs import predict_file, predict_folder
from nnduet.inference.output_folder import mask_paths
from nnduet.inference.predictor import Predictor
from nnduet.io.files import file_digest
from nnduet.io.images import read_segmentation
from nnduet.model_store.bundles import write_bundle
from nnduet.model_store.folder_files import FolderFiles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def predictor(model_2d: Path) -> Predictor:
    return Predictor.load(model_2d, device="cpu", tta=False)


@pytest.fixture
def other(tmp_path: Path) -> Predictor:
    """A model that differs in its case head alone."""
    model = write_tiny_model(tmp_path / "other", 2)
    (model / "fold_0" / "case_head.json").write_text(json.dumps({"tasks": {"grade": tiny_head([1.0, 0.0])}}))
    return Predictor.load(model, device="cpu", tta=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_tiny_dataset(tmp_path / "user", 2, 2) / "images"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refuse(predictor: Predictor, images: Path, output: Path, error: type[NNDuetError], match: str) -> None:
    """The prediction is refused, and nothing in the folder was touched."""
    before = contents(output)
    with pytest.raises(error, match=match):
        predict_folder(predictor, images, output)
    assert contents(output) == before


def test_row_78_another_models_folder_is_refused(predictor: Predictor, other: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    refuse(other, images, tmp_path / "out", OutputExistsError, "out: holds answers of another model; nothing was changed")
    more = write_tiny_dataset(tmp_path / "more", 2, 3) / "images"
    for path in list(more.iterdir()):
        path.rename(more / f"new_{path.name}")  # other cases do not make it the same model's
    refuse(other, more, tmp_path / "out", OutputExistsError, "another model")


def test_row_78_the_same_models_folder_is_replaced_case_by_case(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    expected = (tmp_path / "out" / "case_00.png").read_bytes()
    (tmp_path / "out" / "case_00.png").write_bytes(b"cut")
    (images / "case_01_0000.png").unlink()
    predict_folder(predictor, images, tmp_path / "out")
    assert (tmp_path / "out" / "case_00.png").read_bytes() == expected
    assert (tmp_path / "out" / "case_01.png").is_file()  # of the run before, and still this model's
    shutil.copy(images / "case_00_0000.png", images / "case_01_0000.png")
    predict_folder(predictor, images, tmp_path / "out")


def test_row_78_other_folds_and_settings_of_the_same_model_may_follow(tmp_path: Path, images: Path) -> None:
    model = write_tiny_model(tmp_path / "model", 2, num_folds=2)
    predict_folder(Predictor.load(model, ["0"], device="cpu", tta=False), images, tmp_path / "out")
    predict_folder(Predictor.load(model, device="cpu"), images, tmp_path / "out")


@pytest.mark.parametrize("name", ["case_01.png", "classification.csv", "grade_results.csv", "run.json", "cases.jsonl"])
def test_row_78_foreign_files_of_these_names_are_refused(predictor: Predictor, images: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("of the user")
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    refuse(predictor, images, tmp_path / "out", OutputExistsError, f"out: holds {name}, not written by this model")


def test_row_78_a_foreign_mask_beside_own_ones_is_refused(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "out")
    shutil.copy(images / "case_00_0000.png", images / "new_0000.png")
    (tmp_path / "out" / "new.png").write_text("drawn by hand")
    refuse(predictor, images, tmp_path / "out", OutputExistsError, r"holds new\.png")


def test_row_78_other_files_of_the_folder_are_left(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    predict_folder(predictor, images, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "of the user"


def test_row_78_a_link_in_place_of_a_masks_folder_is_refused(images: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", 2, masks=("ED", "ES"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ES").symlink_to(tmp_path / "photos")
    refuse(Predictor.load(model, device="cpu", tta=False), images, tmp_path / "out", OutputExistsError, "holds ES")


def test_row_78_the_folder_of_the_images_is_no_output(predictor: Predictor, images: Path) -> None:
    (images / "case_00_0000.png").rename(images / "case_00.png")
    (images / "case_01_0000.png").rename(images / "case_01.png")
    for place in (images, images / ".." / "images"):
        refuse(predictor, images, place, SettingsError, "is the folder of the images")
    before = contents(images)
    with pytest.raises(SettingsError, match="is the folder of the images"):
        predict_folder(predictor, images / "case_00.png", images)
    assert contents(images) == before


def test_row_78_an_image_that_is_a_mask_of_the_folder_is_not_replaced(tmp_path: Path, images: Path) -> None:
    model = write_tiny_model(tmp_path / "model", 2, masks=("ED", "ES"))
    predictor = Predictor.load(model, device="cpu", tta=False)
    predict_folder(predictor, images, tmp_path / "out")
    for path in (tmp_path / "out" / "ED").iterdir():
        path.write_bytes((images / f"{path.stem}_0000.png").read_bytes())
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="are images, which masks would replace"):
        predict_folder(predictor, tmp_path / "out" / "ED", tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("place", [".", "fold_0", "answers"])
def test_row_78_the_model_is_no_output(model_2d: Path, images: Path, tmp_path: Path, place: str) -> None:
    model = Path(shutil.copytree(model_2d, tmp_path / "model"))
    refuse(Predictor.load(model, device="cpu", tta=False), images, model / place, SettingsError, "lies in the model")


def test_row_78_run_json_and_the_records_name_the_model_by_every_file(model_3d: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_3d, tmp_path / "model"))
    (model / "fold_1" / "case_head.json").write_text(json.dumps({"tasks": {"grade": tiny_head([1.0, 0.0])}}))
    (model / "cross_validation").mkdir()
    (model / "cross_validation" / "conformal.json").write_text("{}")
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    predict_folder(Predictor.load(model, device="cpu", tta=False), images, tmp_path / "out")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    names = ["plans.json", "dataset.json", "cross_validation/conformal.json", "fold_1/case_head.json"]
    names += ["fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth"]
    assert run["model"] == str(model)
    assert run["model_files"] == {name: file_digest(model / name) for name in names}
    first = json.loads((tmp_path / "out" / "cases.jsonl").read_text().splitlines()[0])
    assert first["run"]["model"] == run["model_files"]
    write_bundle(FolderFiles(model), tmp_path / "model.nnduet")
    summary = predict_folder(Predictor.load(tmp_path / "model.nnduet", device="cpu", tta=False), images, tmp_path / "two")
    assert summary.model_files == {"bundle": file_digest(tmp_path / "model.nnduet")}


def test_a_mask_gets_the_name_that_is_asked_for(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    summary = predict_file(predictor, images / "case_01_0000.png", tmp_path / "new" / "mine.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.png"]
    found = predictor(images / "case_01_0000.png")
    assert (read_segmentation(tmp_path / "new" / "mine.png")[0].array == found.segmentation).all()
    assert summary.answers == {"case_01": found.answers}


def test_a_mask_of_a_name_that_exists_or_cannot_be_is_refused(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    image = images / "case_01_0000.png"
    before = image.read_bytes()
    with pytest.raises(OutputExistsError, match="is there already"):
        predict_file(predictor, image, image)
    assert image.read_bytes() == before
    with pytest.raises(SettingsError, match="expected one mask for this name, got 2 cases"):
        predict_file(predictor, images, tmp_path / "mine.png")
    with pytest.raises(SettingsError, match=r"expected a name that ends in \.png"):
        predict_file(predictor, image, tmp_path / "mine.nii.gz")


@pytest.mark.parametrize("case_id", ["../../x", "a/b", "", "a\nb", "nul"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, case_id: str) -> None:
    with pytest.raises(SettingsError, match="case"):
        mask_paths(tmp_path, case_id, ".png", ())
    with pytest.raises(SettingsError, match="mask"):
        mask_paths(tmp_path, "case", ".png", (case_id,))
