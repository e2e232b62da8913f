"""A prediction is saved as the command writes it, and drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib as mpl
import nibabel
import numpy as np
import pytest
import SimpleITK
from tiny import SPACING_MM, tiny_case, write_tiny_dataset

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.io.images import check_image, read_segmentation

ANSWERS = ("classification.csv", "grade_results.csv", "age_results.csv")


@pytest.fixture(scope="module")
def predictor(model_3d: Path) -> Predictor:
    return Predictor.load(model_3d, [0], device="cpu", tta=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("data") / "user", 3, 2) / "images"


def table(path: Path) -> list[str]:
    with path.open(newline="") as stream:
        return [row["case_id"] for row in csv.DictReader(stream)]


def test_predictions_saved_one_by_one_are_what_the_command_writes(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_folder(predictor, images, tmp_path / "command")
    for path in sorted(images.iterdir(), reverse=True):
        mask = predictor(path).save(tmp_path / "saved")
    assert mask == tmp_path / "saved" / "case_00.nii.gz"
    for name in (*ANSWERS, "case_00.nii.gz", "case_01.nii.gz"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    runs = [json.loads((tmp_path / place / "run.json").read_text()) for place in ("saved", "command")]
    for run in runs:
        del run["seconds"], run["output"]
    assert runs[0] == runs[1]
    summary = predict_folder(predictor, images, tmp_path / "saved", resume=True)  # and the command goes on with it
    assert summary.cases == ["case_00", "case_01"]


def test_a_case_is_replaced_and_one_whose_mask_was_changed_is_not_kept(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    first, second = (predictor(path) for path in sorted(images.iterdir()))
    for prediction in (first, second, first):
        prediction.save(tmp_path)
    assert table(tmp_path / "classification.csv") == ["case_00", "case_01"]
    (tmp_path / "case_00.nii.gz").write_bytes((tmp_path / "case_01.nii.gz").read_bytes() + b"more")
    second.save(tmp_path)
    assert table(tmp_path / "classification.csv") == ["case_01"]


def test_other_settings_of_the_model_begin_a_table_of_their_own(
    predictor: Predictor, model_3d: Path, images: Path, tmp_path: Path
) -> None:
    paths = sorted(images.iterdir())
    predictor(paths[0]).save(tmp_path)
    other = Predictor.load(model_3d, [0], device="cpu", tta=False, error_rate=0.5)
    other(paths[1]).save(tmp_path)
    assert table(tmp_path / "classification.csv") == ["case_01"]


def test_nothing_of_others_is_replaced(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    prediction = predictor(images / "case_00_0000.nii.gz")
    (tmp_path / "case_00.nii.gz").write_bytes(b"mine")
    for place in (tmp_path, tmp_path / "case_00.nii.gz"):
        with pytest.raises(OutputExistsError, match=r"case_00.nii.gz"):
            prediction.save(place)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"case_00.nii.gz": b"mine"}
    with pytest.raises(SettingsError, match="is the folder of the images"):
        prediction.save(images)


def test_a_path_gets_the_mask_alone_in_the_place_of_the_image(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    path = images / "case_00_0000.nii.gz"
    prediction = predictor(SimpleITK.ReadImage(str(path)))
    assert prediction.save(str(tmp_path / "mask.nii")) == tmp_path / "mask.nii"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii"]
    assert check_image(tmp_path / "mask.nii") == check_image(path)
    np.testing.assert_array_equal(read_segmentation(tmp_path / "mask.nii")[0].array, prediction.segmentation)
    with pytest.raises(SettingsError, match=r"ends in .nii.gz"):
        prediction.save(tmp_path / "mask.png")


def test_an_image_without_a_name_needs_one_and_an_array_its_spacing_alone(predictor: Predictor, tmp_path: Path) -> None:
    prediction = predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])
    with pytest.raises(SettingsError, match="the image has no name"):
        prediction.save(tmp_path)
    with pytest.raises(SettingsError, match="path separator"):
        prediction.save(tmp_path, "a/case")
    assert not list(tmp_path.iterdir())
    prediction.save(tmp_path, "patient 7")
    geometry = check_image(tmp_path / "patient 7.nii.gz")
    assert geometry.spacing_mm == SPACING_MM[3] and geometry.origin_mm == (0.0, 0.0, 0.0)
    assert "images" not in json.loads((tmp_path / "run.json").read_text())


def test_an_image_that_nibabel_loaded_is_named_like_its_file(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    prediction = predictor(nibabel.load(images / "case_01_0000.nii.gz"))
    assert prediction.save(tmp_path).name == "case_01.nii.gz"


def test_a_figure_has_the_outlines_the_answers_and_a_legend_and_is_the_callers_alone(
    predictor: Predictor, images: Path
) -> None:
    import matplotlib.pyplot as plt

    before, prediction = dict(mpl.rcParams), predictor(images / "case_00_0000.nii.gz")
    figure = prediction.plot(planes=("axial", "coronal"), size=100)
    assert dict(mpl.rcParams) == before and plt.get_fignums() == []
    (axes,) = figure.axes
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape[0] == 100 and np.ptp(picture.astype(int), axis=2).max() > 50  # colours of outlines on a grey image
    title = axes.get_title(loc="left")
    assert title.startswith("grade: ") and "\nage: " in title
    found = {name for name, value in (("organ", 1), ("lesion", 2)) if (prediction.segmentation == value).any()}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == found != set()
    figure.canvas.draw()


def test_a_figure_refuses_what_there_is_not(predictor: Predictor) -> None:
    prediction = predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])
    with pytest.raises(SettingsError, match="channel: expected 0 to 0, got 1"):
        prediction.plot(channel=1)
    with pytest.raises(SettingsError, match="mask: expected one of"):
        prediction.plot(mask="ED")
    with pytest.raises(SettingsError, match="planes"):
        prediction.plot(planes=("oblique",))
    bare = predictor.predict_preprocessed(*predictor.prepare(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3]), covariates={})
    for use in (bare.plot, lambda: bare.save("x")):
        with pytest.raises(SettingsError, match="does not know its"):
            use()
